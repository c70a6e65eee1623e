"""Checking a snapshot as a whole: only what is marked here may be published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from leadml_pipelines.features.snapshots.retention import prune
from leadml_pipelines.features.snapshots.tables import lock_all, qualified, table_of
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    from leadml_pipelines.features.catalogue import Catalogue

OUT_OF_RANGE_LIMIT = 0.01
"""Share of a feature's values outside its declared range above which a snapshot is not sound.

Fewer are single odd values: they are counted here, and publication holds them back one by one."""


@dataclass(frozen=True)
class SnapshotReport:
    """What a check of a snapshot found.

    Attributes:
        snapshot_id: Its name.
        rows: Entities in it.
        sound: Whether it may be published.
        problems: Why not, as sentences.
        out_of_range: Feature -> number of values outside its range, where there are any.
    """

    snapshot_id: str
    rows: int
    sound: bool
    problems: tuple[str, ...]
    out_of_range: dict[str, int]


def snapshot_id(entity: str, as_of: datetime) -> str:
    """The name of a snapshot; names of later moments sort after those of earlier ones."""
    return f"{entity}-{require_utc(as_of, 'as_of'):%Y%m%dT%H%M%S.%fZ}"


def check_snapshot(
    url: str,
    catalogue: Catalogue,
    entity: str,
    as_of: datetime,
    *,
    expected: int | None = None,
    keep_days: int | None = None,
    may_be_empty: bool = False,
) -> SnapshotReport:
    """Check a snapshot as a whole; when it is sound, mark it and drop what is too old.

    Sound means: every view of the entity type was written for this moment, all of them hold the
    same entities, as many as exist, there is at least one, and at most 1 % of any feature's values
    lie outside its declared range. Rows are counted in the tables themselves.

    Args:
        url: `postgresql://...`.
        catalogue: The views and ranges to check against.
        entity: Entity type.
        as_of: The snapshot's moment.
        expected: How many entities exist at that moment; if None, each view must hold as many rows
            as its writer wrote.
        keep_days: Days of history that stay, as of `prune`; None: nothing is dropped.
        may_be_empty: Whether there may be no entity at all.
    """
    moment = require_utc(as_of, "as_of")
    views = catalogue.views(entity)
    with connect(url) as connection:
        lock_all(connection, [view.name for view in views])
        rows, problems = _compare(connection, views, moment, expected, may_be_empty)
        out_of_range: dict[str, int] = {}
        if not problems:
            for view in views:
                out_of_range |= _out_of_range(connection, view, moment)
            problems += [
                f"{count} of {rows} values of {name} lie outside its range"
                for name, count in out_of_range.items()
                if count > OUT_OF_RANGE_LIMIT * rows
            ]
        name = snapshot_id(entity, moment)
        connection.execute(
            "INSERT INTO leadml.feature_snapshots "
            "(snapshot_id, entity, as_of, rows, problems, checked_at) "
            "VALUES (%s, %s, %s, %s, %s, CASE WHEN %s THEN now() END) "
            "ON CONFLICT (snapshot_id) DO UPDATE SET rows = excluded.rows, "
            "problems = excluded.problems, checked_at = excluded.checked_at",
            (name, entity, moment, rows, Jsonb(problems), not problems),
        )
    if not problems and keep_days is not None:
        prune(url, entity, keep_days)
    return SnapshotReport(name, rows, not problems, tuple(problems), out_of_range)


def _compare(
    connection: psycopg.Connection[Any],
    views: Sequence[FeatureView],
    as_of: datetime,
    expected: int | None,
    may_be_empty: bool,
) -> tuple[int, list[str]]:
    written = dict(
        connection.execute(
            "SELECT view, rows FROM leadml.feature_view_snapshots WHERE as_of = %s", (as_of,)
        ).fetchall()
    )
    missing = [view.name for view in views if view.name not in written]
    if missing or not views:
        return 0, [f"the views {', '.join(missing)} were not written for {as_of.isoformat()}"]
    first, *others = views
    counts = {view.name: _count(connection, view, as_of) for view in views}
    rows = counts[first.name]
    problems = [] if rows or may_be_empty else ["the snapshot holds no entities"]
    for name, count in counts.items():
        if expected is not None and count != expected:
            problems.append(f"the view {name} holds {count} rows, and {expected} entities exist")
        elif expected is None and count != written[name]:
            problems.append(f"the view {name} holds {count} of {written[name]} rows written")
    for other in others:
        differ = connection.execute(
            sql.SQL(
                "SELECT count(*) FROM (SELECT entity_id FROM {} WHERE as_of = %s) a "
                "FULL JOIN (SELECT entity_id FROM {} WHERE as_of = %s) b USING (entity_id) "
                "WHERE a.entity_id IS NULL OR b.entity_id IS NULL"
            ).format(qualified(table_of(first)), qualified(table_of(other))),
            (as_of, as_of),
        ).fetchone()
        if differ is not None and differ[0]:
            problems.append(
                f"{differ[0]} entities are in only one of the views {first.name} and {other.name}"
            )
    return rows, problems


def _count(connection: psycopg.Connection[Any], view: FeatureView, as_of: datetime) -> int:
    """Rows that really are in a view's table for a moment."""
    found = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE as_of = %s").format(qualified(table_of(view))),
        (as_of,),
    ).fetchone()
    return 0 if found is None else int(found[0])


def _out_of_range(
    connection: psycopg.Connection[Any], view: FeatureView, as_of: datetime
) -> dict[str, int]:
    bounded = [
        f
        for f in view.features
        if f.type in ("double", "integer") and (f.low is not None or f.high is not None)
    ]
    if not bounded:
        return {}

    def count(feature: Feature) -> sql.Composed:
        column = sql.Identifier(feature.name)
        tests = [sql.SQL("{} = 'NaN'").format(column)] if feature.type == "double" else []
        for bound, sign in ((feature.low, "<"), (feature.high, ">")):
            if bound is not None:
                test = sql.SQL("{} " + sign + " {}")
                tests.append(test.format(column, sql.Literal(float(bound))))
        return sql.SQL("count(*) FILTER (WHERE {})").format(sql.SQL(" OR ").join(tests))

    found = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE as_of = %s").format(
            sql.SQL(", ").join(count(feature) for feature in bounded), qualified(table_of(view))
        ),
        (as_of,),
    ).fetchone()
    counts = zip(bounded, found or (), strict=False)
    return {feature.name: int(number) for feature, number in counts if number}
