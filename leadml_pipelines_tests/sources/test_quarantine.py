from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.sources.door import Door
from leadml_pipelines.sources.quarantine import count_by_reason, list_rows, replay
from leadml_pipelines.sources.raw import digest, raw_rows
from leadml_pipelines_tests.sources.builders import NAIVE, T0, events, leads, rows


def test_a_bad_row_is_kept_with_its_raw_content_and_origin(crm: str) -> None:
    Door(crm).admit("leads", leads("l"), "test")
    frame = events("e", lead="l", direction="up", properties=[{"n": 1}], value=Decimal("2.50"))

    Door(crm).admit("lead_events", frame, "events.csv")

    (kept,) = list_rows(crm)
    assert (kept.table, kept.reason, kept.origin) == (
        "lead_events",
        "unknown_direction",
        "events.csv",
    )
    assert kept.row["direction"] == "up"
    assert kept.row["properties"] == {"n": 1}
    assert kept.row["value"] == "2.50"
    assert kept.row["occurred_at"] == "2024-03-01T10:00:00+00:00"
    assert kept.replayed_at is None


def test_the_same_bad_row_is_kept_once_however_often_it_comes(crm: str) -> None:
    for _ in range(2):
        Door(crm).admit("lead_events", events("e", "e", lead="nobody"), "test")

    assert count_by_reason(crm) == {"lead_events": {"unknown_lead": 1}}


def test_rows_are_counted_by_table_and_reason(crm: str) -> None:
    Door(crm).admit("leads", leads("a", "b", created_at=pd.Timestamp(0, tz="UTC")), "test")
    Door(crm).admit("lead_events", events("e", lead="x"), "test")

    assert count_by_reason(crm) == {
        "lead_events": {"unknown_lead": 1},
        "leads": {"impossible_time": 2},
    }


def test_a_list_can_be_filtered_and_paged(crm: str) -> None:
    Door(crm).admit("lead_events", events(*"abc", lead="x"), "test")
    Door(crm).admit("leads", leads("l", source=None), "test")

    first = list_rows(crm, table="lead_events", limit=2)
    rest = list_rows(crm, table="lead_events", after=first[-1].id)

    assert len(first) == 2
    assert len(rest) == 1
    assert [row.table for row in list_rows(crm, reason="missing_value")] == ["leads"]


def test_a_row_passes_when_its_lead_has_arrived_and_is_replayed_once(crm: str) -> None:
    Door(crm).admit("lead_events", events("e", lead="l", value=1.25), "test")
    assert replay(crm).admitted == 0
    Door(crm).admit("leads", leads("l"), "test")

    assert replay(crm).admitted == 1

    assert rows(crm, "lead_events")[0]["value"] == Decimal("1.2500")
    assert count_by_reason(crm) == {}
    assert list_rows(crm, replayed=True)[0].replayed_at is not None
    assert replay(crm).admitted == 0


def test_leads_are_replayed_before_what_waits_for_them(crm: str) -> None:
    Door(crm).admit("lead_events", events("e", lead="l"), "test")
    Door(crm).admit("leads", leads("l", source=None), "test")
    (lead,) = list_rows(crm, table="leads")

    result = replay(
        crm,
        ids=[1, lead.id, *(row.id for row in list_rows(crm))],
        corrected={lead.id: {"source": "web"}},
    )

    assert result.admitted == 2
    assert result.refused == {}


def test_a_corrected_row_passes_and_its_raw_content_stays(crm: str) -> None:
    Door(crm).admit("leads", leads("l"), "test")
    Door(crm).admit("lead_events", events("e", lead="l", direction="up"), "test")
    (kept,) = list_rows(crm)

    assert replay(crm, corrected={kept.id: {"direction": "inbound"}}).admitted == 1

    assert rows(crm, "lead_events")[0]["direction"] == "inbound"
    assert list_rows(crm, replayed=True)[0].row["direction"] == "up"


def test_a_correction_that_is_wrong_again_leaves_the_row_waiting_and_says_why(crm: str) -> None:
    Door(crm).admit("leads", leads("l"), "test")
    Door(crm).admit("lead_events", events("e", lead="l", direction="up"), "test")
    (kept,) = list_rows(crm)

    result = replay(crm, corrected={kept.id: {"direction": "inbound", "channel": None}})

    assert result.admitted == 0
    assert result.refused[kept.id].reason == "missing_value"
    assert list_rows(crm) == [kept]


def test_a_row_that_fails_for_another_reason_now_is_filed_under_that(crm: str) -> None:
    Door(crm).admit("lead_events", events("e", lead="late"), "test")
    Door(crm).admit("leads", leads("late", "l"), "test")
    Door(crm).admit("lead_events", events("e", lead="l"), "test")

    replay(crm)

    assert count_by_reason(crm) == {"lead_events": {"duplicate_key": 1}}


def test_a_correction_of_a_row_that_does_not_wait_is_an_error(crm: str) -> None:
    with pytest.raises(KeyError, match="no row 999999 waits"):
        replay(crm, corrected={999999: {"source": "web"}})


def test_a_correction_of_a_column_that_does_not_exist_is_an_error(crm: str) -> None:
    Door(crm).admit("leads", leads("l", source=None), "test")
    (kept,) = list_rows(crm)

    with pytest.raises(ValueError, match="leads has no column colour"):
        replay(crm, corrected={kept.id: {"colour": "green"}})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", b"bytes"),
        ("state", "nul\x00"),
        ("state", "\ud800"),
        ("state", math.inf),
        ("state", Decimal("1.5")),
        ("state", date(2024, 1, 1)),
        ("state", 2**80),
        ("created_at", NAIVE),
        ("attributes", {1: {2}}),
    ],
)
def test_a_bad_value_does_not_become_good_by_having_been_stored(
    crm: str, column: str, value: Any
) -> None:
    frame = leads("l")
    frame[column] = pd.Series([value], dtype=object)
    reason = Door(crm).admit("leads", frame, "test").quarantined

    result = replay(crm)

    assert result.admitted == 0
    assert [fault.reason for fault in result.refused.values()] == list(reason)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["lead_id", "state", "attributes", "created_at"]),
        st.one_of(
            st.none(),
            st.text(),
            st.integers(),
            st.floats(),
            st.binary(),
            st.datetimes(),
            st.dates(),
        ),
        min_size=1,
    )
)
def test_the_digest_of_a_row_is_that_of_its_stored_content(row: dict[str, Any]) -> None:
    import orjson

    frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})
    (kept,) = raw_rows("leads", frame, [0])

    stored = orjson.loads(orjson.dumps(kept))

    assert digest("leads", stored) == digest("leads", kept)
    assert digest("leads", {**kept, "source": None}) == digest("leads", kept)
    assert digest("agents", kept) != digest("leads", kept)


def test_a_waiting_row_keeps_its_first_time(crm: str) -> None:
    Door(crm).admit("lead_events", events("e", lead="nobody", occurred_at=T0), "test")
    (first,) = list_rows(crm)

    Door(crm).admit("lead_events", events("e", lead="nobody", occurred_at=T0), "again")

    assert list_rows(crm) == [first]
