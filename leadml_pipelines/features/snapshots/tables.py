"""The tables that hold the history of views: one per view, partitioned by day of `as_of`.

They follow the catalogue: a new feature adds a column, a removed one leaves its column behind, and
a feature that changed its type is refused, because old and new values can't share a column.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from leadml_pipelines.features.view import FeatureView

SCHEMA = "leadml"
COLUMN_TYPES = {
    "double": "double precision",
    "integer": "bigint",
    "boolean": "boolean",
    "category": "text",
}
"""PostgreSQL's type for each type of a feature."""


class FeatureTypeChangedError(RuntimeError):
    """A feature has another type than its column."""


def table_of(view: FeatureView) -> str:
    """Name of a view's table, in the schema `leadml`."""
    return f"feature_{view.name}"


def qualified(name: str) -> sql.Identifier:
    """A table of ours as SQL."""
    return sql.Identifier(SCHEMA, name)


def lock_key(view: str) -> str:
    """The name under which a view's writers wait for each other."""
    return f"{SCHEMA}.feature_{view}"


def lock_all(connection: psycopg.Connection[Any], views: Iterable[str]) -> None:
    """Let one writer at a time at some views, until the end of the transaction.

    Everyone who needs several takes them here, in one order: two can't wait for each other.
    """
    for view in sorted(views):
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock_key(view),)
        )


def existing_columns(connection: psycopg.Connection[Any], view: FeatureView) -> dict[str, str]:
    """Column -> type of a view's table; empty when there is no table yet."""
    rows = connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped",
        (SCHEMA, table_of(view)),
    )
    return dict(rows.fetchall())


def ensure_table(connection: psycopg.Connection[Any], view: FeatureView, day: datetime) -> None:
    """Create or extend a view's table, and the partition of a day.

    Args:
        connection: In a transaction of its own: what this does locks readers out until its end.
        view: Whose table.
        day: Any time in the day (UTC).

    Raises:
        FeatureTypeChangedError: a column has another type than its feature.
    """
    lock_all(connection, [view.name])
    table = qualified(table_of(view))
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (entity_id text NOT NULL, as_of timestamptz NOT NULL, "
            "created_at timestamptz NOT NULL, PRIMARY KEY (as_of, entity_id)) "
            "PARTITION BY RANGE (as_of)"
        ).format(table)
    )
    there = existing_columns(connection, view)
    for feature in view.features:
        type_ = COLUMN_TYPES[feature.type]
        if feature.name not in there:
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                    table, sql.Identifier(feature.name), sql.SQL(type_)
                )
            )
        elif there[feature.name] != type_:
            raise FeatureTypeChangedError(
                f"feature {feature.name} is {feature.type} now, but its column in "
                f"{SCHEMA}.{table_of(view)} is {there[feature.name]}; give the feature a new name"
            )
    start = day_of(day)
    partition = _partition(view.name, start)
    found = connection.execute("SELECT to_regclass(%s)", (f'"{SCHEMA}"."{partition}"',)).fetchone()
    if found is not None and found[0] is not None:
        return
    connection.execute(
        sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
            qualified(partition),
            table,
            sql.Literal(start.isoformat()),
            sql.Literal((start + timedelta(days=1)).isoformat()),
        )
    )


def drop_days_before(
    connection: psycopg.Connection[Any], view: str, day: datetime
) -> list[datetime]:
    """Drop the partitions of a view whose days lie before a day.

    Args:
        connection: In a transaction of its own: what this does locks readers out until its end.
        view: Name of the view; it may have left the catalogue.
        day: The first day that stays: midnight UTC.

    Returns:
        The moments that were dropped.
    """
    table = f"feature_{view}"
    partitions = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(%s)",
        (f'"{SCHEMA}"."{table}"',),
    ).fetchall()
    oldest = _partition(view, day)
    for (name,) in partitions:
        # Names of one view differ in the date alone, and sort as it does.
        if name < oldest:
            connection.execute(sql.SQL("DROP TABLE {}").format(qualified(name)))
    rows = connection.execute(
        "DELETE FROM leadml.feature_view_snapshots WHERE view = %s AND as_of < %s RETURNING as_of",
        (view, day),
    )
    return [row[0] for row in rows]


def day_of(moment: datetime) -> datetime:
    """The midnight (UTC) at which the day of a moment began."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _partition(view: str, day: datetime) -> str:
    # Within PostgreSQL's 63 bytes: view names have at most 46 characters here.
    return f"feature_{view}_{day:%Y%m%d}"
