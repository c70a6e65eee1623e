"""Lookups in the newest checked snapshot in PostgreSQL, over connections that stay open."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.reader import LOOKUPS, SnapshotUnavailableError

if TYPE_CHECKING:
    from leadml_pipelines.features.snapshots import Snapshot, SnapshotQuery

NEWEST_FOR = 1.0
"""Seconds for which the newest snapshot is taken to be still the newest."""

# A lost server is noticed in two seconds, also by a connection that was open before.
_LIMITS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 2000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}
_STATEMENT_MILLISECONDS = 5000


class SnapshotReader:
    """Looks entities up in the newest checked snapshot. Safe to share between threads.

    Connections are opened when needed and kept; as many at once as there are callers at once.

    Args:
        postgres_url: `postgresql://...`.
    """

    def __init__(self, postgres_url: str) -> None:
        self._url = make_conninfo(postgres_url, **_LIMITS)
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue(LOOKUPS)
        self._queries: dict[str, tuple[float, SnapshotQuery]] = {}

    def __call__(self, entity_type: str, ids: list[str]) -> Snapshot:
        """What the newest checked snapshot has of entities.

        Raises:
            SnapshotUnavailableError: PostgreSQL did not answer.
            LookupError: there is no checked snapshot yet.
        """
        try:
            return self._look_up(entity_type, ids)
        except psycopg.Error as error:
            # Only the kind: a driver's message may quote the address.
            raise SnapshotUnavailableError(type(error).__name__) from error

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _look_up(self, entity_type: str, ids: list[str]) -> Snapshot:
        while True:
            connection, reused = self._take()
            try:
                snapshot = self._query(connection, entity_type).read(connection, ids)
            except BaseException as error:
                connection.close()
                # A server that was started again has closed the connections of before.
                if reused and isinstance(error, psycopg.OperationalError):
                    continue
                raise
            self._give_back(connection)
            return snapshot

    def _take(self) -> tuple[psycopg.Connection[Any], bool]:
        """An open connection, and whether it was used before."""
        try:
            return self._idle.get_nowait(), True
        except queue.Empty:
            connection = connect(self._url, autocommit=True)
        try:
            connection.execute(f"SET statement_timeout = {_STATEMENT_MILLISECONDS}".encode())
        except psycopg.Error:
            connection.close()
            raise
        return connection, False

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _query(self, connection: psycopg.Connection[Any], entity_type: str) -> SnapshotQuery:
        from leadml_pipelines.features.snapshots import NoSnapshotError, newest_checked, query_of

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
    """Import what the first lookup needs, so that no request waits for it."""
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401

    from leadml_pipelines.features import snapshots  # noqa: F401
