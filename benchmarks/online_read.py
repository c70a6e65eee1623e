"""Reading leads in process, beside the bare parts: `MGET` and `numpy.frombuffer`, in one run.

Run it while the machine is quiet, on a Redis of your own (an empty database; it is emptied again):

    LEADML_REDIS_URL=redis://127.0.0.1:6379/9 python benchmarks/online_read.py

`read` is what every caller goes through (`FeatureReader.read`: cache, staleness, counters), with
all leads in the cache. The two take turns, so that a busy moment hits both. With `--feast-python
PATH` the same reads are made through Feast's `get_online_features`, on the same Redis.
"""

from __future__ import annotations

import argparse
import gc
import os

import numpy as np
from beside import add_feast_option, empty_redis, feast, in_turn, shown

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.online.format import Field, Schema, encode
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.reader import FeatureReader
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.times import to_micros, utc_now

FEATURES = 60
SIZES = ((1, 3000), (100, 1500), (1000, 500))


def catalogue() -> Catalogue:
    """As many features as are read, in one view."""
    features = tuple(
        Feature(f"f{i}", "double", "", None, None, None, "A number.", "fit")
        for i in range(FEATURES)
    )
    view = FeatureView("numbers", "lead", "Numbers.", features, ("spine",), lambda read: None)
    return Catalogue([view])


def nothing_missing(*_: object) -> list:
    raise AssertionError("every lead is in the cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rounds to run")
    add_feast_option(parser)
    options = parser.parse_args()
    bare = empty_redis()
    try:
        schema = Schema("lead", tuple(Field(f"f{i}", "double") for i in range(FEATURES)))
        ids = [f"lead_{i}" for i in range(1000)]
        now = to_micros(utc_now())
        values = np.random.default_rng(7).random((len(ids), FEATURES))
        store = OnlineStore(os.environ["LEADML_REDIS_URL"])
        store.put_schema(schema)
        store.write_batch("lead", ids, encode(schema, now, now, values))
        metrics = Metrics()
        reader = FeatureReader(
            store,
            nothing_missing,
            nothing_missing,
            metrics,
            redis_state=RedisState(metrics),
            views=catalogue(),
        )
        gc.collect()
        gc.freeze()
        print(f"{'leads':>6} {'bare p50/p95/p99 ms':>24} {'read':>24} {'of p95':>7} {'p99/p50':>8}")
        ours: dict[int, np.ndarray] = {}
        for count, rounds in SIZES:
            some = ids[:count]
            keys = [f"leadml:lead:{i}" for i in some]

            def parts(keys: list[str] = keys) -> np.ndarray:
                return np.frombuffer(b"".join(bare.mget(keys)), schema.dtype)["values"]

            def read(some: list[str] = some) -> np.ndarray:
                return reader.read("lead", some).batch.groups[0].values

            assert np.array_equal(parts(), read())
            in_turn([parts, read], 50)
            bare_times, ours[count] = in_turn([parts, read], max(20, int(rounds * options.scale)))
            print(
                f"{count:>6} {shown(bare_times):>24} {shown(ours[count]):>24} "
                f"{ours[count][1] / bare_times[1]:>7.2f} {ours[count][2] / ours[count][0]:>8.2f}"
            )
        bare.flushdb()
        rounds = max(5, int(30 * options.scale))
        other = feast(options.feast_python, leads=1000, features=FEATURES, rounds=rounds)
        for size, milliseconds in (other or {"read_ms": {}})["read_ms"].items():
            times = np.array(milliseconds)
            faster = times[0] / ours[int(size)][0]
            print(f"Feast, {size} leads: {shown(times)} ms; read is {faster:.0f} x faster at p50")
    finally:
        bare.flushdb()


if __name__ == "__main__":
    main()
