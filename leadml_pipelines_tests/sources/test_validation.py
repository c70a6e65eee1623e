from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.sources.contract import CONTRACT_TABLES, TABLES
from leadml_pipelines.sources.faults import REASONS, Fault
from leadml_pipelines.sources.validation import validate
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.sources.builders import NAIVE, T0, assignment, events, leads


def fault_of(table: str, frame: pd.DataFrame) -> Fault:
    checked = validate(table, frame)
    assert len(checked.good) == 0
    return checked.faults.by_row[0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (NAIVE, "naive_time"),
        (date(2024, 3, 1), "naive_time"),
        ("2024-03-01T10:00:00", "naive_time"),
        ("2024-03-01", "naive_time"),
        ("yesterday", "impossible_time"),
        (17, "impossible_time"),
        ("1989-12-31T23:59:59Z", "impossible_time"),
        ("0001-01-01T00:00:00Z", "impossible_time"),
        ("9999-12-31T23:59:59Z", "impossible_time"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "impossible_time"),
        (utc_now() + timedelta(days=2), "impossible_time"),
        (None, "missing_value"),
        ("", "missing_value"),
    ],
)
def test_a_time_that_is_none_is_refused_with_its_reason(value: Any, reason: str) -> None:
    frame = events("e", lead="l").drop(columns="occurred_at")
    frame["occurred_at"] = pd.Series([value], dtype=object)

    fault = fault_of("lead_events", frame)

    assert fault.reason == reason
    assert "occurred_at" in fault.message


@pytest.mark.parametrize(
    ("frame", "table", "reason"),
    [
        (events("e", lead="l", direction="sideways"), "lead_events", "unknown_direction"),
        (events("", lead="l"), "lead_events", "missing_key"),
        (events("e", lead="l", event_type=None), "lead_events", "missing_value"),
        (events("e", lead="l", value="much"), "lead_events", "wrong_type"),
        (events("e", lead="l", value=float("inf")), "lead_events", "wrong_type"),
        (events("e", lead="l", value=10.0**14), "lead_events", "wrong_type"),
        (events("e", lead="l", value=True), "lead_events", "wrong_type"),
        (events("e", lead=[17]), "lead_events", "wrong_type"),
        (events("e\x00", lead="l"), "lead_events", "wrong_type"),
        (events("e" * 201, lead="l"), "lead_events", "wrong_type"),
        (events("e", lead="l", properties="[1]"), "lead_events", "wrong_type"),
        (events("e", lead="l", properties="{"), "lead_events", "wrong_type"),
        (events("e", lead="l", properties='{"a": "\\u0000"}'), "lead_events", "wrong_type"),
        (
            events("e", lead="l", ingested_at=T0),
            "lead_events",
            "end_before_start",
        ),
        (assignment("l", "a", T0, T0 - pd.Timedelta("1us")), "assignments", "end_before_start"),
        (leads("l", attributes=[{"age": "old"}]), "leads", "wrong_type"),
        (leads("l", attributes=[{"age": 30.5}]), "leads", "wrong_type"),
        (leads("l", attributes=[{"age": -1}]), "leads", "wrong_type"),
        (leads("l", attributes=[{"age": True}]), "leads", "wrong_type"),
        (leads("l", attributes=[{"credit_band": "superb"}]), "leads", "wrong_type"),
        (leads("l", attributes=[{"has_current_insurer": 1}]), "leads", "wrong_type"),
        (pd.DataFrame([{"agent_id": "a", "capacity": 1.5}]), "agents", "wrong_type"),
        (pd.DataFrame([{"agent_id": "a", "capacity": -1}]), "agents", "wrong_type"),
    ],
)
def test_a_row_that_breaks_the_contract_is_refused_with_its_reason(
    frame: pd.DataFrame, table: str, reason: str
) -> None:
    assert fault_of(table, frame).reason == reason


def test_a_lone_surrogate_is_refused() -> None:
    frame = events("e", lead="l")
    frame["channel"] = pd.Series(["\ud800"], dtype=object)

    assert fault_of("lead_events", frame).reason == "wrong_type"


def test_a_row_with_two_faults_is_filed_under_the_graver_and_names_both() -> None:
    frame = events("", lead="l", direction="sideways")

    fault = fault_of("lead_events", frame)

    assert fault.reason == "missing_key"
    assert "event_id is empty" in fault.message
    assert "sideways" in fault.message


def test_a_bad_row_does_not_taint_its_neighbours() -> None:
    frame = events("a", "b", "c", lead="l", value=[1, "x", 2])

    checked = validate("lead_events", frame)

    assert list(checked.good.index) == [0, 2]
    assert [position for position, _ in checked.faults] == [1]


def test_a_missing_ingested_at_is_when_it_happened() -> None:
    good = validate("lead_events", events("e", lead="l")).good

    assert good["ingested_at"].equals(good["occurred_at"].rename("ingested_at"))


def test_a_small_clock_skew_is_no_end_before_start() -> None:
    skewed = events("e", lead="l", ingested_at=T0 + pd.Timedelta("56min"))

    assert len(validate("lead_events", skewed).faults) == 0


def test_an_unreadable_default_is_a_fault_and_not_replaced() -> None:
    frame = events("e", lead="l").assign(ingested_at="2024-03-01T10:00:00")

    assert fault_of("lead_events", frame).reason == "naive_time"


def test_times_of_mixed_kinds_become_the_same_moment() -> None:
    berlin = timezone(timedelta(hours=1))
    frame = events("a", "b", "c", lead="l").drop(columns="occurred_at")
    frame["occurred_at"] = pd.Series(
        [datetime(2024, 3, 1, 11, tzinfo=berlin), "2024-03-01T10:00Z", "2024-03-01 11:00:00+01"],
        dtype=object,
    )

    good = validate("lead_events", frame).good

    assert good["occurred_at"].tolist() == [pd.Timestamp("2024-03-01 10:00", tz="UTC")] * 3
    assert str(good["occurred_at"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize("value", ["12.5", Decimal("12.50"), 12.5, np.float32(12.5)])
def test_a_number_is_a_number_however_it_comes(value: Any) -> None:
    frame = events("e", lead="l")
    frame["value"] = pd.Series([value], dtype=object)

    assert validate("lead_events", frame).good["value"].tolist() == [Decimal("12.5000")]


def test_a_float_rounds_the_same_alone_and_beside_one_too_large_for_a_float() -> None:
    alone = validate("lead_events", events("a", lead="l", value=[0.00125])).good["value"]
    beside = events("a", "b", lead="l", value=[0.00125, 99_999_999_999_999.0])

    assert validate("lead_events", beside).good["value"][0] == alone[0]


def test_attributes_may_hold_missing_values_and_unknown_keys() -> None:
    frame = leads("l", attributes=[{"age": float("nan"), "favourite_colour": "green"}])

    good = validate("leads", frame).good

    assert good["attributes"].tolist() == ['{"age":null,"favourite_colour":"green"}']


def test_an_arrow_table_is_judged_like_a_frame() -> None:
    table = pa.table(
        {
            "lead_id": ["a", None],
            "created_at": pa.array([T0, T0], pa.timestamp("us", tz="Europe/Berlin")),
            "source": ["web", "web"],
        }
    )

    checked = validate("leads", table)

    assert checked.good["created_at"].tolist() == [T0]
    assert checked.faults.by_row[1].reason == "missing_key"


def test_a_column_that_is_not_in_the_contract_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"leads has no column colour; its columns are lead_id"):
        validate("leads", leads("l", colour="green"))


def test_a_required_column_that_is_not_there_is_missing_in_every_row() -> None:
    checked = validate("leads", leads("a", "b").drop(columns="source"))

    assert {fault.reason for _, fault in checked.faults} == {"missing_value"}
    assert len(checked.faults) == 2


@pytest.mark.parametrize("table", CONTRACT_TABLES)
def test_an_empty_frame_is_fine(table: str) -> None:
    assert len(validate(table, pd.DataFrame(columns=list(TABLES[table].names))).good) == 0


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.decimals().filter(lambda number: not number.is_snan()),
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_handed_in_every_row_is_either_good_or_has_a_known_reason(
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from(CONTRACT_TABLES))
    contract = TABLES[name]
    count = data.draw(st.integers(1, 4))
    frame = pd.DataFrame(
        {
            column: pd.Series([data.draw(JUNK) for _ in range(count)], dtype=object)
            for column in contract.names
        }
    )

    checked = validate(name, frame)

    assert sorted([*checked.good.index, *checked.faults.by_row]) == list(range(count))
    assert {fault.reason for _, fault in checked.faults} <= set(REASONS)


@settings(max_examples=25, deadline=None)
@given(
    st.datetimes(NAIVE.replace(year=1991), NAIVE),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_keeps_its_moment_to_the_microsecond(moment: datetime, offset: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    frame = events("a", "b", "c", lead="l").drop(columns="occurred_at")
    as_column = pd.Series([aware] * 3).astype("datetime64[us, UTC]")
    frame["occurred_at"] = pd.Series([aware, aware.isoformat(), as_column[0]], dtype=object)

    good = validate("lead_events", frame).good

    assert good["occurred_at"].tolist() == [pd.Timestamp(aware)] * 3
