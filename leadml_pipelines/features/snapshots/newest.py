"""Which snapshot of an entity type is the newest that was found whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from leadml_pipelines.postgres import connect


class NoSnapshotError(LookupError):
    """There is no checked snapshot of an entity type yet."""

    @classmethod
    def of(cls, entity: str) -> NoSnapshotError:
        """The error for an entity type."""
        return cls(
            f"no snapshot of {entity} features has passed its check yet; "
            "materialize feature_snapshot first"
        )


@dataclass(frozen=True)
class SnapshotInfo:
    """A checked snapshot.

    Attributes:
        snapshot_id: Its name.
        entity: Entity type.
        as_of: Its moment.
        rows: Entities in it.
        checked_at: When it was found whole.
    """

    snapshot_id: str
    entity: str
    as_of: datetime
    rows: int
    checked_at: datetime


def latest_checked(url: str, entity: str) -> SnapshotInfo | None:
    """The newest checked snapshot of an entity type, or None."""
    with connect(url) as connection:
        return newest_checked(connection, entity)


def newest_checked(connection: psycopg.Connection[Any], entity: str) -> SnapshotInfo | None:
    """As `latest_checked`, over an open connection."""
    row = connection.execute(
        "SELECT snapshot_id, entity, as_of, rows, checked_at FROM leadml.feature_snapshots "
        "WHERE entity = %s AND checked_at IS NOT NULL ORDER BY as_of DESC LIMIT 1",
        (entity,),
    ).fetchone()
    return None if row is None else SnapshotInfo(*row)
