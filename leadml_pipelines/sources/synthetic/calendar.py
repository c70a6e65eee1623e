"""When things happen: daylight saving, weekdays, hours and seasons, as tables by day and zone.

A simulated day is 24 hours long and begins at the time of day at which the period ends, so a period
that ends at midnight UTC has calendar days in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leadml_pipelines.sources.synthetic.vocabulary import PRODUCT_SHARE, ZONES

DAY = 86_400_000_000
HOUR = 3_600_000_000
"""In microseconds, the unit of all times here (since 1970-01-01 UTC)."""

Array = np.ndarray[Any, Any]

_CONSUMER_HOURS = (
    1,
    0.6,
    0.4,
    0.3,
    0.3,
    0.5,
    1.5,
    3,
    5,
    6,
    6.5,
    6.5,
    7,
    6.5,
    6,
    6,
    6,
    6.5,
    7.5,
    9,
    9.5,
    8,
    5,
    2.5,
)
_CONSUMER_WEEK = (1.12, 1.10, 1.06, 1.03, 0.95, 0.82, 0.92)
_BUSINESS_HOURS = (0, 0, 0, 0, 0, 0, 0, 1, 6, 11, 12, 10, 6, 9, 11, 11, 9, 6, 2, 0.5, 0, 0, 0, 0)
_BUSINESS_WEEK = (1.32, 1.36, 1.34, 1.30, 1.18, 0.42, 0.08)
_PEAK = (100, 170, 15, 345)
"""Day of the year at which a product (auto, home, life, health) is most asked for."""
_SWING = (0.22, 0.30, 0.25, 0.75)


@dataclass(frozen=True)
class Calendar:
    """Tables over the days of the period.

    Attributes:
        start: Beginning of day 0, in microseconds.
        days: Length of the period.
        consumer: (days, zones) how busy consumers are on that day; 1 on average.
        business: (days, zones) how busy agents are on that day; 1 on average.
        consumer_hours: cumulative shares of the 24 hours, flattened over (days, zones); row `r`
            lies in `(r, r + 1]`, so one `searchsorted` serves all rows.
        business_hours: the same for agents.
        demand: (days, products) expected share of the period's leads; sums to 1.
    """

    start: int
    days: int
    consumer: Array
    business: Array
    consumer_hours: Array
    business_hours: Array
    demand: Array

    @property
    def end(self) -> int:
        """The first microsecond after the period."""
        return self.start + self.days * DAY

    def time_of_day(self, day: Array, zone: Array, business: Array, uniform: Array) -> Array:
        """Draw microseconds since the beginning of the day.

        Args:
            day: day of the period.
            zone: position in `ZONES`.
            business: whether agents' hours or consumers' hours hold.
            uniform: numbers in [0, 1); the fraction left over places the time within its hour.
        """
        row = day.astype(np.int64) * len(ZONES) + zone
        hour = np.empty(len(row), dtype=np.float64)
        for flag, table in ((False, self.consumer_hours), (True, self.business_hours)):
            mine = np.flatnonzero(business == flag)
            target = row[mine] + np.maximum(uniform[mine], 1e-12)
            right = np.minimum(np.searchsorted(table, target, side="left"), len(table) - 1)
            high = table[right]
            low = np.where(right % 24 == 0, row[mine], table[right - 1])
            inside = np.clip((target - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
            hour[mine] = right % 24 + inside
        return np.minimum((hour * HOUR).astype(np.int64), DAY - 1)

    def elapsed(self, day: Array, zone: Array, time: Array, business: bool) -> Array:
        """The share of a day's activity that comes before a time of day (microseconds).

        The inverse of `time_of_day`.
        """
        table = self.business_hours if business else self.consumer_hours
        row = wrap(day, self.days).astype(np.int64) * len(ZONES) + zone
        hour = np.minimum(time // HOUR, 23)
        high = table[row * 24 + hour] - row
        low = np.where(hour > 0, table[row * 24 + np.maximum(hour - 1, 0)] - row, 0.0)
        return np.clip(low + (high - low) * (time - hour * HOUR) / HOUR, 0.0, 1.0)


def make_calendar(end: int, days: int) -> Calendar:
    """Lay out the tables for the `days` days before `end` (microseconds)."""
    start = end - days * DAY
    hours = start + np.arange(days * 24, dtype=np.int64) * HOUR
    tables = {
        "consumer": (_CONSUMER_HOURS, _CONSUMER_WEEK),
        "business": (_BUSINESS_HOURS, _BUSINESS_WEEK),
    }
    level: dict[str, Array] = {}
    shares: dict[str, Array] = {}
    for name, (by_hour, by_weekday) in tables.items():
        weight = np.empty((days, len(ZONES), 24))
        for zone, (offset, saving) in enumerate(ZONES):
            local = hours + (offset + (_daylight_saving(hours) if saving else 0)) * HOUR
            weekday = (local // DAY + 3) % 7  # 1970-01-01 was a Thursday
            hour = (local // HOUR) % 24
            weight[:, zone] = (np.asarray(by_weekday)[weekday] * np.asarray(by_hour)[hour]).reshape(
                days, 24
            )
        usual = np.mean(by_weekday) * np.sum(by_hour)
        level[name] = (weight.sum(axis=2) / usual).astype(np.float32)
        share = np.cumsum(weight, axis=2) / weight.sum(axis=2, keepdims=True)
        rows = np.arange(days * len(ZONES)).reshape(days, len(ZONES), 1)
        shares[name] = (rows + share).reshape(-1)
    return Calendar(
        start=start,
        days=days,
        consumer=level["consumer"],
        business=level["business"],
        consumer_hours=shares["consumer"],
        business_hours=shares["business"],
        demand=_demand(start, days, level["consumer"][:, 0]),
    )


def _daylight_saving(moments: Array) -> Array:
    """1 from the second Sunday of March to the first of November, else 0 (by the date)."""
    date = moments.astype("datetime64[us]").astype("datetime64[D]")
    year = date.astype("datetime64[Y]")
    begins = _sunday_on_or_after((year + np.timedelta64(2, "M")).astype("datetime64[D]") + 7)
    ends = _sunday_on_or_after((year + np.timedelta64(10, "M")).astype("datetime64[D]"))
    return ((date >= begins) & (date < ends)).astype(np.int64)


def _sunday_on_or_after(date: Array) -> Array:
    weekday = (date.astype(np.int64) + 3) % 7  # Monday is 0
    return date + (6 - weekday) % 7


def _demand(start: int, days: int, week: Array) -> Array:
    moments = start + np.arange(days, dtype=np.int64) * DAY + DAY // 2
    date = moments.astype("datetime64[us]").astype("datetime64[D]")
    of_year = (date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    angle = 2 * np.pi * (of_year[:, None] - np.asarray(_PEAK)) / 365.25
    demand = np.asarray(PRODUCT_SHARE) * np.exp(np.asarray(_SWING) * np.cos(angle)) * week[:, None]
    return np.asarray(demand / demand.sum())


def wrap(day: Array, days: int) -> Array:
    """Days past the period look like the same weekday of its last week."""
    late = day - days
    return np.where(late < 0, day, np.maximum(days - 7 + late % 7, 0))
