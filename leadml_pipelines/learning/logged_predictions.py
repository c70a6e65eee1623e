"""Reading the log of predictions (`leadml.predictions`)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.postgres import connect
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

_TIMES = ("features_as_of", "predicted_at")
_NUMBERS = ("value", "prediction", "score", "latency_ms", "traffic_share")


def logged_predictions(
    url: str,
    name: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    experiment: str | None = None,
    first_of_day: bool = False,
) -> pd.DataFrame:
    """The predictions of a model that were made in `[since, until)`, the oldest first.

    Args:
        url: PostgreSQL, migrated.
        name: Name of the model.
        since: From when on; None: from the first one.
        until: Up to when; None: to the last one.
        experiment: Only those made while this challenger ran, by whichever of the two.
        first_of_day: Of each entity, model version and role only the first prediction of a UTC
            day.

    Returns:
        The columns of the table; times with their zone, numbers that are missing as NaN.

    Raises:
        NaiveTimeError: a time has no time zone.
    """
    import pandas as pd

    distinct, order = "", "predicted_at, prediction_id"
    if first_of_day:
        day = "date_trunc('day', predicted_at, 'UTC')"
        groups = f"model_id, role, entity_type, entity_id, {day}"
        distinct, order = f"DISTINCT ON ({groups})", f"{groups}, {order}"
    query = (
        f"SELECT {distinct} * FROM leadml.predictions "  # noqa: S608 - written above
        "WHERE model_name = %(name)s "
        "AND predicted_at >= coalesce(%(since)s, '-infinity'::timestamptz) "
        "AND predicted_at < coalesce(%(until)s, 'infinity'::timestamptz) "
        "AND (%(experiment)s::text IS NULL OR experiment = %(experiment)s) "
        f"ORDER BY {order}"
    )
    params = {
        "name": name,
        "since": since and require_utc(since, "since"),
        "until": until and require_utc(until, "until"),
        "experiment": experiment,
    }
    with connect(url) as connection:
        cursor = connection.execute(query.encode(), params)
        names = [column.name for column in cursor.description or ()]
        frame = pd.DataFrame(cursor.fetchall(), columns=names)
    types = dict.fromkeys(_TIMES, "datetime64[us, UTC]") | dict.fromkeys(_NUMBERS, "float64")
    frame = frame.astype(types)
    return frame.sort_values(["predicted_at", "prediction_id"], ignore_index=True)


def count_predictions(url: str, name: str, experiment: str) -> dict[str, tuple[int, int]]:
    """How many predictions of an experiment were made in each role, and about how many entities.

    Args:
        url: PostgreSQL, migrated.
        name: Name of the model.
        experiment: The challenger's model id.

    Returns:
        Predictions and entities by role.
    """
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT role, count(*), count(DISTINCT entity_id) FROM leadml.predictions "
            "WHERE model_name = %s AND experiment = %s GROUP BY role",
            (name, experiment),
        )
        return {role: (predictions, entities) for role, predictions, entities in rows}
