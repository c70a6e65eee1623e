from __future__ import annotations

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.tables import empty_tables


@pytest.fixture
def ledger_url(postgres_url: str) -> str:
    """A database in which no graph has been synchronised or measured yet."""
    with connect(postgres_url, autocommit=True) as connection:
        empty_tables(
            connection,
            "leadml.graph_sync",
            "leadml.graph_sync_state",
            "leadml.graph_metrics",
            "leadml.graph_moments",
        )
    return postgres_url
