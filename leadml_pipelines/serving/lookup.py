"""What PostgreSQL knows of entities: computed as of now, or kept in the newest checked snapshot."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.postgres_engine import SESSION, PresentQuery, PresentRow
from leadml_pipelines.serving.connections import Connections, StatementFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.present import Clock
    from leadml_pipelines.features.snapshots.reading import Snapshot, SnapshotQuery
    from leadml_pipelines.features.view import Feature

LOOKUPS = 4
"""Lookups in PostgreSQL at the same time; the connections that this process may take for them."""
NEWEST_FOR = 1.0
"""Seconds for which the newest snapshot is taken to be still the newest."""
COMPUTATION_SECONDS = 2.0
"""How long one statement may compute ten entities."""


class PresentReader:
    """Computes all features of entities as of now, where the rows are. Safe to share.

    Args:
        postgres_url: `postgresql://...`.
        schema: Schema of the source tables.
        clock: What the present is.
        catalogue: The views; the built-in ones by default.
    """

    def __init__(
        self,
        postgres_url: str,
        schema: str = "crm",
        clock: Clock = "now",
        catalogue: Catalogue | None = None,
    ) -> None:
        self._connections = Connections(
            postgres_url, LOOKUPS, SESSION, statement_seconds=COMPUTATION_SECONDS
        )
        self._schema = schema
        self._clock = clock
        self._catalogue = catalogue
        self._queries: dict[str, PresentQuery] = {}
        self._compiling = threading.Lock()

    def __call__(
        self,
        entity_type: str,
        ids: Sequence[str],
        started: Callable[[], None] = lambda: None,
        deadline: float = math.inf,
    ) -> list[PresentRow]:
        """The entities among these that exist, in no order.

        Args:
            entity_type: Such as `lead`.
            ids: Distinct ids.
            started: Called just before PostgreSQL is asked, when this call has its turn.
            deadline: By `time.monotonic`: no further entities are begun after it.

        Raises:
            PostgresUnavailableError: PostgreSQL can't be reached.
            StatementFailedError: it can't compute them, or not all of them by the deadline.
        """
        query = self._query(entity_type)

        def compute(connection: psycopg.Connection[Any]) -> list[PresentRow]:
            started()
            try:
                return list(query.rows(connection, ids, deadline))
            except TimeoutError as error:
                raise StatementFailedError("too slow") from error

        return self._connections.run(compute)

    def features(self, entity_type: str) -> Sequence[Feature]:
        """The features that are computed, in their order."""
        return self._query(entity_type).features

    def prepare(self, entity_type: str) -> None:
        """Compile the statement and have PostgreSQL plan it, so that no request waits for it."""
        self(entity_type, [""])

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        self._connections.close()

    def _query(self, entity_type: str) -> PresentQuery:
        query = self._queries.get(entity_type)
        if query is None:
            with self._compiling:
                query = self._queries.get(entity_type) or PresentQuery(
                    entity_type, self._schema, clock=self._clock, catalogue=self._catalogue
                )
                self._queries[entity_type] = query
        return query


class SnapshotReader:
    """Looks entities up in the newest checked snapshot. Safe to share between threads.

    Args:
        postgres_url: `postgresql://...`.
    """

    def __init__(self, postgres_url: str) -> None:
        self._connections = Connections(postgres_url, LOOKUPS)
        self._queries: dict[str, tuple[float, SnapshotQuery]] = {}

    def __call__(self, entity_type: str, ids: Sequence[str]) -> Snapshot:
        """What the newest checked snapshot has of entities.

        Raises:
            PostgresUnavailableError: PostgreSQL can't be reached.
            StatementFailedError: it can't read them.
            LookupError: there is no checked snapshot yet.
        """

        def read(connection: psycopg.Connection[Any]) -> Snapshot:
            return self._query(connection, entity_type).read(connection, ids)

        return self._connections.run(read)

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        self._connections.close()

    def _query(self, connection: psycopg.Connection[Any], entity_type: str) -> SnapshotQuery:
        from leadml_pipelines.features.snapshots.newest import NoSnapshotError, newest_checked
        from leadml_pipelines.features.snapshots.reading import query_of

        looked, known = self._queries.get(entity_type, (0.0, None))
        now = time.monotonic()
        if known is not None and now - looked < NEWEST_FOR:
            return known
        newest = newest_checked(connection, entity_type)
        if newest is None:
            raise NoSnapshotError.of(entity_type)
        # A snapshot that was written again was checked again: it may have more columns.
        query = known if known and known.info == newest else query_of(connection, newest)
        self._queries[entity_type] = (now, query)
        return query


def import_ahead() -> None:
    """Import what a fall-back and the first event need, so that no request waits for it."""
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401

    from leadml_pipelines.features.snapshots import reading  # noqa: F401
    from leadml_pipelines.sources import door  # noqa: F401
