"""The outbox of invalidations: written with the event, delivered to Redis until it has them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import redis
import structlog

from leadml_pipelines.features.entity_types import ENTITY_TYPES
from leadml_pipelines.features.present import Clock, present_sql
from leadml_pipelines.online.keys import is_allowed_id
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.serving.metrics import Metrics

BATCH = 5000
"""Invalidations that are delivered at once."""
POLL_SECONDS = 1.0
"""Seconds between two looks for what was not delivered."""
KEPT = "2 days"
"""How long delivered invalidations are remembered, for snapshots published late."""

_PRUNE_EVERY = 600

log = structlog.get_logger(__name__)

Waiting = tuple[int, str, str, datetime]
"""Id in the outbox, entity type, entity id, PostgreSQL's clock after it was committed."""


def keep(connection: psycopg.Connection[Any], entities: Iterable[tuple[str, str]]) -> None:
    """Note, in the caller's transaction, that values of entities are no longer true.

    Args:
        connection: In the transaction that makes them untrue.
        entities: Type and id of each.
    """
    pairs = sorted(set(entities))
    if pairs:
        connection.execute(
            "INSERT INTO leadml.invalidations (entity_type, entity_id) "
            "SELECT * FROM unnest(%s::text[], %s::text[])",
            ([kind for kind, _ in pairs], [name for _, name in pairs]),
        )


class Outbox:
    """Delivers invalidations. Several processes may do so at once: one said twice is as good.

    Args:
        connections: To PostgreSQL.
        store: The online store.
        clock: What the present is.
    """

    def __init__(self, connections: Connections, store: OnlineStore, clock: Clock = "now") -> None:
        self._connections = connections
        self._store = store
        self._clock = clock

    def deliver(self, entity_ids: Sequence[str] | None = None) -> int:
        """Tell Redis what is waiting, dated by PostgreSQL's clock after the commit.

        Args:
            entity_ids: Only these entities; all if None.

        Returns:
            How many invalidations were delivered.

        Raises:
            PostgresUnavailableError, StatementFailedError: PostgreSQL can't say.
            redis.RedisError: Redis did not take them; they go on waiting.
        """
        delivered = 0
        while True:
            waiting = self._connections.run(lambda connection: _waiting(connection, entity_ids))
            if waiting:
                self._tell(waiting)
                ids = [row[0] for row in waiting]
                self._connections.run(lambda connection: _mark(connection, ids))  # noqa: B023
                delivered += len(waiting)
            if len(waiting) < BATCH:
                return delivered

    def catch_up(self) -> None:
        """Tell Redis all that it missed, as far as PostgreSQL can say now.

        Raises:
            redis.RedisError: Redis is still away.
        """
        try:
            self.deliver()
        except (PostgresUnavailableError, StatementFailedError) as error:
            # Cached values are worth more than no answer; the courier goes on trying.
            log.warning("invalidations_wait", error=str(error))

    def waiting(self) -> int:
        """How many invalidations are not delivered."""
        return self._connections.run(_count)

    def prune(self) -> None:
        """Forget what was delivered long ago."""
        self._connections.run(_prune)

    def _tell(self, waiting: Sequence[Waiting]) -> None:
        by_type: dict[str, dict[str, None]] = {}
        for _, entity_type, entity_id, _ in waiting:
            # What can be no key was never put online.
            if is_allowed_id(entity_id):
                by_type.setdefault(entity_type, {})[entity_id] = None
        now = max(row[3] for row in waiting)
        for entity_type, names in by_type.items():
            ids = list(names)
            moment = now
            if self._clock == "data":
                moment = self._connections.run(
                    lambda connection: _present(connection, entity_type)  # noqa: B023
                )
            told = self._store.invalidate(entity_type, ids, moment, now)
            if told.future:
                # PostgreSQL's clock is far ahead of Redis's: nothing dated by it is taken.
                log.error("clocks_differ", entity_type=entity_type, refused=told.future)
                self._store.forget(entity_type, ids)


class Courier:
    """A thread that delivers what requests could not.

    Args:
        outbox: What to deliver.
        metrics: Where the number that waits is shown.
    """

    def __init__(self, outbox: Outbox, metrics: Metrics) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="invalidations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        rounds = 0
        failing = ""
        while not self._ends.wait(POLL_SECONDS):
            try:
                waiting = self._outbox.waiting()
                self._metrics.invalidations_waiting.set(waiting)
                if waiting:
                    self._outbox.deliver()
                    self._metrics.invalidations_waiting.set(0)
                if rounds % _PRUNE_EVERY == 0:
                    self._outbox.prune()
            except Exception as error:
                # Said once per outage. It goes on trying whatever it is: nobody else delivers.
                kinds = (redis.RedisError, PostgresUnavailableError, StatementFailedError)
                if failing != type(error).__name__:
                    foreseen = isinstance(error, kinds)
                    kind = type(error).__name__
                    log.warning("invalidations_wait", error=kind, exc_info=not foreseen)
                failing = type(error).__name__
            else:
                failing = ""
                rounds += 1


def _waiting(
    connection: psycopg.Connection[Any], entity_ids: Sequence[str] | None
) -> list[Waiting]:
    query = (
        "SELECT id, entity_type, entity_id, clock_timestamp() FROM leadml.invalidations "
        "WHERE delivered_at IS NULL"
    )
    if entity_ids is None:
        return connection.execute(f"{query} LIMIT %s".encode(), (BATCH,)).fetchall()
    query += " AND entity_type = ANY(%s) AND entity_id = ANY(%s) LIMIT %s"
    values = (list(ENTITY_TYPES), list(entity_ids), BATCH)
    return connection.execute(query.encode(), values).fetchall()


def _mark(connection: psycopg.Connection[Any], ids: list[int]) -> None:
    connection.execute(
        "UPDATE leadml.invalidations SET delivered_at = now() WHERE id = ANY(%s)", (ids,)
    )


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM leadml.invalidations WHERE delivered_at IS NULL"
    ).fetchone()
    return 0 if row is None else int(row[0])


def _prune(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "DELETE FROM leadml.invalidations "
        "WHERE delivered_at IS NOT NULL AND stored_at < now() - %s::interval",
        (KEPT,),
    )


def _present(connection: psycopg.Connection[Any], entity_type: str) -> datetime:
    row = connection.execute(f"SELECT {present_sql('data', entity_type)}".encode()).fetchone()
    if row is None:
        raise AssertionError("unreachable")
    present: datetime = row[0]
    return present
