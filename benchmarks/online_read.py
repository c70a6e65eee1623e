"""Reading leads in process, beside the bare parts: `MGET` and `numpy.frombuffer`, in one run.

Run it while the machine is quiet, on a Redis of your own (an empty database; it is emptied again):

    LEADML_REDIS_URL=redis://127.0.0.1:6379/9 python benchmarks/online_read.py

The two take turns, so that a busy moment hits both. Publication is measured beside a bare pipeline
of `SET` with expiry of the same bytes.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable

import numpy as np
import redis

from leadml_pipelines.online.format import Field, Schema, encode
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.times import to_micros, utc_now

FEATURES = 60


def percentiles(milliseconds: list[float]) -> np.ndarray:
    return np.percentile(milliseconds, [50, 95, 99])


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list:
    """Times of two functions in ms, p50 / p95 / p99 each, called one after the other."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, seen in zip((first, second), times, strict=True):
            start = time.perf_counter()
            work()
            seen.append((time.perf_counter() - start) * 1000)
    return [percentiles(seen) for seen in times]


def read(store: OnlineStore, bare: redis.Redis, schema: Schema, ids: list[str]) -> None:
    print(f"{'leads':>6} {'bare p50/p95/p99 ms':>24} {'read_batch':>24} {'ratio of p95':>13}")
    for count, rounds in ((1, 2000), (100, 1000), (1000, 300)):
        some = ids[:count]
        keys = [f"leadml:lead:{i}" for i in some]

        def parts(keys: list[str] = keys) -> np.ndarray:
            return np.frombuffer(b"".join(bare.mget(keys)), schema.dtype)["values"]

        def ours(some: list[str] = some) -> np.ndarray:
            return store.read_batch("lead", some).groups[0].values

        assert np.array_equal(parts(), ours())
        in_turn(parts, ours, rounds // 10)
        bare_times, our_times = in_turn(parts, ours, rounds)
        print(
            f"{count:>6} {' / '.join(f'{t:.3f}' for t in bare_times):>24} "
            f"{' / '.join(f'{t:.3f}' for t in our_times):>24} "
            f"{our_times[1] / bare_times[1]:>13.2f}"
        )


def publish(store: OnlineStore, bare: redis.Redis, ids: list[str], payloads: list[bytes]) -> None:
    def parts() -> None:
        for start in range(0, len(ids), 1000):
            with bare.pipeline(transaction=False) as pipe:
                for entity_id, payload in zip(
                    ids[start : start + 1000], payloads[start : start + 1000], strict=True
                ):
                    pipe.set(f"bare:{entity_id}", payload, px=3_600_000)
                pipe.execute()

    def ours() -> None:
        store.write_batch("lead", ids, payloads)

    bare_times, our_times = in_turn(parts, ours, 3)
    rows = [len(ids) / seconds[0] * 1000 for seconds in (bare_times, our_times)]
    print(
        f"publish {len(ids):,}: bare SET PX {rows[0]:,.0f}, newer wins {rows[1]:,.0f} rows/s, "
        f"{our_times[0] / bare_times[0]:.2f} x its time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=20_000)
    leads = parser.parse_args().leads
    url = os.environ["LEADML_REDIS_URL"]
    bare = redis.Redis.from_url(url)
    if bare.dbsize():
        raise SystemExit(f"the database holds {bare.dbsize()} keys; name an empty one")
    try:
        schema = Schema("lead", tuple(Field(f"f{i}", "double") for i in range(FEATURES)))
        ids = [f"lead_{i}" for i in range(leads)]
        now = to_micros(utc_now())
        values = np.random.default_rng(7).random((leads, FEATURES))
        payloads = encode(schema, now, now, values)
        store = OnlineStore(url)
        store.put_schema(schema)
        gc.collect()
        gc.freeze()
        publish(store, bare, ids, payloads)
        read(store, bare, schema, ids)
    finally:
        bare.flushdb()


if __name__ == "__main__":
    main()
