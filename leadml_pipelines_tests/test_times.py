from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.times import (
    NaiveTimeError,
    duration_text,
    from_micros,
    parse_duration,
    require_utc,
    require_utc_column,
    to_micros,
)

NEW_YORK = ZoneInfo("America/New_York")


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_micros_and_back_is_the_same_moment(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(NEW_YORK)))
def test_micros_do_not_depend_on_the_zone_a_moment_is_written_in(moment: datetime) -> None:
    assert to_micros(moment) == to_micros(moment.astimezone(UTC))


def test_a_naive_time_is_refused_by_the_name_of_its_column() -> None:
    with pytest.raises(NaiveTimeError, match=r"as_of is 2026-01-01T00:00:00, which has no time"):
        require_utc(datetime(2026, 1, 1), "as_of")


def test_a_time_in_another_zone_becomes_utc() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert require_utc(moment, "as_of").isoformat() == "2026-01-01T07:00:00+00:00"


def test_a_column_of_naive_times_is_refused_by_name() -> None:
    with pytest.raises(NaiveTimeError, match="column seen_at holds datetime64"):
        require_utc_column(pd.Series(pd.to_datetime(["2026-01-01"])), "seen_at")


def test_a_column_of_text_is_refused_by_name() -> None:
    with pytest.raises(NaiveTimeError, match="column seen_at"):
        require_utc_column(pd.Series(["2026-01-01"]), "seen_at")


def test_a_column_of_mixed_zones_becomes_utc_and_keeps_index_and_gaps() -> None:
    column = pd.Series(
        [datetime(2026, 3, 8, 3, tzinfo=NEW_YORK), None, datetime(2026, 3, 8, 7, tzinfo=UTC)],
        index=[7, 3, 9],
        dtype=object,
    )
    result = require_utc_column(column, "seen_at")
    assert result.dtype == "datetime64[us, UTC]"
    assert list(result.index) == [7, 3, 9]
    assert result[7] == result[9] == pd.Timestamp("2026-03-08T07:00Z")
    assert pd.isna(result[3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", timedelta(days=30)),
        ("24h", timedelta(hours=24)),
        ("2 w", timedelta(weeks=2)),
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
    ],
)
def test_a_duration_is_read(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "1.5d", "-3d", "3y", "3d 4h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9999999999d", "1000000000d", "9" * 400 + "s", "9" * 5000 + "d"])
def test_a_duration_beyond_all_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is too long a duration; 999999999d is the most"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1h", "24h", "72h", "7d", "90d", "15m", "45s"])
def test_a_duration_is_written_so_that_it_reads_back(text: str) -> None:
    assert parse_duration(duration_text(parse_duration(text))) == parse_duration(text)
