"""Writing the views of one moment, whole or not at all, and taking them away again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg import sql

from leadml_pipelines.features.frames import arrow_type
from leadml_pipelines.features.snapshots.tables import (
    SCHEMA,
    ensure_table,
    existing_columns,
    lock_all,
    lock_key,
    qualified,
    table_of,
)
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.postgres import arrow_connection, connect
from leadml_pipelines.times import require_utc, require_utc_column, utc_now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def write_view_snapshot(url: str, view: FeatureView, frame: pd.DataFrame, as_of: datetime) -> int:
    """Write a view's values as of one moment, replacing what was there for that moment.

    Args:
        url: `postgresql://...`.
        view: The view.
        frame: `entity_id`, `as_of` (the same everywhere) and the view's features.
        as_of: Timezone-aware.

    Returns:
        How many rows were written.

    Raises:
        ValueError: the frame lacks a feature, repeats an entity, or holds another moment.
        FeatureTypeChangedError: a column has another type than its feature.
    """
    return write_snapshot(url, [view], frame, as_of)


def write_snapshot(
    url: str, views: Sequence[FeatureView], frame: pd.DataFrame, as_of: datetime
) -> int:
    """Write several views as of one moment in one transaction, replacing what was there.

    Of several writers of one moment one works and the others wait; the last one's values stay, of
    all views.

    Args:
        url: `postgresql://...`.
        views: Views of one entity type, at least one.
        frame: `entity_id`, `as_of` (the same everywhere) and the features of all the views.
        as_of: Timezone-aware.

    Returns:
        How many entities were written.

    Raises:
        ValueError: the frame lacks a feature, repeats an entity, or holds another moment; the views
            are of several entity types.
        FeatureTypeChangedError: a column has another type than its feature.
    """
    moment = require_utc(as_of, "as_of")
    entities = {view.entity for view in views}
    if len(entities) != 1:
        raise ValueError(f"a snapshot is of one entity type, and not of {sorted(entities)}")
    tables = {view.name: _arrow(view, frame, moment) for view in views}
    for view in views:
        # Each in a transaction of its own: a new partition locks readers out until it is there.
        with connect(url) as connection:
            ensure_table(connection, view, moment)
    with arrow_connection(url) as connection, connection.cursor() as cursor:
        # As in `lock_all`: all of them before the first row, in one order.
        for name in sorted(tables):
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", (lock_key(name),)
            ).fetchall()
        for view in views:
            _replace(cursor, view, tables[view.name], moment)
        cursor.execute(
            "UPDATE leadml.feature_snapshots SET checked_at = NULL "
            "WHERE entity = $1 AND as_of = $2",
            (entities.pop(), moment),
        )
        connection.commit()
    return len(frame)


def remove_snapshot(url: str, views: Sequence[FeatureView], as_of: datetime) -> None:
    """Remove what was written of one moment, and its marks, in one transaction.

    Args:
        url: `postgresql://...`.
        views: All views of one entity type.
        as_of: Timezone-aware.
    """
    moment = require_utc(as_of, "as_of")
    with connect(url) as connection:
        lock_all(connection, [view.name for view in views])
        for view in views:
            connection.execute(
                "DELETE FROM leadml.feature_snapshots WHERE entity = %s AND as_of = %s",
                (view.entity, moment),
            )
            connection.execute(
                "DELETE FROM leadml.feature_view_snapshots WHERE view = %s AND as_of = %s",
                (view.name, moment),
            )
            if existing_columns(connection, view):
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE as_of = %s").format(qualified(table_of(view))),
                    (moment,),
                )


def _replace(cursor: Any, view: FeatureView, table: pa.Table, as_of: datetime) -> None:
    name = table_of(view)
    cursor.execute(f'DELETE FROM "{SCHEMA}"."{name}" WHERE as_of = $1', (as_of,))  # noqa: S608
    if table.num_rows:
        cursor.adbc_ingest(name, table, mode="append", db_schema_name=SCHEMA)
    cursor.execute(
        "INSERT INTO leadml.feature_view_snapshots (view, as_of, entity, rows, created_at) "
        "VALUES ($1, $2, $3, $4, now()) ON CONFLICT (view, as_of) "
        "DO UPDATE SET rows = excluded.rows, created_at = excluded.created_at",
        (view.name, as_of, view.entity, table.num_rows),
    )


def _arrow(view: FeatureView, frame: pd.DataFrame, as_of: datetime) -> pa.Table:
    import pyarrow as pa

    missing = [f.name for f in view.features if f.name not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks {', '.join(missing)} of view {view.name}")
    if not (require_utc_column(frame["as_of"], "as_of") == as_of).all():
        raise ValueError(f"the frame of view {view.name} holds rows of another time than {as_of}")
    if frame["entity_id"].duplicated().any() or frame["entity_id"].isna().any():
        raise ValueError(f"the frame of view {view.name} must have every entity once")
    time = pa.timestamp("us", "UTC")
    rows = len(frame)
    return pa.table(
        {
            "entity_id": pa.array(frame["entity_id"], pa.string()),
            "as_of": pa.array([as_of] * rows, time),
            "created_at": pa.array([utc_now()] * rows, time),
            **{
                f.name: pa.array(frame[f.name], arrow_type(f.type), from_pandas=True)
                for f in view.features
            },
        }
    )
