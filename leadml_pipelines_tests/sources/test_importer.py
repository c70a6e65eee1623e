from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.sources import readers
from leadml_pipelines.sources.door import Door
from leadml_pipelines.sources.importer import ImportReport, import_files
from leadml_pipelines.sources.mapping import MappingError
from leadml_pipelines.sources.quarantine import count_by_reason, list_rows, replay
from leadml_pipelines_tests.sources.builders import rows

MAPPING = """
[files.people]
path = "people*.csv"
time_zone = "Europe/Amsterdam"

[files.steps]
path = "steps*.parquet"

[leads]
file = "people"
[leads.columns]
lead_id = "id"
created_at = "created"
source = { constant = "web" }
product_interest = { constant = "car" }
[leads.attributes]
requested_amount = "amount"

[lead_events]
file = "steps"
automatic_agents = ["robot"]
create_agents = true
[lead_events.columns]
event_id = { template = "{id}:{n}" }
lead_id = "id"
agent_id = "who"
occurred_at = "at"
[lead_events.properties]
kind = "kind"

[[lead_events.rules]]
when = { kind = "won" }
event_type = "note"
outcome = "won"
[[lead_events.rules]]
when = { kind = "lost" }
event_type = "note"
outcome = "lost"
[[lead_events.rules]]
when = { kind = "W_*" }
event_type = "call_attempt"
[[lead_events.rules]]
when = { kind = "noise" }
skip = true

[won]
policy_id = { template = "policy-{id}" }
product = { lead = "product_interest" }
annual_premium = { lead = "attributes.requested_amount" }

[assignments_from_events]
when = { "properties.kind" = "W_*" }
"""


class Data:
    """A folder with files and the mapping for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mapping = folder / "mapping.toml"
        self.mapping.write_text(MAPPING, encoding="utf-8")

    def people(self, text: str, name: str = "people.csv") -> None:
        (self.folder / name).write_text("id,created,amount\n" + text, encoding="utf-8")

    def steps(
        self, *steps: tuple[str, int, int, str, str | None], name: str = "steps.parquet"
    ) -> None:
        frame = pd.DataFrame(steps, columns=["id", "n", "hour", "kind", "who"])
        frame["at"] = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(frame["hour"], "h")
        frame.drop(columns="hour").to_parquet(self.folder / name)

    def load(self, url: str, **options: Any) -> ImportReport:
        return import_files(url, self.mapping, self.folder, **options)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    data = Data(tmp_path)
    data.people("007,2024-02-28 12:00,1200\n008,2024-02-28 12:00,\n")
    data.steps(
        ("007", 1, 1, "W_call", "ann"),
        ("007", 2, 2, "W_call", "ann"),
        ("007", 3, 3, "W_call", "bob"),
        ("007", 4, 4, "won", "robot"),
        ("008", 1, 1, "lost", None),
        ("008", 2, 2, "noise", None),
    )
    return data


def spans(url: str) -> list[tuple[str, int, int | None]]:
    return [
        (row["agent_id"], row["assigned_at"].hour, row["ended_at"] and row["ended_at"].hour)
        for row in rows(url, "assignments", "lead_id, assigned_at")
    ]


def test_csv_and_parquet_become_leads_and_events(crm: str, data: Data) -> None:
    report = data.load(crm)

    assert report.tables["leads"].accepted == 2
    assert report.tables["lead_events"].accepted == 5
    assert report.skipped["lead_events"] == 1
    first = rows(crm, "leads")[0]
    assert first["lead_id"] == "007"
    assert first["created_at"] == datetime(2024, 2, 28, 11, tzinfo=UTC)
    assert first["attributes"] == {"requested_amount": 1200}
    assert count_by_reason(crm) == {}


def test_a_won_event_makes_a_policy_worth_what_the_lead_asked_for(crm: str, data: Data) -> None:
    data.load(crm)

    (policy,) = rows(crm, "policies")
    assert (policy["policy_id"], policy["product"], int(policy["annual_premium"])) == (
        "policy-007",
        "car",
        1200,
    )
    assert policy["bound_at"].hour == 4


def test_a_lost_event_closes_the_lead_with_its_reason(crm: str, data: Data) -> None:
    data.load(crm)

    (closure,) = rows(crm, "closures")
    assert (closure["lead_id"], closure["closed_at"].hour, closure["reason"]) == ("008", 1, "lost")


def test_agents_come_from_events_and_machines_do_not(crm: str, data: Data) -> None:
    data.load(crm)

    assert [agent["agent_id"] for agent in rows(crm, "agents", "1")] == ["ann", "bob"]


def test_an_agent_has_a_lead_until_another_takes_over(crm: str, data: Data) -> None:
    data.load(crm)

    assert spans(crm) == [("ann", 1, 3), ("bob", 3, None)]


def test_a_second_import_changes_nothing(crm: str, data: Data) -> None:
    data.load(crm)
    tables = ("leads", "lead_versions", "lead_events", "assignments", "policies", "closures")
    before = {table: rows(crm, table) for table in tables}

    report = data.load(crm)

    assert report.changed == 0
    assert report.tables["lead_events"].unchanged == 5
    assert {table: rows(crm, table) for table in tables} == before


def test_an_import_of_more_files_adds_and_corrects_what_follows(crm: str, data: Data) -> None:
    data.load(crm)
    data.steps(
        ("007", 9, 2, "W_call", "eve"), ("007", 10, 6, "W_call", "ann"), name="steps2.parquet"
    )

    report = data.load(crm)

    assert report.tables["lead_events"].accepted == 2
    # ann and eve both worked at 2 o'clock: the later event id counts.
    assert spans(crm) == [("ann", 1, 2), ("eve", 2, 3), ("bob", 3, 6), ("ann", 6, None)]


def test_batches_of_any_size_give_the_same(
    crm: str, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "BATCH_ROWS", 1)

    report = data.load(crm)

    assert report.tables["lead_events"].accepted == 5
    assert spans(crm) == [("ann", 1, 3), ("bob", 3, None)]
    assert len(rows(crm, "policies")) == 1


def test_what_waited_for_its_lead_comes_whole_with_the_next_import(crm: str, data: Data) -> None:
    data.people("008,2024-02-28 12:00,\n")
    data.load(crm)
    assert count_by_reason(crm) == {"lead_events": {"unknown_lead": 4}}
    assert rows(crm, "policies") == []
    data.people("007,2024-02-28 12:00,1200\n", name="people2.csv")

    data.load(crm)

    assert len(rows(crm, "policies")) == 1
    assert spans(crm) == [("ann", 1, 3), ("bob", 3, None)]


def test_a_replay_tells_of_events_whose_import_must_be_repeated_for_what_follows(
    crm: str, data: Data
) -> None:
    data.people("008,2024-02-28 12:00,\n")
    data.load(crm)
    other = rows(crm, "lead_events")[0] | {"event_id": "posted", "lead_id": "007"}
    Door(crm).admit("lead_events", pd.DataFrame([other]), "api")
    person = {"lead_id": "007", "created_at": "2024-02-28T12:00Z", "source": "web"}
    person |= {"product_interest": "car", "attributes": '{"requested_amount": 1200}'}
    Door(crm).admit("leads", pd.DataFrame([person]), "api")

    replayed = replay(crm)

    assert (replayed.admitted, replayed.imported_events) == (5, 4)
    assert rows(crm, "policies") == []
    data.load(crm)
    assert len(rows(crm, "policies")) == 1
    assert spans(crm) == [("ann", 1, 3), ("bob", 3, None)]


def test_a_time_that_is_none_goes_to_the_quarantine_with_its_file(crm: str, data: Data) -> None:
    data.people("009,yesterday,\n", name="people2.csv")

    report = data.load(crm)

    assert report.tables["leads"].quarantined == {"impossible_time": 1}
    assert list_rows(crm)[0].origin == "import of people2.csv"


def test_an_event_that_no_rule_names_goes_to_the_quarantine(crm: str, data: Data) -> None:
    data.steps(("007", 1, 1, "unheard of", None))

    assert data.load(crm).tables["lead_events"].quarantined == {"missing_value": 1}


def test_a_broken_line_goes_to_the_quarantine_and_the_others_come_in(crm: str, data: Data) -> None:
    data.people('1,2024-02-28 12:00,5\n2,2024-02-28 12:00,5,6,7\n"3",2024-02-28 12:00,5\n')
    data.steps()

    report = data.load(crm)

    assert report.tables["leads"].accepted == 2
    assert report.tables["leads"].quarantined == {"wrong_type": 1}
    (line,) = list_rows(crm)
    assert "2,2024-02-28 12:00,5,6,7" in str(line.row)


def test_a_column_that_is_not_in_the_file_is_an_error_that_lists_those_that_are(
    crm: str, data: Data
) -> None:
    (data.folder / "people.csv").write_text("number,created,amount\n", encoding="utf-8")

    with pytest.raises(MappingError, match="has no column id; its columns are number, created"):
        data.load(crm)


def test_a_pattern_without_files_is_an_error(crm: str, data: Data) -> None:
    (data.folder / "people.csv").unlink()

    with pytest.raises(MappingError, match=r"no file below .* fits 'people\*\.csv'"):
        data.load(crm)


def test_a_file_that_is_not_what_its_name_says_is_an_error(crm: str, data: Data) -> None:
    (data.folder / "steps.parquet").write_bytes(b"not parquet")

    with pytest.raises(MappingError, match=r"steps\.parquet can't be read"):
        data.load(crm)


def test_other_delimiters_and_encodings_are_read(crm: str, data: Data) -> None:
    text = data.mapping.read_text(encoding="utf-8")
    text = text.replace(
        "[files.people]",
        '[files.people]\ndelimiter = ";"\nencoding = "latin-1"\ndecimal_point = ","',
    )
    data.mapping.write_text(text, encoding="utf-8")
    (data.folder / "people.csv").write_bytes(
        "id;created;amount\nJörg;2024-02-28 12:00;1,5\n".encode("latin-1")
    )
    data.steps()

    data.load(crm)

    (lead,) = rows(crm, "leads")
    assert (lead["lead_id"], lead["attributes"]) == ("Jörg", {"requested_amount": 1.5})


def test_progress_is_told_to_its_end(crm: str, data: Data) -> None:
    told: list[tuple[int, int | None, str]] = []

    data.load(crm, progress=lambda *step: told.append(step))

    assert told[-1] == (8, None, "assignments from events")
    assert (2, None, "leads from people.csv") in told
