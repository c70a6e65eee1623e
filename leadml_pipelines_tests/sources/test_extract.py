from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources import extract as module
from leadml_pipelines.sources.contract import EXTRACT_TABLES
from leadml_pipelines.sources.door import Door
from leadml_pipelines.sources.extract import NoExtractError, extract_sources, latest_extract
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.sources.builders import T0, events, leads, rows


def load(url: str) -> None:
    Door(url).admit("leads", leads("a", "b", attributes=[{"age": 30}, {}]), "test")
    frame = events("e", "f", lead="a", value=[1.5, None], properties=[{"k": "v"}, {}])
    Door(url).admit("lead_events", frame, "test")


def read(path: Path) -> list[dict[str, object]]:
    table: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return table


def test_an_extract_holds_every_row_in_the_types_of_the_contract(crm: str, tmp_path: Path) -> None:
    load(crm)

    extract = extract_sources(crm, tmp_path)

    assert set(extract.rows) == set(EXTRACT_TABLES)
    assert extract.rows["lead_events"] == 2
    schema = pq.read_schema(extract.table("lead_events"))
    assert schema.field("occurred_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("value").type == pa.decimal128(18, 4)
    assert schema.field("properties").type == pa.string()
    event = read(extract.table("lead_events"))[0]
    assert event["value"] == Decimal("1.5000")
    assert event["occurred_at"] == T0 + pd.Timedelta("1h")
    assert event["properties"] == '{"k": "v"}'
    assert [row["valid_from"] for row in read(extract.table("lead_versions"))] == [T0, T0]


def test_the_present_is_now_or_when_the_newest_thing_happened(crm: str, tmp_path: Path) -> None:
    load(crm)

    now = extract_sources(crm, tmp_path)
    data = extract_sources(crm, tmp_path, clock="data")

    assert abs(now.as_of - utc_now()) < timedelta(minutes=1)
    assert now.data_end == data.data_end == data.as_of == T0 + pd.Timedelta("1h")


def test_writing_receiving_and_hiring_do_not_move_the_end_of_the_data(
    crm: str, tmp_path: Path
) -> None:
    load(crm)
    with connect(crm) as connection:
        connection.execute("UPDATE crm.leads SET source = 'fair', updated_at = now()")
        connection.execute("UPDATE crm.lead_events SET ingested_at = now()")
        connection.execute("INSERT INTO crm.agents (agent_id, hired_at) VALUES ('x', now())")

    extract = extract_sources(crm, tmp_path, clock="data")

    assert extract.as_of == extract.data_end == T0 + pd.Timedelta("1h")


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("assignments", "lead_id, agent_id, assigned_at", "'a', 'x', '{}'"),
        ("assignments", "lead_id, agent_id, assigned_at, ended_at", "'a', 'x', '2024-03-01', '{}'"),
        ("policies", "policy_id, lead_id, product, annual_premium, bound_at", "'p','a','c',1,'{}'"),
        (
            "policies",
            "policy_id, lead_id, product, annual_premium, bound_at, cancelled_at",
            "'p', 'a', 'c', 1, '2024-03-01', '{}'",
        ),
        ("closures", "lead_id, closed_at, reason", "'a', '{}', 'lost'"),
        ("referrals", "from_lead_id, to_lead_id, referred_at", "'a', 'b', '{}'"),
    ],
)
def test_what_happens_to_a_lead_moves_the_end_of_the_data(
    crm: str, tmp_path: Path, table: str, columns: str, values: str
) -> None:
    load(crm)
    moment = T0 + pd.Timedelta("9D")
    with connect(crm) as connection:
        row = values.format(moment.isoformat())
        connection.execute(f"INSERT INTO crm.{table} ({columns}) VALUES ({row})".encode())

    assert extract_sources(crm, tmp_path).data_end == moment


def test_a_row_from_the_near_future_does_not_move_the_end_of_the_data_past_now(
    crm: str, tmp_path: Path
) -> None:
    load(crm)
    soon = events("g", lead="a", occurred_at=utc_now() + timedelta(hours=5))
    Door(crm).admit("lead_events", soon, "test")

    extract = extract_sources(crm, tmp_path, clock="data")

    assert extract.as_of == extract.data_end <= utc_now()


def test_an_empty_crm_gives_an_empty_extract(crm: str, tmp_path: Path) -> None:
    extract = extract_sources(crm, tmp_path)

    assert set(extract.rows.values()) == {0}
    assert read(extract.table("leads")) == []


def test_the_latest_extract_is_found_again_and_older_ones_go(crm: str, tmp_path: Path) -> None:
    made = [extract_sources(crm, tmp_path, keep=2) for _ in range(3)]

    assert latest_extract(tmp_path) == made[-1]
    assert not made[0].path.exists()
    assert made[1].table("leads").exists()


def test_without_an_extract_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoExtractError, match="materialize the sources first"):
        latest_extract(tmp_path / "nowhere")


def test_an_extract_that_fails_leaves_nothing_behind(
    crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = extract_sources(crm, tmp_path)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_sources(crm, tmp_path, progress=fail)

    assert latest_extract(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {".lock", before.extract_id}


def test_what_a_killed_process_left_is_no_extract_and_is_cleared(crm: str, tmp_path: Path) -> None:
    leftover = tmp_path / ".20200101T000000000000Z.partial"
    leftover.mkdir()
    (leftover / "leads.parquet").write_bytes(b"half")

    with pytest.raises(NoExtractError):
        latest_extract(tmp_path)
    extract_sources(crm, tmp_path)

    assert not leftover.exists()


def test_all_tables_are_of_one_moment(crm: str, tmp_path: Path) -> None:
    load(crm)
    reached, go_on = threading.Event(), threading.Event()

    def pause(done: int, total: int | None, label: str) -> None:
        if label == "agents":
            reached.set()
            assert go_on.wait(30)

    made: list[module.Extract] = []
    thread = threading.Thread(
        target=lambda: made.append(extract_sources(crm, tmp_path, progress=pause))
    )
    thread.start()
    assert reached.wait(30)
    Door(crm).admit("lead_events", events("late", lead="a"), "test")
    go_on.set()
    thread.join()

    assert made[0].rows["lead_events"] == 2
    assert len(rows(crm, "lead_events")) == 3


def test_many_rows_are_streamed_in_row_groups(
    crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 100)
    Door(crm).admit("leads", leads(*(f"lead-{n}" for n in range(450))), "test")

    extract = extract_sources(crm, tmp_path)

    assert extract.rows["leads"] == 450
    assert pq.ParquetFile(extract.table("leads")).num_row_groups == 5
