"""What the tests of features share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines_tests.features.world import World

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
