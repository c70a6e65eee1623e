"""Training sets from histories, beside bare DuckDB and beside Feast, in one run.

Run it while the machine is quiet. Feast lives in an environment of its own, for it pins other
versions of everything; without it its part is left out:

    python benchmarks/training_sets.py
    python benchmarks/training_sets.py --feast-python /path/to/feast/bin/python

20,000 rows of a spine against 1 M rows of 40 features in Parquet (20 floats, 12 whole numbers, 8
texts), to a pandas frame: `shallow`, 50,000 entities with 20 rows each, and `deep`, 1,000 with
1,000. 2 % of the rows repeat the event time of another row of the entity and were created later.
Every candidate runs in processes of its own, in turn, each twice; the better time counts, and the
peak of the process's memory, imports and all.

`bare` is what one writes by hand: ASOF JOIN over the history of which `row_number()` kept the row
created last. `leadml` does more: it also hides what was created after each row's time. With that
switched off it must give what `bare` gives, to the last value, and so must Feast.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

FEATURES = [
    *(f"d{i}" for i in range(20)),
    *(f"i{i}" for i in range(12)),
    *(f"t{i}" for i in range(8)),
]
SHAPES = {"shallow": (50_000, 20), "deep": (1_000, 1_000)}
OURS = ("bare", "leadml", "leadml-ties-only")
FEAST = ("feast-duckdb", "feast-dask")
TOO_MUCH = {("deep", "feast-dask"): "Feast's default pairs all rows: over 14 GB; not run"}
MEMORY_CAP = 16 << 30
"""Address space of a candidate: a runaway ends with an error, not with the machine."""


def generate(folder: Path, entities: int, depth: int, asked: int, seed: int = 7) -> None:
    """Write `history.parquet` and `spine.parquet`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    rows = entities * depth
    day = 86_400_000_000
    start, span = 1_735_689_600_000_000, 200 * day
    who = np.repeat(np.arange(entities, dtype=np.int64), depth)
    event = start + rng.integers(0, span // 1_000_000, rows) * 1_000_000
    created = event + rng.integers(0, 3600, rows) * 1_000_000
    corrected, by = rng.permutation(rows)[: rows // 25].reshape(2, -1)
    who[by], event[by] = who[corrected], event[corrected]
    created[by] = created[corrected] + rng.integers(1, day, len(by))
    order = rng.permutation(rows)
    words = np.array([f"word_{i}" for i in range(50)])
    time_type = pa.timestamp("us", "UTC")
    columns = {
        "entity_id": pa.array(who[order]),
        "event_timestamp": pa.array(event[order]).cast(time_type),
        "created": pa.array(created[order]).cast(time_type),
    }
    for name in FEATURES:
        columns[name] = pa.array(
            rng.random(rows)
            if name[0] == "d"
            else rng.integers(0, 1000, rows)
            if name[0] == "i"
            else words[rng.integers(0, len(words), rows)]
        )
    pq.write_table(pa.table(columns), folder / "history.parquet", row_group_size=122_880)
    spine = {
        "entity_id": pa.array(rng.integers(0, entities, asked)),
        "event_timestamp": pa.array(start + rng.integers(0, span, asked)).cast(time_type),
        "label": pa.array(rng.integers(0, 2, asked)),
    }
    pq.write_table(pa.table(spine), folder / "spine.parquet")


def bare(folder: Path) -> Callable[[], object]:
    import duckdb
    import pandas as pd

    spine = pd.read_parquet(folder / "spine.parquet")

    def run() -> object:
        with duckdb.connect(config={"memory_limit": "4GB"}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("spine", spine)
            return connection.sql(
                f"SELECT s.*, {', '.join('h.' + name for name in FEATURES)} "
                "FROM spine AS s ASOF LEFT JOIN ("
                f"FROM '{folder}/history.parquet' QUALIFY row_number() OVER "
                "(PARTITION BY entity_id, event_timestamp ORDER BY created DESC) = 1) AS h "
                "ON s.entity_id = h.entity_id AND s.event_timestamp >= h.event_timestamp"
            ).df()

    return run


def leadml(folder: Path, *, created_filters: bool) -> Callable[[], object]:
    import pandas as pd

    from leadml_pipelines.features.histories import History
    from leadml_pipelines.features.point_in_time import join_histories

    spine = pd.read_parquet(folder / "spine.parquet")
    history = History(
        "history",
        folder / "history.parquet",
        keys="entity_id",
        event_time="event_timestamp",
        created_time="created",
        created_filters=created_filters,
        features=FEATURES,
    )
    return lambda: join_histories(spine, [history], time="event_timestamp", memory_limit="4GB")


def feast(folder: Path, kind: str) -> Callable[[], object]:
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64, Int64, String
    from feast.value_type import ValueType

    types = {"d": Float64, "i": Int64, "t": String}
    registry = tempfile.mkdtemp(dir=folder)
    store = FeatureStore(
        config=RepoConfig(
            project="measured",
            provider="local",
            registry=f"{registry}/registry.db",
            offline_store={"type": kind},
            online_store={"type": "sqlite", "path": f"{registry}/online.db"},
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="history",
        entities=[entity],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=types[name[0]]) for name in FEATURES],
        source=FileSource(
            path=f"{folder}/history.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store.apply([entity, view])
    spine = pd.read_parquet(folder / "spine.parquet")
    wanted = [f"history:{name}" for name in FEATURES]

    return lambda: store.get_historical_features(entity_df=spine, features=wanted).to_df()


CANDIDATES: dict[str, Callable[[Path], Callable[[], object]]] = {
    "bare": bare,
    "leadml": lambda folder: leadml(folder, created_filters=True),
    "leadml-ties-only": lambda folder: leadml(folder, created_filters=False),
    "feast-dask": lambda folder: feast(folder, "dask"),
    "feast-duckdb": lambda folder: feast(folder, "duckdb"),
}


def measure(name: str, folder: Path, runs: int) -> dict[str, object]:
    """In a process of its own: seconds of the best run, peak memory, and what came out."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_CAP, MEMORY_CAP))
    run = CANDIDATES[name](folder)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        frame = run()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds), "peak_mb": peak, **content(frame)}


def content(frame: object) -> dict[str, object]:
    """Rows and a hash of the values, whatever their order and types."""
    import hashlib

    import pandas as pd

    assert isinstance(frame, pd.DataFrame)
    keys = ["entity_id", "event_timestamp", "label"]
    plain = frame[[*keys, *FEATURES]].assign(
        event_timestamp=frame["event_timestamp"].astype("datetime64[us, UTC]").astype("int64"),
        **{n: pd.to_numeric(frame[n]).astype("float64") for n in FEATURES if n[0] in "di"},
        **{n: frame[n].astype(object).where(frame[n].notna(), "") for n in FEATURES if n[0] == "t"},
    )
    plain = plain.sort_values([*keys, *FEATURES], ignore_index=True)
    text = plain.to_csv(index=False).encode()
    return {"rows": len(frame), "values": hashlib.sha256(text).hexdigest()[:12]}


def run_apart(python: str, name: str, folder: Path, runs: int) -> dict[str, object]:
    command = [python, __file__, "--candidate", name, "--data", str(folder), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1][:100]}
    return json.loads(done.stdout.splitlines()[-1])


def report(shape: str, results: dict[str, list[dict[str, object]]]) -> None:
    medians = {}
    for name, found in results.items():
        wrong = next((r for r in found if "error" in r), None)
        medians[name] = wrong or {
            **found[-1],
            "seconds": statistics.median(float(str(r["seconds"])) for r in found),
            "peak_mb": max(float(str(r["peak_mb"])) for r in found),
        }
    own = medians["leadml"]
    print(f"\n{shape}: {SHAPES[shape][0]:,} entities x {SHAPES[shape][1]:,} rows")
    print(
        f"{'':18} {'s':>7} {'peak MB':>8} {'rows':>7} {'its time / ours':>16} {'memory':>7} values"
    )
    for name, found in medians.items():
        if "error" in found:
            print(f"{name:18} failed: {found['error']}")
            continue
        time_ratio = float(str(found["seconds"])) / float(str(own["seconds"]))
        memory_ratio = float(str(found["peak_mb"])) / float(str(own["peak_mb"]))
        print(
            f"{name:18} {found['seconds']:7.2f} {found['peak_mb']:8,.0f} {found['rows']:7,} "
            f"{time_ratio:16.2f} {memory_ratio:7.2f} {found['values']}"
        )
    same = medians["bare"]["values"] == medians["leadml-ties-only"]["values"]
    print(f"bare and leadml-ties-only give {'the same values' if same else 'OTHER VALUES'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--feast-python", help="Python of an environment that has Feast 0.67")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each candidate")
    parser.add_argument("--runs", type=int, default=2, help="runs in each process")
    parser.add_argument("--asked", type=int, default=20_000, help="rows of the spine")
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.candidate:
        print(json.dumps(measure(given.candidate, given.data, given.runs)))
        return
    for shape in given.shapes:
        with tempfile.TemporaryDirectory(prefix="leadml-benchmark-") as name:
            generate(Path(name), *SHAPES[shape], given.asked)
            wanted = [*OURS, *(FEAST if given.feast_python else ())]
            left_out = [c for c in wanted if (shape, c) in TOO_MUCH]
            results: dict[str, list[dict[str, object]]] = {
                c: [] for c in wanted if c not in left_out
            }
            for _ in range(given.rounds):
                for candidate, found in results.items():
                    python = given.feast_python if candidate in FEAST else sys.executable
                    found.append(run_apart(python, candidate, Path(name), given.runs))
            report(shape, results)
            for candidate in left_out:
                print(f"{candidate:18} {TOO_MUCH[shape, candidate]}")
    if not given.feast_python:
        print("\nFeast was left out: name the Python of its environment with --feast-python")


if __name__ == "__main__":
    main()
