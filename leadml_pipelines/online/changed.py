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
    the publication; they are computed when they are asked for. What was posted is remembered for
    two days: an older snapshot leaves out all of them.

    Args:
        url: PostgreSQL.
        entity_type: Such as `lead`.
        as_of: The snapshot's moment.
    """
    since = require_utc(as_of, "as_of") - MARGIN
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT entity_id FROM leadml.invalidations "
            "WHERE entity_type = %s AND stored_at > %s",
            (entity_type, since),
        ).fetchall()
    return {row[0] for row in rows}
