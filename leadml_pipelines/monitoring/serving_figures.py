"""How serving did, from the log of predictions: of every process that answers, not of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.patience import connect
from leadml_pipelines.times import require_utc

WINDOW = timedelta(days=1)
"""How far back from now predictions count."""
CACHED = "cache"
"""The source of a prediction whose features Redis had."""

LEAST_TIMED = 20
"""Fewest timed requests that have a 95th percentile: of fewer, one is more than 5 in 100."""


@dataclass(frozen=True)
class ServingFigures:
    """What the log tells of a day.

    Attributes:
        since: Of predictions from then on.
        until: Of predictions up to then.
        predictions: How many.
        stale_share: Share of them from features older than they should be.
        cache_hit_rate: Share of them whose features were in Redis, true and fresh.
        latency_p95_ms: 95 of 100 requests were answered within so many milliseconds, a batch being
            one; None if fewer than `LEAST_TIMED` were timed.
        timed: How many requests were timed.
    """

    since: datetime
    until: datetime
    predictions: int
    stale_share: float
    cache_hit_rate: float
    latency_p95_ms: float | None
    timed: int


def read_serving_figures(url: str, now: datetime, least: int) -> ServingFigures | NotEnough:
    """Sum up the day before a moment.

    Args:
        url: PostgreSQL, migrated.
        now: The moment.
        least: Fewest predictions that are worth a share.

    Raises:
        NaiveTimeError: the moment has no time zone.
    """
    until = require_utc(now, "now")
    since = until - WINDOW
    with connect(url) as connection:
        row = connection.execute(
            "WITH day AS (SELECT stale, source, predicted_at, latency_ms FROM leadml.predictions"
            " WHERE predicted_at > %(since)s AND predicted_at <= %(until)s),"
            # All rows of a request have its time and its latency: a batch is one answer.
            " requests AS (SELECT DISTINCT predicted_at, latency_ms FROM day)"
            " SELECT count(*), avg(stale::int), avg((source = %(cached)s AND NOT stale)::int),"
            " (SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) FROM requests),"
            " (SELECT count(latency_ms) FROM requests) FROM day",
            {"cached": CACHED, "since": since, "until": until},
        ).fetchone()
    predictions = int(row[0]) if row else 0
    if row is None or predictions < least:
        return NotEnough(
            f"{predictions:,} predictions were served in the day before "
            f"{until:%Y-%m-%d %H:%M} UTC, and {least:,} are needed"
        )
    latency = float(row[3]) if row[4] >= LEAST_TIMED else None
    shares = float(row[1]), float(row[2])
    return ServingFigures(since, until, predictions, *shares, latency, int(row[4]))
