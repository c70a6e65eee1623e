"""Reading a snapshot's values: of a given moment, or of the newest that was found whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from leadml_pipelines.features.frames import arrow_type, features_of, to_pandas
from leadml_pipelines.features.snapshots.newest import NoSnapshotError, SnapshotInfo, newest_checked
from leadml_pipelines.features.snapshots.statements import select, select_whole
from leadml_pipelines.features.snapshots.tables import existing_columns
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import arrow_connection, connect
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.catalogue import Catalogue

_TRIES = 20
"""How often the latest snapshot is looked up when it is written again at that very moment."""


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
        query = select(views, columns, "$2" if entity_ids is not None else None).as_string(
            connection
        )
    with arrow_connection(url) as arrow, arrow.cursor() as cursor:
        cursor.execute(query, (moment,) if entity_ids is None else (moment, list(entity_ids)))
        table = cursor.fetch_arrow_table()
    return to_pandas(table, features)


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
            query = select_whole(views, columns, ids).as_string(connection)
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
        table = pa.table(
            {
                "entity_id": pa.array(columns[0], pa.string()),
                "as_of": pa.array(columns[1], pa.timestamp("us", "UTC")),
                **{
                    feature.name: pa.array(column, arrow_type(feature.type))
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
    text = select_whole(views, columns, "$3").as_string(connection)
    return SnapshotQuery(info, features_of(views), text, found)
