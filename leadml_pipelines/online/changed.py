"""Which entities events have changed since a snapshot: it must not be published over them."""

from __future__ import annotations

from datetime import datetime, timedelta

from leadml_pipelines.postgres import connect
from leadml_pipelines.times import require_utc

MARGIN = timedelta(minutes=5)
"""An event is noted before its transaction ends: it may be noted before a snapshot lacks it."""


def changed_since(url: str, entity_type: str, as_of: datetime) -> set[str]:
    """Ids of the entities about which events were posted that a snapshot may lack.

    In Redis nothing keeps an older value out once a newer one has expired, so these are left out of
    the publication; they are computed when they are asked for. An event that was dated ahead counts
    from its own time on. Only the last two days are remembered.

    Args:
        url: PostgreSQL.
        entity_type: Such as `lead`.
        as_of: The snapshot's moment.
    """
    since = require_utc(as_of, "as_of") - MARGIN
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT entity_id FROM leadml.invalidations "
            "WHERE entity_type = %s AND due_at > %s",
            (entity_type, since),
        ).fetchall()
    return {row[0] for row in rows}


def database_clock(url: str) -> datetime:
    """PostgreSQL's clock, which dates what is computed and what is made untrue."""
    with connect(url) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    if row is None:
        raise AssertionError("unreachable")
    now: datetime = row[0]
    return now
