"""Whether the champion answered, or another version because the champion could not be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.serving_figures import WINDOW
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import require_utc

TAKING_OVER = timedelta(minutes=5)
"""How long after a promotion the version before may still answer; clocks may differ as much."""


@dataclass(frozen=True)
class Answering:
    """Which versions of a model answered as its champion in a day, and were not.

    Attributes:
        name: Name of the model.
        predictions: All that were answered in this role.
        others: Of them, how many by each version that was not champion at that time.
        last: When the last of these was answered; None if there are none.
    """

    name: str
    predictions: int
    others: Mapping[str, int]
    last: datetime | None


def read_answering(url: str, name: str, now: datetime) -> Answering | NotEnough:
    """Who answered in the day before a moment.

    Predictions from before the first promotion count for no version.

    Args:
        url: PostgreSQL, migrated.
        name: Name of the model.
        now: The moment.

    Raises:
        NaiveTimeError: the moment has no time zone.
    """
    until = require_utc(now, "now")
    with connect(url) as connection:
        rows = connection.execute(
            "WITH terms AS (SELECT model_id, changed_at AS since,"
            " lead(changed_at) OVER (ORDER BY id) AS until FROM leadml.model_alias_changes"
            " WHERE name = %(name)s AND alias = 'champion')"
            " SELECT p.model_id, count(*), count(*) FILTER (WHERE other), max(predicted_at)"
            " FILTER (WHERE other) FROM (SELECT model_id, predicted_at, NOT EXISTS (SELECT 1"
            "  FROM terms AS t WHERE t.model_id = p.model_id"
            "  AND p.predicted_at >= t.since - %(over)s"
            "  AND (t.until IS NULL OR p.predicted_at < t.until + %(over)s)) AS other"
            " FROM leadml.predictions AS p WHERE model_name = %(name)s AND role = 'champion'"
            " AND predicted_at > %(since)s AND predicted_at <= %(until)s"
            " AND predicted_at >= (SELECT min(since) FROM terms)) AS p GROUP BY p.model_id",
            {"name": name, "over": TAKING_OVER, "since": until - WINDOW, "until": until},
        ).fetchall()
    if not rows:
        return NotEnough(
            f"no prediction of {name} was served in the day before {until:%Y-%m-%d %H:%M} UTC"
        )
    others = {model_id: other for model_id, _, other, _ in rows if other}
    last = max((row[3] for row in rows if row[3] is not None), default=None)
    return Answering(name, sum(row[1] for row in rows), others, last)
