"""The statements that read the views of a snapshot side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg import sql

from leadml_pipelines.features.snapshots.newest import NoSnapshotError
from leadml_pipelines.features.snapshots.tables import COLUMN_TYPES, qualified, table_of
from leadml_pipelines.features.view import FeatureView


def select(
    views: Sequence[FeatureView], columns: Mapping[str, set[str]], ids: LiteralString | None
) -> sql.Composed:
    """The rows of views as of `$1`, of the entities in the parameter `ids` if it is given."""
    there = [view for view in views if columns[view.name]]
    if not there:
        names = ", ".join(view.name for view in views)
        raise NoSnapshotError(f"the views {names} were never written")
    selected = [
        sql.Identifier(view.name, feature.name)
        if feature.name in columns[view.name]
        else sql.SQL("CAST(NULL AS {}) AS {}").format(
            sql.SQL(COLUMN_TYPES[feature.type]), sql.Identifier(feature.name)
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


def select_whole(
    views: Sequence[FeatureView], columns: Mapping[str, set[str]], ids: LiteralString | None
) -> sql.Composed:
    """As `select`, while the snapshot bears the mark of its check, `$2`.

    One statement sees the mark and the rows as they were at one moment. Without the mark it returns
    no row at all; with it at least one, whose entity is null when there is no other.
    """
    return sql.SQL(
        "SELECT r.* FROM (SELECT FROM leadml.feature_snapshots "
        "WHERE entity = {} AND as_of = $1 AND checked_at = $2) AS mark LEFT JOIN ({}) AS r ON TRUE "
        "ORDER BY r.entity_id"
    ).format(sql.Literal(views[0].entity), select(views, columns, ids))
