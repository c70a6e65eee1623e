"""What the graph was told, kept in PostgreSQL: one digest per node and edge.

The order of steps makes a crash at any point harmless:

1. `begin` records every key about to be written or deleted with no digest: its content in the
   graph is unknown from here on;
2. the graph accepts the rows (idempotent statements);
3. `settle` records their digests, or forgets the deleted ones, kind by kind.

A run that died between 1 and 3 leaves keys without a digest, and the next run writes or deletes
exactly those again, even if the tables have changed back or lost the row meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leadml_pipelines.postgres import arrow_connection, connect

if TYPE_CHECKING:
    import pyarrow as pa

_SYNC_LOCK = 0x1EAD_0003
"""Key of the advisory lock: one synchronisation at a time."""


@dataclass(frozen=True)
class SyncState:
    """Which graph mirrors the tables.

    Attributes:
        graph_id: Identity of the graph, also on its marker node.
        generation: Number of synchronisations that wrote something.
    """

    graph_id: str
    generation: int


class Ledger:
    """The digests of one database; made by `open_ledger`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def state(self) -> SyncState | None:
        """The graph that the digests are about; None before the first synchronisation."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT graph_id, generation FROM leadml.graph_sync_state")
            row = cursor.fetchone()
        self._connection.commit()
        return None if row is None else SyncState(row[0], row[1])

    def known(self) -> pa.Table:
        """All rows: `kind`, `key`, `digest`."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT kind, key, digest FROM leadml.graph_sync")
            table: pa.Table = cursor.fetch_arrow_table()
        self._connection.commit()
        return table

    def counts(self) -> dict[str, int]:
        """Rows of each kind that the graph is known to hold."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT kind, count(*) FROM leadml.graph_sync"
                " WHERE digest IS NOT NULL GROUP BY kind"
            )
            rows = cursor.fetchall()
        self._connection.commit()
        return dict(rows)

    def restart(self, state: SyncState, keys: pa.Table) -> None:
        """Forget everything; the graph named by `state` holds `keys`, content unknown."""
        with self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM leadml.graph_sync")
            cursor.adbc_ingest("graph_sync", keys, mode="append", db_schema_name="leadml")
        self.advance(state)

    def begin(self, differences: pa.Table) -> None:
        """Record that these keys are about to be written (`digest`) or deleted (null)."""
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest("graph_sync_stage", differences, mode="create", temporary=True)
            cursor.execute(
                "INSERT INTO leadml.graph_sync (kind, key)"
                " SELECT kind, key FROM graph_sync_stage"
                " ON CONFLICT (kind, key) DO UPDATE SET digest = NULL"
            )
        self._connection.commit()

    def settle(self, kind: str) -> None:
        """Record that the graph has accepted all differences of this kind."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "UPDATE leadml.graph_sync AS known SET digest = stage.digest"
                " FROM graph_sync_stage AS stage"
                " WHERE stage.kind = $1 AND stage.digest IS NOT NULL"
                " AND known.kind = stage.kind AND known.key = stage.key",
                (kind,),
            )
            cursor.execute(
                "DELETE FROM leadml.graph_sync AS known USING graph_sync_stage AS stage"
                " WHERE stage.kind = $1 AND stage.digest IS NULL"
                " AND known.kind = stage.kind AND known.key = stage.key",
                (kind,),
            )
        self._connection.commit()

    def advance(self, state: SyncState) -> None:
        """Record that the graph is at this generation."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO leadml.graph_sync_state (graph_id, generation) VALUES ($1, $2)"
                " ON CONFLICT (only_row) DO UPDATE SET graph_id = excluded.graph_id,"
                " generation = excluded.generation, synced_at = now()",
                (state.graph_id, state.generation),
            )
        self._connection.commit()


@contextmanager
def open_ledger(postgres_url: str) -> Iterator[Ledger]:
    """Open the ledger for one synchronisation; a second one waits until this one is done."""
    with connect(postgres_url, autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(%s)", (_SYNC_LOCK,))
        with arrow_connection(postgres_url) as connection:
            yield Ledger(connection)
