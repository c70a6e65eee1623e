from __future__ import annotations

import pytest

from leadml_pipelines_tests.sources.builders import empty


@pytest.fixture
def crm(postgres_url: str) -> str:
    """URL of a database whose source tables and quarantine are empty."""
    empty(postgres_url)
    return postgres_url
