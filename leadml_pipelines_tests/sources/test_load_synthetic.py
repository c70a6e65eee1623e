from __future__ import annotations

from datetime import UTC, datetime

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources import faults
from leadml_pipelines.sources.load_synthetic import Loaded, load_synthetic

LEADS = 300
END = datetime(2026, 6, 1, tzinfo=UTC)
OWN_FAULTS = {
    faults.UNKNOWN_LEAD,
    faults.NAIVE_TIME,
    faults.WRONG_TYPE,
    faults.UNKNOWN_DIRECTION,
    faults.MISSING_KEY,
    faults.DUPLICATE_KEY,
    faults.END_BEFORE_START,
}


@pytest.fixture(scope="module")
def loaded(postgres_url: str) -> Loaded:
    return load_synthetic(postgres_url, LEADS, end=END, days=200)


def _count(url: str, table: str) -> int:
    with connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM crm.{table}").fetchone()
    return int(row[0])


def test_all_clean_rows_are_in_the_database(loaded: Loaded, postgres_url: str) -> None:
    assert _count(postgres_url, "leads") == LEADS
    assert _count(postgres_url, "lead_events") == loaded.rows["lead_events"]


def test_the_dirt_is_in_quarantine_for_every_reason_and_nothing_else(loaded: Loaded) -> None:
    assert set(loaded.quarantined) == OWN_FAULTS
    assert sum(loaded.quarantined.values()) == 7


def test_updated_leads_have_a_history(loaded: Loaded, postgres_url: str) -> None:
    assert loaded.rows["leads"] > LEADS
    assert _count(postgres_url, "lead_versions") == loaded.rows["leads"]


def test_a_second_load_changes_nothing_and_tells_its_progress(
    loaded: Loaded, postgres_url: str
) -> None:
    seen: list[tuple[int, int]] = []
    again = load_synthetic(
        postgres_url,
        LEADS,
        end=END,
        days=200,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert set(again.rows.values()) == {0}
    assert seen[-1] == (LEADS, LEADS)
    assert loaded.rows["leads"]
