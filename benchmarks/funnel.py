"""The synthetic funnel as an extract with graph metrics, made once in a folder and used again.

It goes the way of all data, through the door of an embedded PostgreSQL and out as Parquet, so that
features see what they would see in production: late events, missing attributes, later versions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from leadml_pipelines.features.duckdb_engine import DuckDBEngine
from leadml_pipelines.features.relations import SOURCE_TABLES
from leadml_pipelines.graph.history import graph_snapshots, weekly_moments
from leadml_pipelines.postgres import migrate
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.sources.extract import (
    Extract,
    NoExtractError,
    extract_sources,
    latest_extract,
)
from leadml_pipelines.sources.load_synthetic import load_synthetic
from leadml_pipelines_tests.graph.builders import graph_of

END = datetime(2026, 9, 1, tzinfo=UTC)
SEED = 7


def funnel(folder: Path, leads: int, *, seed: int = SEED) -> Extract:
    """The funnel of so many leads, with `graph_metrics.parquet` beside its tables."""
    root = folder / f"funnel_{leads}_{seed}"
    try:
        return latest_extract(root / "extracts")
    except NoExtractError:
        pass
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="leadml-funnel-") as home:
        stack = ServiceStack(Path(home) / "home")
        stack.start(only=["postgres"])
        try:
            url = stack.environment()["LEADML_POSTGRES_URL"]
            migrate(url)
            load_synthetic(url, leads, seed=seed, end=END)
            made = extract_sources(url, Path(home) / "extracts", clock="data")
        finally:
            stack.stop()
            stack.remove()
        graph = graph_of({name: made.table(name) for name in made.rows})
        first = graph.nodes["created_at"].min().to_pydatetime()
        metrics = graph_snapshots(
            graph, weekly_moments(first, END), outcomes=pd.read_parquet(made.table("policies"))
        )
        metrics["computed_at"] = metrics["as_of"]
        metrics.to_parquet(made.path / "graph_metrics.parquet", index=False)
        root.mkdir(parents=True, exist_ok=True)
        _copy(Path(home) / "extracts", root / "extracts")
    print(f"{leads:,} leads made and extracted in {time.perf_counter() - started:.0f} s")
    return latest_extract(root / "extracts")


@contextmanager
def engine_over(
    extract: Extract, *, memory: str = "4GB", threads: int = 2
) -> Iterator[DuckDBEngine]:
    """The bulk engine over that extract."""
    with (
        tempfile.TemporaryDirectory(prefix="leadml-spill-") as spill,
        DuckDBEngine(
            {name: extract.path / f"{name}.parquet" for name in SOURCE_TABLES},
            memory_limit=memory,
            threads=threads,
            temp_directory=Path(spill),
        ) as engine,
    ):
        yield engine


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)
