"""The on-demand engine: one lead, or a few hundred, where the rows already are."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leadml_pipelines.closing import Closing
from leadml_pipelines.features.compiler import compile_views
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import features_of
from leadml_pipelines.features.present import Clock, present_sql
from leadml_pipelines.features.relations import SOURCE_TABLES
from leadml_pipelines.features.view import Feature, FeatureView, Value
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd
    import psycopg

    from leadml_pipelines.features.catalogue import Catalogue

_OWN_TABLES = frozenset({"graph_metrics"})
"""Tables of ours; all others belong to the source contract."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]*")

SESSION = (
    "SET plan_cache_mode = force_generic_plan",  # planning takes longer than running
    "SET jit = off",  # and compiling to machine code longer still
    "SET default_transaction_read_only = on",
)
"""What a connection is told before it computes features."""

_BATCH = 10
"""Entities per call of the statement. Its plan is made once, for few rows: with 90 features, 10 at
a time took 0.6 ms each, 40 at a time 0.75 and 100 at a time 1.5."""

_SPINE = "SELECT DISTINCT unnest($1::text[]) AS entity_id, $2::timestamptz AS as_of"


class PostgresEngine(Closing):
    """Computes views for some entities as of one moment, with a prepared statement.

    It holds one connection, opened at the first call and again after it was lost. Calls from
    several threads take turns.

    Args:
        url: `postgresql://...`.
        schema: Schema of the source contract.
        catalogue: Where views that others are built on are found; the built-in one by default.

    Raises:
        ValueError: the schema's name is not lower-case letters, digits and _.
    """

    def __init__(
        self,
        url: str,
        schema: str = "crm",
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        _tables(schema)
        self._url = url
        self._catalogue = catalogue
        self._schema = schema
        self._connection: psycopg.Connection[Any] | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Close the connection, if there is one; a later call opens a new one."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def compute(
        self, views: Sequence[FeatureView], entity_ids: Sequence[str], as_of: datetime
    ) -> pd.DataFrame:
        """Compute views for some entities.

        Args:
            views: Any views of one entity type; those they are built on are computed with them.
            entity_ids: In any order; a repeated id is answered as often. An id that nobody knows
                gets the defaults.
            as_of: Timezone-aware.

        Returns:
            `entity_id`, `as_of` and the features; one row per id, in their order.

        Raises:
            NaiveTimeError: `as_of` has no time zone.
        """
        import pandas as pd
        import pyarrow as pa

        from leadml_pipelines.features.frames import arrow_type, to_pandas

        moment = require_utc(as_of, "as_of")
        values = self.rows(views, entity_ids, moment)
        features = features_of(views)
        table = pa.table(
            {
                feature.name: pa.array(
                    (values[entity][i] for entity in entity_ids), arrow_type(feature.type)
                )
                for i, feature in enumerate(features)
            }
        )
        frame = to_pandas(table, features)
        frame.insert(0, "entity_id", pd.Series(list(entity_ids), dtype=object))
        frame.insert(1, "as_of", pd.Series([moment] * len(entity_ids), dtype="datetime64[us, UTC]"))
        return frame

    def rows(
        self, views: Sequence[FeatureView], entity_ids: Sequence[str], as_of: datetime
    ) -> dict[str, tuple[Value, ...]]:
        """Like `compute`, as plain values: entity -> values in the order of the views' features."""
        import psycopg

        query = MomentQuery(views, self._schema, catalogue=self._catalogue)
        with self._turn:
            try:
                return self._run(query, entity_ids, as_of)
            except psycopg.OperationalError:
                # The server went away between two calls: reading again is safe.
                if self._connection is None or not self._connection.broken:
                    raise
                self._connection.close()
                self._connection = None
                return self._run(query, entity_ids, as_of)

    def _run(
        self, query: MomentQuery, entity_ids: Sequence[str], as_of: datetime
    ) -> dict[str, tuple[Value, ...]]:
        if self._connection is None:
            self._connection = self._open()
        return query.rows(self._connection, entity_ids, as_of)

    def _open(self) -> psycopg.Connection[Any]:
        from leadml_pipelines.postgres import connect

        connection = connect(self._url, autocommit=True)
        for setting in SESSION:
            connection.execute(setting.encode())
        return connection


class MomentQuery:
    """Computes some views as of one moment, over a connection of the caller's.

    Args:
        views: Any views of one entity type; those they are built on are computed with them.
        schema: Schema of the source contract.
        catalogue: Where views that others are built on are found; the built-in one by default.

    Raises:
        ValueError: the schema's name is not lower-case letters, digits and _.
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        schema: str = "crm",
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        tables = _tables(schema)
        self._statement = compile_views(
            views, "postgres", catalogue=catalogue, tables=tables, spine=_SPINE
        ).encode()

    def rows(
        self,
        connection: psycopg.Connection[Any],
        entity_ids: Sequence[str],
        as_of: datetime,
        deadline: float = math.inf,
    ) -> dict[str, tuple[Value, ...]]:
        """Entity -> values in the order of the views' features.

        Args:
            connection: In autocommit mode, with the settings of `SESSION`.
            entity_ids: As many as you like. An id that nobody knows gets the defaults.
            as_of: Timezone-aware.
            deadline: By `time.monotonic`: no statement begins after it.

        Raises:
            NaiveTimeError: `as_of` has no time zone.
            TimeoutError: the deadline came before all were computed.
        """
        import psycopg

        moment = require_utc(as_of, "as_of")
        found: dict[str, tuple[Value, ...]] = {}
        with psycopg.RawCursor(connection) as cursor:
            for batch in _batches(list(dict.fromkeys(entity_ids)), deadline):
                cursor.execute(self._statement, (batch, moment), prepare=True)
                found |= {row[0]: row[2:] for row in cursor}
        return found


@dataclass(frozen=True, slots=True)
class PresentRow:
    """An entity that exists, as of the present.

    Attributes:
        entity_id: Its id.
        as_of: The moment that the values describe.
        computed_at: PostgreSQL's clock when they were computed; the tables were looked at later.
        values: In the order of the query's features.
    """

    entity_id: str
    as_of: datetime
    computed_at: datetime
    values: tuple[Value, ...]


class PresentQuery:
    """Computes every view of an entity type as of the present, over a connection of the caller's.

    An id that the entity's own table does not have, or not yet, gives no row: unknown is another
    thing than known with nothing but defaults.

    Args:
        entity: Entity type.
        schema: Schema of the source contract.
        clock: What the present is; `present_sql` tells.
        catalogue: The views; the built-in ones by default.

    Raises:
        ValueError: the schema's name is not lower-case letters, digits and _.
        UnknownEntityTypeError: there is no such entity type.
    """

    def __init__(
        self,
        entity: str,
        schema: str = "crm",
        *,
        clock: Clock = "now",
        catalogue: Catalogue | None = None,
    ) -> None:
        from leadml_pipelines.features.catalogue import catalogue as built_in

        kind = entity_type(entity)
        views = (built_in() if catalogue is None else catalogue).views(entity)
        tables = _tables(schema)
        spine = (
            f"SELECT DISTINCT e.{kind.key} AS entity_id, p.present AS as_of "  # noqa: S608
            f'FROM "{schema}"."{kind.table}" AS e '
            f"CROSS JOIN (SELECT {present_sql(clock, entity)} AS present) AS p "
            f"WHERE e.{kind.key} = ANY($1::text[]) AND {kind.exists('e', 'p.present')}"
        )
        statement = compile_views(
            views, "postgres", catalogue=catalogue, tables=tables, spine=spine
        )
        self.features: tuple[Feature, ...] = tuple(features_of(views))
        self._statement = f"SELECT now(), c.* FROM ({statement}) AS c".encode()  # noqa: S608

    def rows(
        self,
        connection: psycopg.Connection[Any],
        entity_ids: Sequence[str],
        deadline: float = math.inf,
    ) -> Iterator[PresentRow]:
        """The entities that exist, in no order; the statement is prepared once per connection.

        Args:
            connection: In autocommit mode, with the settings of `SESSION`.
            entity_ids: Distinct ids, as many as you like.
            deadline: By `time.monotonic`: no statement begins after it.

        Raises:
            TimeoutError: the deadline came before all were computed.
        """
        import psycopg

        with psycopg.RawCursor(connection) as cursor:
            for batch in _batches(entity_ids, deadline):
                cursor.execute(self._statement, (batch,), prepare=True)
                for row in cursor.fetchall():
                    yield PresentRow(row[1], row[2], row[0], row[3:])


def _batches(entity_ids: Sequence[str], deadline: float) -> Iterator[list[str]]:
    """Ids for one call of the statement after the other, as long as there is time."""
    for start in range(0, len(entity_ids), _BATCH):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{start} of {len(entity_ids)} entities were computed in time")
        yield list(entity_ids[start : start + _BATCH])


def _tables(schema: str) -> dict[str, str]:
    """Each source table as it is spelled in SQL."""
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(
            f"schema {schema!r} must consist of lower-case letters, digits and _, "
            "and not begin with a digit"
        )
    return {
        table: f'"leadml"."{table}"' if table in _OWN_TABLES else f'"{schema}"."{table}"'
        for table in SOURCE_TABLES
    }
