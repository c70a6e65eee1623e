"""What the tests of snapshots share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.tables import empty_tables


@pytest.fixture(autouse=True)
def clean(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("DROP TABLE IF EXISTS leadml.feature_body, leadml.feature_mind")
        empty_tables(connection, "leadml.feature_snapshots", "leadml.feature_view_snapshots")
