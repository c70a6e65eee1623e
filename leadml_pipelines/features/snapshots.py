"""Snapshots: every view of every entity as of one moment, kept in PostgreSQL.

A snapshot (all views of an entity type at one moment) is written in one transaction, or view by
view where each is an asset of its own; a re-run for the same moment replaces what was there. It is
read as "the latest" only once `check_snapshot` has found it whole. The transaction that writes any
of its views takes that mark away, and who reads the latest asks for the mark and for all views in
one statement: half a snapshot is never read as whole (`docs/offline-store.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from leadml_pipelines.features.frames import features_of, to_pandas
from leadml_pipelines.features.snapshot_checks import (
    SnapshotReport,
    check_snapshot,
    prune,
    snapshot_id,
)
from leadml_pipelines.features.snapshot_tables import (
    SCHEMA,
    ensure_table,
    existing_columns,
    lock_all,
    lock_key,
    qualified,
    table_of,
)
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import arrow_connection, connect
from leadml_pipelines.times import require_utc, require_utc_column, utc_now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from leadml_pipelines.features.catalogue import Catalogue

__all__ = [
    "NoSnapshotError",
    "Snapshot",
    "SnapshotInfo",
    "SnapshotQuery",
    "SnapshotReport",
    "check_snapshot",
    "latest_checked",
    "newest_checked",
    "prune",
    "query_of",
    "read_latest",
    "read_snapshot",
    "remove_snapshot",
    "snapshot_id",
    "write_snapshot",
    "write_view_snapshot",
]


_TRIES = 20
"""How often the latest snapshot is looked up when it is written again at that very moment."""


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


@dataclass(frozen=True)
class Snapshot:
    """A snapshot's values: one row per entity, `entity_id`, `as_of` and every feature.

    `checked_at` tells apart two that were written of one moment.
    """

    snapshot_id: str
    entity: str
    as_of: datetime
    checked_at: datetime
    frame: pd.DataFrame


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
    types = _arrow_types()
    time = pa.timestamp("us", "UTC")
    rows = len(frame)
    return pa.table(
        {
            "entity_id": pa.array(frame["entity_id"], pa.string()),
            "as_of": pa.array([as_of] * rows, time),
            "created_at": pa.array([utc_now()] * rows, time),
            **{
                f.name: pa.array(frame[f.name], types[f.type], from_pandas=True)
                for f in view.features
            },
        }
    )


def _arrow_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {
        "double": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "category": pa.string(),
    }


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


def read_snapshot(
    url: str,
    views: Sequence[FeatureView],
    as_of: datetime,
    entity_ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read the values of views as of one moment that was written, checked or not.

    Args:
        url: `postgresql://...`.
        views: Views of one entity type.
        as_of: The moment.
        entity_ids: Only these entities; all if None.

    Returns:
        `entity_id`, `as_of` and the features, sorted by entity; one row per entity of the first
        view that was written. A feature that was added since then is missing everywhere.
    """
    moment = require_utc(as_of, "as_of")
    features = features_of(views)
    with connect(url) as connection:
        columns = {view.name: set(existing_columns(connection, view)) for view in views}
        query = _select(views, columns, "$2" if entity_ids is not None else None).as_string(
            connection
        )
    with arrow_connection(url) as arrow, arrow.cursor() as cursor:
        cursor.execute(query, (moment,) if entity_ids is None else (moment, list(entity_ids)))
        table = cursor.fetch_arrow_table()
    return to_pandas(table, features)


def _select(
    views: Sequence[FeatureView], columns: Mapping[str, set[str]], ids: LiteralString | None
) -> sql.Composed:
    """The rows of views as of `$1`, of the entities in the parameter `ids` if it is given."""
    types = {"double": "float8", "integer": "bigint", "boolean": "boolean", "category": "text"}
    there = [view for view in views if columns[view.name]]
    if not there:
        names = ", ".join(view.name for view in views)
        raise NoSnapshotError(f"the views {names} were never written")
    selected = [
        sql.Identifier(view.name, feature.name)
        if feature.name in columns[view.name]
        else sql.SQL("CAST(NULL AS {}) AS {}").format(
            sql.SQL(types[feature.type]), sql.Identifier(feature.name)
        )
        for view in views
        for feature in view.features
    ]
    first = sql.Identifier(there[0].name)
    joins = [
        sql.SQL(
            "LEFT JOIN {table} AS {view} ON {view}.as_of = {first}.as_of "
            "AND {view}.entity_id = {first}.entity_id"
        ).format(table=qualified(table_of(view)), view=sql.Identifier(view.name), first=first)
        for view in there[1:]
    ]
    return sql.SQL(
        "SELECT {first}.entity_id, {first}.as_of, {features} FROM {table} AS {first} {joins} "
        "WHERE {first}.as_of = $1{some} ORDER BY {first}.entity_id"
    ).format(
        first=first,
        features=sql.SQL(", ").join(selected),
        table=qualified(table_of(there[0])),
        joins=sql.SQL(" ").join(joins),
        some=sql.SQL("")
        if ids is None
        else sql.SQL(" AND {}.entity_id = ANY(" + ids + ")").format(first),
    )


def _select_whole(
    views: Sequence[FeatureView], columns: Mapping[str, set[str]], ids: LiteralString | None
) -> sql.Composed:
    """As `_select`, while the snapshot bears the mark of its check, `$2`.

    One statement sees the mark and the rows as they were at one moment. Without the mark it returns
    no row at all; with it at least one, whose entity is null when there is no other.
    """
    return sql.SQL(
        "SELECT r.* FROM (SELECT FROM leadml.feature_snapshots "
        "WHERE entity = {} AND as_of = $1 AND checked_at = $2) AS mark LEFT JOIN ({}) AS r ON TRUE "
        "ORDER BY r.entity_id"
    ).format(sql.Literal(views[0].entity), _select(views, columns, ids))


def read_latest(
    url: str,
    entity: str,
    entity_ids: Sequence[str] | None = None,
    *,
    catalogue: Catalogue | None = None,
) -> Snapshot:
    """Read the newest checked snapshot: one row per entity, with every feature of its type.

    Args:
        url: `postgresql://...`.
        entity: Entity type.
        entity_ids: Only these entities; all if None. Unknown ones have no row.
        catalogue: The built-in one by default.

    Raises:
        NoSnapshotError: no snapshot of the type has been checked yet.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    views = found.views(entity)
    for _ in range(_TRIES):
        with connect(url) as connection:
            newest = newest_checked(connection, entity)
            if newest is None:
                break
            columns = {view.name: set(existing_columns(connection, view)) for view in views}
            ids = None if entity_ids is None else "$3"
            query = _select_whole(views, columns, ids).as_string(connection)
        params = (newest.as_of, newest.checked_at)
        with arrow_connection(url) as arrow, arrow.cursor() as cursor:
            cursor.execute(query, params if entity_ids is None else (*params, list(entity_ids)))
            table = cursor.fetch_arrow_table()
        if table.num_rows:
            rows = table.filter(table["entity_id"].is_valid())
            frame = to_pandas(rows, features_of(views))
            return Snapshot(newest.snapshot_id, entity, newest.as_of, newest.checked_at, frame)
    raise NoSnapshotError.of(entity)


@dataclass(frozen=True)
class SnapshotQuery:
    """How to read some entities of one snapshot over an open connection, again and again.

    Attributes:
        info: The snapshot.
        features: Its features, in order.
        text: The statement; `$1` is the moment, `$2` the time of its check and `$3` the ids.
        catalogue: Where the views are found.
    """

    info: SnapshotInfo
    features: Sequence[Feature]
    text: str
    catalogue: Catalogue

    def read(self, connection: psycopg.Connection[Any], entity_ids: Sequence[str]) -> Snapshot:
        """The values of entities; unknown ones have no row.

        Cheaper than `read_latest` for up to some thousand ids: the statement is prepared once per
        connection, and no connection is opened. When this snapshot is being written again, or was
        dropped, the newest checked one is read instead; the answer tells which it is.

        Raises:
            NoSnapshotError: there is no checked snapshot any more.
        """
        query = self
        for _ in range(_TRIES):
            with psycopg.RawCursor(connection) as cursor:
                params = (query.info.as_of, query.info.checked_at, list(entity_ids))
                cursor.execute(query.text, params, prepare=True)
                rows = cursor.fetchall()
            if rows:
                return query._snapshot([row for row in rows if row[0] is not None])
            newest = newest_checked(connection, self.info.entity)
            if newest is None:
                break
            query = query_of(connection, newest, catalogue=self.catalogue)
        raise NoSnapshotError.of(self.info.entity)

    def _snapshot(self, rows: Sequence[tuple[Any, ...]]) -> Snapshot:
        import pyarrow as pa

        columns = list(zip(*rows, strict=True)) or [()] * (len(self.features) + 2)
        types = _arrow_types()
        table = pa.table(
            {
                "entity_id": pa.array(columns[0], pa.string()),
                "as_of": pa.array(columns[1], pa.timestamp("us", "UTC")),
                **{
                    feature.name: pa.array(column, types[feature.type])
                    for feature, column in zip(self.features, columns[2:], strict=True)
                },
            }
        )
        frame = to_pandas(table, self.features)
        info = self.info
        return Snapshot(info.snapshot_id, info.entity, info.as_of, info.checked_at, frame)


def query_of(
    connection: psycopg.Connection[Any], info: SnapshotInfo, *, catalogue: Catalogue | None = None
) -> SnapshotQuery:
    """The query for entities of a snapshot, good for as long as the snapshot is what it is.

    Args:
        connection: Any open connection.
        info: The snapshot.
        catalogue: The built-in one by default.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    views = found.views(info.entity)
    columns = {view.name: set(existing_columns(connection, view)) for view in views}
    text = _select_whole(views, columns, "$3").as_string(connection)
    return SnapshotQuery(info, features_of(views), text, found)
