"""A miss: Redis asked, all features computed in PostgreSQL, checked, packed, written back.

Run it while the machine is quiet, on servers of your own: an empty Redis database, and a migrated
PostgreSQL database with nothing in it, which is filled with a synthetic funnel and keeps it.

    LEADML_REDIS_URL=... LEADML_POSTGRES_URL=... python benchmarks/online_miss.py

Once with 60 features and once with the whole catalogue of leads. Beside the whole: each stage, and
the bare statement over a bare connection.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from beside import empty_redis, shown

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.online.format import Schema, encode
from leadml_pipelines.online.values import check_rows, schema_for_rows
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.load_synthetic import load_synthetic
from leadml_pipelines.times import to_micros, utc_now

FEATURES = 60


def some_features(count: int) -> Catalogue:
    """The catalogue's first features of leads, and the views they need."""
    chosen: list[FeatureView] = []
    left = count
    for view in catalogue().views("lead"):
        if left <= 0:
            break
        kept = view.features[:left]
        chosen.append(replace(view, features=kept))
        left -= len(kept)
    return Catalogue(chosen)


def fill(url: str, leads: int) -> list[str]:
    with connect(url, autocommit=True) as connection:
        there = connection.execute("SELECT count(*) FROM crm.leads").fetchone()
        if there is not None and not there[0]:
            print(f"loading {leads:,} synthetic leads")
            load_synthetic(url, leads, end=utc_now())
            connection.execute(
                "INSERT INTO leadml.graph_metrics SELECT kind, id, "
                "date_trunc('week', now()) - make_interval(weeks => w), now(), 2, 1, 1, 0, 1, 1, "
                "0.001, 0.1, 0.1, 0.1, 1, 'c', 3, 0.1, 0.1, 1, 1, 2, 1, 9, 0.1, 5000 "
                "FROM (SELECT 'lead' AS kind, lead_id AS id FROM crm.leads UNION ALL "
                "SELECT 'agent', agent_id FROM crm.agents) AS e, generate_series(0, 9) AS w"
            )
            connection.execute("VACUUM ANALYZE")
        rows = connection.execute("SELECT lead_id FROM crm.leads ORDER BY 1").fetchall()
    ids = [row[0] for row in rows]
    random.Random(7).shuffle(ids)  # noqa: S311
    return ids


def timed(work: Callable[[], Any], seen: list[float]) -> Any:
    begun = time.perf_counter()
    answer = work()
    seen.append((time.perf_counter() - begun) * 1000)
    return answer


def measure(online: OnlineFeatures, ids: list[str], rounds: int) -> Mapping[str, np.ndarray]:
    """Times of a whole miss, and of its stages on other leads, in turn."""
    present, store = online.present, online.store
    schema: Schema | None = None
    stages = ("whole miss", "Redis, asked", "PostgreSQL", "check and pack", "Redis, written")
    times: dict[str, list[float]] = {stage: [] for stage in stages}
    for number in range(rounds):
        whole, staged = ids[2 * number % len(ids)], ids[(2 * number + 1) % len(ids)]
        store.forget("lead", [whole, staged])
        found = timed(lambda i=whole: online.reader.read("lead", [i]), times["whole miss"])
        assert found.sources == ["computed"]
        timed(lambda i=staged: store.read_batch("lead", [i]), times["Redis, asked"])
        rows = timed(lambda i=staged: present("lead", [i]), times["PostgreSQL"])

        def pack(rows: Any = rows, known: Schema | None = schema) -> Any:
            values = [row.values for row in rows]
            features = present.features("lead")
            schema = schema_for_rows("lead", features, values, known)
            checked = check_rows(schema, features, values)
            as_of = np.array([to_micros(row.as_of) for row in rows], np.int64)
            return schema, encode(schema, as_of, as_of, checked.values)

        schema, payloads = timed(pack, times["check and pack"])
        timed(
            lambda i=staged, s=schema, p=payloads: store.write_batch("lead", [i], p, schema=s),
            times["Redis, written"],
        )
    return {stage: np.percentile(seen, [50, 95, 99]) for stage, seen in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1500)
    options = parser.parse_args()
    bare = empty_redis()
    try:
        ids = fill(os.environ["LEADML_POSTGRES_URL"], options.leads)
        everything = len(catalogue().features("lead"))
        for count in (FEATURES, everything):
            with OnlineFeatures(Settings(), views=some_features(count)) as online:
                online.prepare()
                measure(online, ids, min(200, options.rounds))
                gc.collect()
                gc.freeze()
                found = measure(online, ids, options.rounds)
            print(f"{count} features, p50 / p95 / p99 ms")
            for stage, times in found.items():
                print(f"  {stage:>15}: {shown(times)}")
            bare.flushdb()
    finally:
        bare.flushdb()


if __name__ == "__main__":
    main()
