"""What the tests of features share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.store import FeatureStore
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.stores import Told
from leadml_pipelines_tests.features.world import World
from leadml_pipelines_tests.tables import drop_snapshots

Bulk = Callable[[World], DuckDBEngine]


@pytest.fixture
def bulk(tmp_path: Path) -> Iterator[Bulk]:
    """Opens the bulk engine over a world; closed at the end of the test."""
    with ExitStack() as stack:
        opened = 0

        def open_(world: World) -> DuckDBEngine:
            nonlocal opened
            opened += 1
            paths = world.parquet(tmp_path / f"world{opened}")
            return stack.enter_context(DuckDBEngine(paths, threads=1, memory_limit="1GB"))

        yield open_


@pytest.fixture
def open_store(bulk: Bulk, tmp_path: Path) -> Iterator[Callable[..., FeatureStore]]:
    """Opens a feature store over a world."""
    with ExitStack() as stack:

        def open_(world: World, **more: Any) -> FeatureStore:
            given = {"engine": bulk(world), "extract": Told(), "root": tmp_path / "sets", **more}
            return stack.enter_context(FeatureStore(**given))

        yield open_


@pytest.fixture
def no_snapshots(postgres_url: str) -> Iterator[str]:
    """PostgreSQL, whose snapshots are dropped at the end of the test."""
    yield postgres_url
    with connect(postgres_url) as connection:
        drop_snapshots(connection)
