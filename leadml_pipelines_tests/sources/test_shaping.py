from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.sources.contract import TABLES
from leadml_pipelines.sources.mapping import EventLoad, Files, Load
from leadml_pipelines.sources.shaping import as_text, as_times, fits, shape
from leadml_pipelines_tests.sources.builders import NAIVE

ZONE = "Europe/Amsterdam"


def times(values: list[object], **options: str) -> list[object]:
    files = Files.model_validate({"path": "*", **options})
    dtype = "str" if all(isinstance(value, str) for value in values) else object
    return list(as_times(pd.Series(values, dtype=dtype), files))


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2024-01-15 12:00", "2024-01-15T11:00Z"),
        ("2024-07-15 12:00", "2024-07-15T10:00Z"),
        # Twice on the clock: the later one. Never on the clock: as if it had not been moved.
        ("2024-10-27 02:30", "2024-10-27T01:30Z"),
        ("2024-03-31 02:30", "2024-03-31T01:30Z"),
    ],
)
def test_a_time_without_a_zone_is_read_in_the_zone_of_the_mapping(local: str, utc: str) -> None:
    assert times([local], time_zone=ZONE) == [pd.Timestamp(utc)]
    naive = pd.Series([pd.Timestamp(local)])
    files = Files.model_validate({"path": "*", "time_zone": ZONE})
    assert list(as_times(naive, files)) == [pd.Timestamp(utc)]


@settings(max_examples=50, deadline=None)
@given(st.datetimes(NAIVE.replace(year=1995), NAIVE))
def test_no_local_time_is_read_as_a_moment_before_it(moment: datetime) -> None:
    (read,) = times([moment.isoformat()], time_zone=ZONE)

    candidates = [moment.replace(tzinfo=ZoneInfo(ZONE), fold=fold) for fold in (0, 1)]
    # Not by `timestamp()`: seconds since 1970 as a float are off by some tenths of a microsecond.
    latest = max(candidate.astimezone(UTC) for candidate in candidates)
    assert pd.Timestamp(latest) <= pd.Timestamp(read)


def test_a_time_with_its_own_zone_keeps_it() -> None:
    mixed = times(["2024-01-15T12:00+05:00", "2024-01-15T12:00"], time_zone=ZONE)

    assert pd.Timestamp(str(mixed[0])) == pd.Timestamp("2024-01-15T07:00Z")
    assert mixed[1] == pd.Timestamp("2024-01-15T11:00Z")


def test_a_time_format_is_obeyed_and_what_does_not_fit_is_left_for_the_door() -> None:
    read = times(["15.01.2024 12:00", "soon"], time_zone=ZONE, time_format="%d.%m.%Y %H:%M")

    assert read == [pd.Timestamp("2024-01-15T11:00Z"), "soon"]


def test_seconds_since_1970_are_times() -> None:
    assert times(["1705316400", "x"], time_format="epoch_s") == [
        pd.Timestamp("2024-01-15T11:00Z"),
        "x",
    ]
    assert times([1705316400123], time_format="epoch_ms") == [
        pd.Timestamp("2024-01-15T11:00:00.123Z")
    ]


def test_whole_numbers_become_text_without_a_point() -> None:
    assert as_text(pd.Series([7, None], dtype="Int64")).tolist()[0] == "7"
    assert as_text(pd.Series([7.0, 7.5])).tolist() == ["7", "7.5"]


def test_a_star_stands_for_any_text_and_everything_else_for_itself() -> None:
    batch = pd.DataFrame({"a": ["W_x y", "W", "aW_", "W_.", None], "b": ["1"] * 5})

    assert fits(batch, {"a": ("W_*",)}).tolist() == [True, False, False, True, False]
    assert fits(batch, {"a": ("W_.", "W"), "b": ("1",)}).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert fits(batch, {"b": ("2",)}).sum() == 0


def events_load(**options: object) -> EventLoad:
    return EventLoad.model_validate(
        {
            "file": "f",
            "columns": {"event_id": "id", "lead_id": "id", "occurred_at": "at", "agent_id": "who"},
            "rules": [
                {"when": {"kind": "spam"}, "skip": True},
                {"when": {"kind": "won"}, "event_type": "note", "outcome": "won"},
                {"when": {"kind": "w*"}, "event_type": "call_attempt"},
            ],
            **options,
        }
    )


def event_rows(*kinds: str) -> pd.DataFrame:
    return pd.DataFrame({"id": "x", "at": "2024-01-01T00:00Z", "who": "7", "kind": list(kinds)})


def test_the_first_rule_that_fits_names_an_event() -> None:
    shaped = shape(
        TABLES["lead_events"],
        events_load(),
        Files(path="*"),
        event_rows("spam", "won", "walk", "other"),
    )

    assert shaped.skipped == 1
    assert shaped.outcomes == ["won", None, None]
    assert shaped.rows["event_type"].tolist()[:2] == ["note", "call_attempt"]
    assert shaped.rows["channel"].tolist()[:2] == ["other", "phone"]
    assert shaped.rows["event_type"].isna().tolist() == [False, False, True]


def test_a_machine_is_no_agent_but_its_event_stays() -> None:
    load = events_load(automatic_agents=["7"], properties={"who": {"column": "who"}})

    shaped = shape(TABLES["lead_events"], load, Files(path="*"), event_rows("won"))

    assert shaped.rows["agent_id"].isna().all()
    assert shaped.rows["properties"].tolist() == ['{"who":"7"}']


def test_attributes_of_a_csv_get_their_types_and_what_is_none_stays_as_it_is() -> None:
    load = Load.model_validate(
        {
            "file": "f",
            "columns": {},
            "attributes": {
                "age": {"column": "a"},
                "requested_amount": {"column": "r"},
                "has_current_insurer": {"column": "h"},
                "note": {"column": "n"},
            },
        }
    )
    batch = pd.DataFrame(
        {"a": ["35", "old"], "r": ["1,5", None], "h": ["Yes", "maybe"], "n": ["1", None]},
        dtype="str",
    )

    shaped = shape(TABLES["leads"], load, Files(path="*", decimal_point=","), batch)

    assert shaped.rows["attributes"].tolist() == [
        '{"age":35,"has_current_insurer":true,"note":"1","requested_amount":1.5}',
        '{"age":"old","has_current_insurer":"maybe"}',
    ]
