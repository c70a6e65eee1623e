"""How long history is kept: older days of views and served vectors are dropped."""

from __future__ import annotations

from datetime import datetime, timedelta

from psycopg.errors import LockNotAvailable

from leadml_pipelines.features.snapshots.tables import day_of, drop_days_before, lock_all
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import utc_now


def prune(url: str, entity: str, keep_days: int) -> list[datetime]:
    """Drop the history and the log of served vectors of an entity type older than so many days.

    History is counted back from the newest checked snapshot, not from today: a historical data set
    keeps its history, a store that stood still for a season loses nothing by it, and the newest
    checked snapshot always stays. Whole days (UTC) go, each as the partitions of that day. Served
    vectors are counted back from now.

    Args:
        url: `postgresql://...`.
        entity: Entity type.
        keep_days: Days that stay before the day of the newest checked snapshot; at least 1.

    Returns:
        The moments that were dropped. Those of a view that somebody reads or writes for seconds on
        end are left for the next call.

    Raises:
        ValueError: `keep_days` is less than 1; nothing was dropped.
    """
    _require_day(keep_days)
    _forget_served(url, entity, keep_days)
    newest = _newest_checked(url, entity)
    first = None if newest is None else first_day_kept(newest, keep_days)
    if first is None:
        return []
    with connect(url) as connection:
        # First the mark, so that nobody takes for whole what is about to lose its rows.
        connection.execute(
            "DELETE FROM leadml.feature_snapshots WHERE entity = %s AND as_of < %s",
            (entity, first),
        )
        views = connection.execute(
            "SELECT DISTINCT view FROM leadml.feature_view_snapshots "
            "WHERE entity = %s AND as_of < %s ORDER BY view",
            (entity, first),
        ).fetchall()
    dropped: set[datetime] = set()
    for (view,) in views:
        dropped.update(_drop(url, view, first))
    return sorted(dropped)


def first_day_kept(newest: datetime, keep_days: int) -> datetime:
    """The first day (its midnight, UTC) that the policy keeps when the newest snapshot is this one.

    Raises:
        ValueError: `keep_days` is less than 1.
    """
    _require_day(keep_days)
    return day_of(newest) - timedelta(days=keep_days)


def _require_day(keep_days: int) -> None:
    if keep_days < 1:
        raise ValueError(f"keep_days is {keep_days}; at least one day must stay")


def _newest_checked(url: str, entity: str) -> datetime | None:
    with connect(url) as connection:
        row = connection.execute(
            "SELECT max(as_of) FROM leadml.feature_snapshots "
            "WHERE entity = %s AND checked_at IS NOT NULL",
            (entity,),
        ).fetchone()
    newest: datetime | None = None if row is None else row[0]
    return newest


def _forget_served(url: str, entity: str, keep_days: int) -> None:
    with connect(url) as connection:
        connection.execute(
            "DELETE FROM leadml.served_features WHERE entity_type = %s AND served_at < %s",
            (entity, utc_now() - timedelta(days=keep_days)),
        )
        # Who writes a vector writes its schema with it, before or after this, and not meanwhile.
        connection.execute("LOCK TABLE leadml.served_schemas IN SHARE ROW EXCLUSIVE MODE")
        connection.execute(
            "DELETE FROM leadml.served_schemas s WHERE entity_type = %s AND NOT EXISTS "
            "(SELECT FROM leadml.served_features f "
            "WHERE f.entity_type = s.entity_type AND f.schema_id = s.schema_id)",
            (entity,),
        )


def _drop(url: str, view: str, first: datetime) -> list[datetime]:
    # A transaction for each view: a reader of several tables locks them one after the other, and
    # whoever held two of them here could wait for it while it waits.
    try:
        with connect(url) as connection:
            connection.execute("SET LOCAL lock_timeout = '3s'")
            lock_all(connection, [view])
            return drop_days_before(connection, view, first)
    except LockNotAvailable:
        return []
