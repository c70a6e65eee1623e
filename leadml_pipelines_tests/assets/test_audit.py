"""The daily skew audit as a check in Dagster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from leadml_pipelines.assets.audit import no_skew
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.extract import Extract, extract_sources
from leadml_pipelines_tests.features.test_audit import serve, world_of
from leadml_pipelines_tests.features.world import empty_graph_metrics
from leadml_pipelines_tests.tables import empty_tables


@pytest.fixture
def extract(postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Extract]:
    """An extract of two leads, and an empty log."""
    world_of("a", "b").load(postgres_url)
    monkeypatch.setenv("LEADML_HOME", str(home))
    extract = extract_sources(postgres_url, Settings().extracts, clock="data")
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    yield extract
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.served_features", "leadml.served_schemas")


def check(url: str) -> dg.AssetCheckEvaluation:
    """Run the check as the nightly job does."""
    result = dg.materialize(
        [no_skew],
        selection=dg.AssetSelection.checks(no_skew),
        resources={"postgres": PostgresResource(url=url), "settings": SettingsResource()},
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_equal_vectors_pass(postgres_url: str, extract: Extract) -> None:
    serve(postgres_url, ["a", "b"], extract.as_of)
    found = check(postgres_url)
    assert found.passed
    assert found.metadata["audited"].value == 2
    assert found.description == "2 served vectors audited, 0 mismatches"


def test_skew_fails_and_is_shown(postgres_url: str, extract: Extract) -> None:
    def alter(vector, places) -> None:  # type: ignore[no-untyped-def]
        vector[places["inbound_count_30d"]] = 77.0

    serve(postgres_url, ["a", "b"], extract.as_of, alter=alter)
    found = check(postgres_url)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    table = str(found.metadata["mismatches"].value)
    assert "| lead a | inbound_count_30d | 77.0 | 3.0 |" in table


def test_a_night_in_which_nothing_could_be_audited_is_a_warning(
    postgres_url: str, extract: Extract
) -> None:
    found = check(postgres_url)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "LEADML_AUDIT_SAMPLE" in (found.description or "")
