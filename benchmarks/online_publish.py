"""Publishing leads with expiry and newer-wins, beside a bare pipeline of SET with expiry.

Run it while the machine is quiet, on a Redis of your own (an empty database; it is emptied again):

    LEADML_REDIS_URL=redis://127.0.0.1:6379/9 python benchmarks/online_publish.py

Both write the same bytes, in turn: first over nothing, then over what is there. `publish` is the
whole way from a frame: checks, packing, writing, the pointer. With `--feast-python PATH` Feast
writes a part of it to the same Redis.
"""

from __future__ import annotations

import argparse
import gc
import os
import time

import numpy as np
import pandas as pd
from beside import add_feast_option, empty_redis, feast, in_turn

from leadml_pipelines.features.view import Feature
from leadml_pipelines.online.format import Field, Schema, encode
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.times import to_micros, utc_now

FEATURES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--feast-leads", type=int, default=10_000)
    add_feast_option(parser)
    options = parser.parse_args()
    bare = empty_redis()
    leads = options.leads
    try:
        schema = Schema("lead", tuple(Field(f"f{i}", "double") for i in range(FEATURES)))
        ids = [f"lead_{i}" for i in range(leads)]
        values = np.random.default_rng(7).random((leads, FEATURES))
        store = OnlineStore(os.environ["LEADML_REDIS_URL"])
        now = to_micros(utc_now())
        payloads = encode(schema, now, now, values)
        gc.collect()
        gc.freeze()

        def parts() -> None:
            for start in range(0, leads, 1000):
                with bare.pipeline(transaction=False) as pipe:
                    at = slice(start, start + 1000)
                    for entity_id, payload in zip(ids[at], payloads[at], strict=True):
                        pipe.set(f"bare:{entity_id}", payload, px=3_600_000)
                    pipe.execute()

        def ours() -> None:
            store.write_batch("lead", ids, payloads)

        for what, rounds in (("new keys", 1), ("over old values", 3)):
            bare_times, our_times = in_turn([parts, ours], rounds)
            rows = [leads / seconds[0] * 1000 for seconds in (bare_times, our_times)]
            print(
                f"{leads:,} leads, {what}: bare SET PX {rows[0]:,.0f} rows/s, newer wins "
                f"{rows[1]:,.0f} rows/s, {our_times[0] / bare_times[0]:.2f} x its time"
            )
        features = [
            Feature(f"f{i}", "double", "", 0, 1, None, "A number.", "fit") for i in range(FEATURES)
        ]
        frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(FEATURES)])
        frame.insert(0, "entity_id", pd.Series(ids, dtype=object))
        begun = time.perf_counter()
        publish_snapshot(store, "lead", features, frame, utc_now())
        whole = leads / (time.perf_counter() - begun)
        print(f"{leads:,} leads, publish from a frame: {whole:,.0f} rows/s")
        bare.flushdb()
        other = feast(
            options.feast_python, leads=options.feast_leads, features=FEATURES, rounds=1, sizes=[1]
        )
        if other is not None:
            theirs = other["write_rows_per_second"]
            print(
                f"Feast, {options.feast_leads:,} leads: {theirs:,.0f} rows/s; "
                f"publish is {whole / theirs:.0f} x faster"
            )
    finally:
        bare.flushdb()


if __name__ == "__main__":
    main()
