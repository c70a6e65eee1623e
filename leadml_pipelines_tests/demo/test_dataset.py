from __future__ import annotations

from pathlib import Path

import pytest

from leadml_pipelines.demo.dataset import (
    DatasetConflictError,
    Files,
    Synthetic,
    claim,
)
from leadml_pipelines.deployment import keep_settings
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.tables import empty_tables


@pytest.fixture(autouse=True)
def _empty(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.demo_dataset", "crm.leads")


def test_the_first_claim_fixes_the_end_of_the_funnel(postgres_url: str) -> None:
    first = claim(postgres_url, Synthetic(500, 7))
    assert isinstance(first, Synthetic)
    assert first.end.endswith("T00:00:00+00:00")
    assert claim(postgres_url, Synthetic(500, 7)) == first


def test_another_number_of_leads_is_refused_and_named(postgres_url: str) -> None:
    claim(postgres_url, Synthetic(500, 7))
    with pytest.raises(DatasetConflictError, match=r"holds the synthetic funnel of 500 leads"):
        claim(postgres_url, Synthetic(600, 7))


def test_files_are_refused_where_the_funnel_is(postgres_url: str) -> None:
    claim(postgres_url, Synthetic(500, 7))
    with pytest.raises(DatasetConflictError, match="use another --home"):
        claim(postgres_url, Files("/mapping.toml", "/data"))


def test_leads_that_no_demo_loaded_are_left_alone(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO crm.leads (lead_id, created_at, source, updated_at)"
            " VALUES ('real', now(), 'web', now())"
        )
    with pytest.raises(DatasetConflictError, match="that no demo loaded"):
        claim(postgres_url, Synthetic(500, 7))


def test_the_settings_of_a_mapping_are_kept_in_the_home(tmp_path: Path) -> None:
    mapping = Path(__file__).parents[2] / "examples" / "bpi2012" / "mapping.toml"
    keep_settings(mapping, tmp_path)
    assert 'clock = "data"' in (tmp_path / "leadml.toml").read_text(encoding="utf-8")


def test_settings_that_the_user_wrote_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "leadml.toml").write_text("seed = 3\n", encoding="utf-8")
    mapping = Path(__file__).parents[2] / "examples" / "bpi2012" / "mapping.toml"
    keep_settings(mapping, tmp_path)
    assert (tmp_path / "leadml.toml").read_text(encoding="utf-8") == "seed = 3\n"
