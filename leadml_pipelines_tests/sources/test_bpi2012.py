"""The real lead funnel through its mapping; skipped where the data is not at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines.sources.importer import ImportReport, import_files
from leadml_pipelines.sources.quarantine import count_by_reason

REPOSITORY = Path(__file__).parents[2]
MAPPING = REPOSITORY / "examples" / "bpi2012" / "mapping.toml"
DATA = Path(os.environ.get("LEADML_BPI2012") or REPOSITORY.parent / "shared" / "data" / "bpi2012")

pytestmark = pytest.mark.skipif(
    not (DATA / "events.parquet").is_file(),
    reason=f"the BPI Challenge 2012 log is not in {DATA}; LEADML_BPI2012 may name its folder",
)


@pytest.fixture(scope="module")
def report(postgres_url: str) -> ImportReport:
    return import_files(postgres_url, MAPPING, DATA)


def count(url: str, query: str) -> int:
    with connect(url) as connection:
        found = connection.execute(query.encode()).fetchone()
    assert found is not None
    return int(found[0])


def test_every_application_and_every_step_arrives(postgres_url: str, report: ImportReport) -> None:
    assert count(postgres_url, "SELECT count(*) FROM crm.leads") == 13_087
    assert count(postgres_url, "SELECT count(*) FROM crm.lead_events") == 262_200
    assert count_by_reason(postgres_url) == {}


def test_outcomes_are_those_of_the_log(postgres_url: str, report: ImportReport) -> None:
    assert count(postgres_url, "SELECT count(*) FROM crm.policies") == 2_246
    for reason, number in (("declined", 7_635), ("lost", 2_807)):
        query = f"SELECT count(*) FROM crm.closures WHERE reason = '{reason}'"
        assert count(postgres_url, query) == number


def test_the_automatic_user_is_no_agent(postgres_url: str, report: ImportReport) -> None:
    for table in ("agents", "assignments", "lead_events"):
        query = f"SELECT count(*) FROM crm.{table} WHERE agent_id = '112'"
        assert count(postgres_url, query) == 0


def test_the_assignments_of_a_lead_follow_each_other_without_gap_or_overlap(
    postgres_url: str, report: ImportReport
) -> None:
    broken = count(
        postgres_url,
        "SELECT count(*) FROM (SELECT ended_at, lead(assigned_at) OVER (PARTITION BY lead_id"
        " ORDER BY assigned_at) AS next FROM crm.assignments) a"
        " WHERE ended_at IS DISTINCT FROM next",
    )

    assert broken == 0
    assert count(postgres_url, "SELECT count(DISTINCT lead_id) FROM crm.assignments") > 8_000


def test_a_second_import_changes_nothing(postgres_url: str, report: ImportReport) -> None:
    assert import_files(postgres_url, MAPPING, DATA).changed == 0


def test_as_of_is_the_end_of_the_log(
    postgres_url: str, report: ImportReport, tmp_path: Path
) -> None:
    extract = extract_sources(postgres_url, tmp_path, clock="data")

    assert extract.as_of.isoformat() == "2012-03-14T15:04:54.681000+00:00"
    assert extract.rows["lead_events"] == 262_200
