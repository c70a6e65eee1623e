"""Feast's online store on the same Redis: what the other benchmarks are put beside.

They run this file with the Python that `--feast-python` names (an environment that has Feast 0.67
with `feast[redis]`); it prints one line of JSON. Nothing of LeadML is imported here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

warnings.simplefilter("ignore")
os.environ.setdefault("FEAST_USAGE", "False")
logging.disable(logging.WARNING)


def measure(url: str, leads: int, features: int, rounds: int, sizes: list[int]) -> dict:
    import numpy as np
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    parts = urlsplit(url)
    connection = f"{parts.hostname}:{parts.port},db={parts.path.strip('/') or 0}"
    if parts.password:
        connection += f",password={parts.password}"
    names = [f"f{i}" for i in range(features)]
    with tempfile.TemporaryDirectory() as folder:
        config = RepoConfig(
            project="bench",
            provider="local",
            registry=str(Path(folder) / "registry.db"),
            online_store={"type": "redis", "connection_string": connection},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config, repo_path=folder)
        now = datetime.now(UTC)
        frame = pd.DataFrame(np.random.default_rng(7).random((leads, features)), columns=names)
        frame.insert(0, "lead_id", [f"lead_{i}" for i in range(leads)])
        frame["event_timestamp"] = now
        path = Path(folder) / "source.parquet"
        frame.head(10).to_parquet(path)
        entity = Entity(name="lead", join_keys=["lead_id"], value_type=ValueType.STRING)
        view = FeatureView(
            name="leads",
            entities=[entity],
            ttl=timedelta(hours=1),
            schema=[Field(name=name, dtype=Float64) for name in names],
            source=FileSource(path=str(path), timestamp_field="event_timestamp"),
        )
        store.apply([entity, view])
        begun = time.perf_counter()
        store.write_to_online_store("leads", frame)
        rows = leads / (time.perf_counter() - begun)
        wanted = [f"leads:{name}" for name in names]
        reads = {}
        for size in sizes:
            asked = [{"lead_id": f"lead_{i}"} for i in range(size)]
            times = []
            for number in range(rounds + 2):
                begun = time.perf_counter()
                store.get_online_features(features=wanted, entity_rows=asked).to_dict()
                if number > 1:
                    times.append((time.perf_counter() - begun) * 1000)
            reads[size] = np.percentile(times, [50, 95, 99]).tolist()
    return {"write_rows_per_second": rows, "read_ms": reads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=2000)
    parser.add_argument("--features", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1000])
    options = parser.parse_args()
    url = os.environ["LEADML_REDIS_URL"]
    found = measure(url, options.leads, options.features, options.rounds, options.sizes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
