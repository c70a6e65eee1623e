"""Time, as LeadML means it: UTC, microseconds, timezone-aware at every border.

Two clocks tell what was known: `occurred_at` (when it happened) and `ingested_at` (when we knew).
A value as of `t` sees a row only if both are `<= t`; a window of `w` is `(t - w, t]`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from leadml_pipelines.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_DURATION = re.compile(r"(\d+)\s*([smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NaiveTimeError(UserError, ValueError):
    """A timestamp without a time zone reached a border where only aware ones may pass."""


def utc_now() -> datetime:
    """The present moment in UTC, with microseconds."""
    return datetime.now(UTC)


def require_utc(moment: datetime, name: str) -> datetime:
    """Return `moment` in UTC.

    Args:
        moment: A timezone-aware time in any zone.
        name: What to call it in the error, usually the column.

    Raises:
        NaiveTimeError: `moment` has no time zone.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise NaiveTimeError(
            f"{name} is {moment.isoformat()}, which has no time zone; give it one, such as +00:00"
        )
    return moment.astimezone(UTC)


def require_utc_column(column: pd.Series, name: str) -> pd.Series:
    """Return a column of times as `datetime64[us, UTC]`, keeping index and missing values.

    Args:
        column: Timezone-aware datetimes (one zone for all, or Python datetimes of mixed zones).
        name: What to call it in the error.

    Raises:
        NaiveTimeError: any value has no time zone, or the column does not hold times.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    if column.dtype != object:
        raise NaiveTimeError(
            f"column {name} holds {column.dtype}; it must hold times with a time zone, "
            "for example pandas datetime64[us, UTC]"
        )
    aware: list[datetime | None] = []
    for value in column:
        if pd.isna(value):
            aware.append(None)
        elif isinstance(value, datetime):
            aware.append(require_utc(value, name))
        else:
            raise NaiveTimeError(
                f"column {name} holds a {type(value).__name__}; it must hold times with a time zone"
            )
    return pd.Series(aware, index=column.index, name=column.name, dtype="datetime64[us, UTC]")


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `90d`, `24h`, `30m` or `2w`.

    Raises:
        ValueError: the text is not a whole number followed by one of s, m, h, d, w, or the time is
            longer than any that can be told.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration; write a whole number and one of s, m, h, d, w, as in 30d"
        )
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except (OverflowError, ValueError) as error:
        # More digits than Python reads as a number are a ValueError that says something else.
        longest = timedelta.max.days
        raise ValueError(f"{text[:20]!r} is too long a duration; {longest}d is the most") from error


def duration_text(duration: timedelta) -> str:
    """A duration as settings write it, in the largest whole unit: `30d`, `12h`, `90m`."""
    seconds = round(duration.total_seconds())
    for unit, size in _SIZES:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exactly (no float in between)."""
    return (require_utc(moment, "moment") - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)
