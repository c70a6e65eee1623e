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
    from leadml_pipelines.serving.redis_state import RedisState

BATCH = 5000
"""Invalidations that are delivered at once."""
POLL_SECONDS = 1.0
"""Seconds between two looks for what was not delivered."""
AHEAD = "5 seconds"
"""How long before its time Redis is told of an event that is dated ahead. More than `POLL_SECONDS`:
a read right after that time must see it. Less than what Redis refuses as the future."""
KEPT = "2 days"
"""How long delivered invalidations are remembered, for snapshots published late."""

_PRUNE_EVERY = 600

log = structlog.get_logger(__name__)

Waiting = tuple[int, str, str, datetime, datetime]
"""Id in the outbox, entity type, entity id, when it is due, PostgreSQL's clock after the commit."""


def keep(
    connection: psycopg.Connection[Any], entities: Iterable[tuple[str, str, datetime | None]]
) -> None:
    """Note, in the caller's transaction, that values of entities are not true from a moment on.

    Args:
        connection: In the transaction that makes them untrue.
        entities: Type and id of each, and the moment: now if None or past.
    """
    rows = list(dict.fromkeys(entities))
    if rows:
        connection.execute(
            "INSERT INTO leadml.invalidations (entity_type, entity_id, due_at) "
            "SELECT kind, name, GREATEST(clock_timestamp(), due) "
            "FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS new (kind, name, due)",
            tuple(list(column) for column in zip(*rows, strict=True)),
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
        self._instance: str | None = None
        self._looking = threading.Lock()

    def deliver(self, entity_ids: Sequence[str] | None = None) -> int:
        """Tell Redis what is waiting, dated by PostgreSQL's clock after the commit.

        What is dated a little ahead is told already, dated by its own time: until then its entities
        are computed at each read, and nothing from before that time can be written.

        Args:
            entity_ids: Only these entities; all if None.

        Returns:
            How many invalidations were delivered.

        Raises:
            PostgresUnavailableError, StatementFailedError: PostgreSQL can't say.
            redis.RedisError: Redis did not take them; they go on waiting.
        """
        # If another Redis has taken over since this was known, `catch_up` delivers them again.
        told = self._instance or self._look()
        delivered = 0
        while True:
            waiting = self._connections.run(lambda connection: _waiting(connection, entity_ids))
            if waiting:
                self._tell(waiting)
                ids = [row[0] for row in waiting]
                self._connections.run(lambda connection: _mark(connection, ids, told))  # noqa: B023
                delivered += len(waiting)
            if len(waiting) < BATCH:
                break
        if told != self._instance:
            # Another Redis took over meanwhile: some may be marked since what it lacks was looked
            # for. It is looked for again.
            self._instance = None
        return delivered

    def catch_up(self) -> int:
        """Tell Redis all that it does not know, and what it may have lost since it was told.

        A Redis that was started from an older file, or a replica that took over, may hold values
        from before events of which the one before it had been told.

        Returns:
            How many invalidations were delivered.

        Raises:
            PostgresUnavailableError, StatementFailedError, redis.RedisError: as `deliver`.
        """
        self._look()
        return self.deliver()

    def waiting(self) -> int:
        """How many invalidations Redis should know and does not."""
        return self._connections.run(_count)

    def ping(self) -> None:
        """Ask Redis alone for a sign of life.

        Raises:
            redis.RedisError: there is none.
        """
        self._store.ping()

    def prune(self) -> None:
        """Forget what was delivered long ago."""
        self._connections.run(_prune)

    def _look(self) -> str:
        """Which Redis answers; what another one was told is waiting again, while it matters."""
        with self._looking:
            try:
                instance = self._store.instance()
            except redis.exceptions.NoPermissionError:
                # Said once: it does not come to pass again for this process.
                if self._instance is None:
                    log.warning("redis_info_not_permitted", way_out="permit the user INFO")
                instance = "unknown"
            if instance != self._instance:
                # Known before the rows are changed: `deliver` must notice what it marks after that.
                self._instance = instance
                life = self._store.longest_life_seconds
                try:
                    again = self._connections.run(lambda it: _reopen(it, instance, life))
                except BaseException:
                    self._instance = None
                    raise
                if again:
                    log.info("invalidations_told_again", count=again)
            return instance

    def _tell(self, waiting: Sequence[Waiting]) -> None:
        now = max(row[4] for row in waiting)
        groups: dict[tuple[str, bool], dict[str, datetime]] = {}
        for _, entity_type, entity_id, due, _ in waiting:
            # What can be no key was never put online.
            if is_allowed_id(entity_id):
                groups.setdefault((entity_type, due > now), {})[entity_id] = due
        for (entity_type, ahead), entities in groups.items():
            known = max(entities.values()) if ahead else now
            moment = known
            if self._clock == "data":
                moment = self._connections.run(
                    lambda connection: _present(connection, entity_type)  # noqa: B023
                )
            self._invalidate(entity_type, list(entities), moment, known)

    def _invalidate(
        self, entity_type: str, ids: list[str], moment: datetime, known: datetime
    ) -> None:
        try:
            told = self._store.invalidate(entity_type, ids, moment, known)
        except redis.ResponseError as error:
            # Without memory nothing can be written, but what is untrue can still be removed.
            log.warning("invalidated_by_removal", error=type(error).__name__)
            self._store.forget(entity_type, ids)
            return
        if told.future:
            # PostgreSQL's clock is far ahead of Redis's: nothing dated by it is taken.
            log.error("clocks_differ", entity_type=entity_type, refused=told.future)
            self._store.forget(entity_type, ids)


def deliver_now(outbox: Outbox, redis_state: RedisState, entity_ids: Sequence[str]) -> bool:
    """Tell Redis of entities whose values were made untrue, right after the commit.

    Args:
        outbox: What to deliver.
        redis_state: Whether Redis can be told now; it hears of a failure.
        entity_ids: The entities.

    Returns:
        Whether Redis knows. If not, the notes wait for the `Courier`, and what Redis holds is
        doubted until then.
    """
    if not entity_ids:
        return True
    if redis_state.usable():
        try:
            outbox.deliver(entity_ids)
        except redis.RedisError as error:
            redis_state.note_failure(error)
        except (PostgresUnavailableError, StatementFailedError) as error:
            log.warning("invalidations_wait", error=str(error))
        else:
            return True
    # Somebody may be about to believe Redis again who looked before these notes were there.
    redis_state.note_untold()
    return False


class Courier:
    """A thread that delivers what requests could not, and finds out when a server is back.

    Args:
        outbox: What to deliver.
        redis_state: Told when Redis fails, and when it can be used and believed again.
        metrics: Where the number that waits is shown.

    Attributes:
        postgres_away: Whether PostgreSQL could not be asked at the last look.
    """

    def __init__(self, outbox: Outbox, redis_state: RedisState, metrics: Metrics) -> None:
        self._outbox = outbox
        self._redis_state = redis_state
        self._metrics = metrics
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self.postgres_away = False

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
        while not self._ends.is_set():
            try:
                if self.look() and rounds % _PRUNE_EVERY == 0:
                    self._outbox.prune()
            except (PostgresUnavailableError, StatementFailedError) as error:
                log.warning("invalidations_not_pruned", error=str(error))
            except Exception:
                # Without this thread nothing would be delivered any more.
                log.exception("courier_failed")
            rounds += 1
            self._ends.wait(POLL_SECONDS)

    def look(self) -> bool:
        """Look at both servers once and deliver what waits; whether all is well."""
        notes = self._redis_state.notes()
        try:
            waiting = self._outbox.waiting()
            self._note_postgres(None)
            self._metrics.invalidations_waiting.set(waiting)
            self._outbox.catch_up()
            self._metrics.invalidations_waiting.set(0)
        except (PostgresUnavailableError, StatementFailedError) as error:
            self._note_postgres(error)
            self._try_redis(notes)
            return False
        except redis.ResponseError as error:
            # It answers, and does not take what it should know.
            self._redis_state.note_failure(error)
            self._redis_state.note_back(notes, told=False)
            self._redis_state.note_untold()
            return False
        except redis.RedisError as error:
            self._redis_state.note_failure(error)
            return False
        self._redis_state.note_back(notes, told=True)
        return True

    def _try_redis(self, notes: int) -> None:
        """Use Redis again if it answers, though nobody can say what it was not told."""
        try:
            self._outbox.ping()
        except redis.RedisError as error:
            self._redis_state.note_failure(error)
        else:
            self._redis_state.note_back(notes, told=False)

    def _note_postgres(self, error: Exception | None) -> None:
        # Said once per outage.
        if error is not None and not self.postgres_away:
            log.warning("invalidations_wait", error=str(error))
        self.postgres_away = error is not None


def _waiting(
    connection: psycopg.Connection[Any], entity_ids: Sequence[str] | None
) -> list[Waiting]:
    query = (
        "SELECT id, entity_type, entity_id, due_at, clock_timestamp() FROM leadml.invalidations "
        "WHERE delivered_at IS NULL AND due_at <= clock_timestamp() + %s::interval"
    )
    if entity_ids is None:
        return connection.execute(f"{query} LIMIT %s".encode(), (AHEAD, BATCH)).fetchall()
    query += " AND entity_type = ANY(%s) AND entity_id = ANY(%s) LIMIT %s"
    values = (AHEAD, list(ENTITY_TYPES), list(entity_ids), BATCH)
    return connection.execute(query.encode(), values).fetchall()


def _mark(connection: psycopg.Connection[Any], ids: list[int], told: str) -> None:
    connection.execute(
        "UPDATE leadml.invalidations SET delivered_at = now(), told = %s WHERE id = ANY(%s)",
        (told, ids),
    )


def _reopen(connection: psycopg.Connection[Any], instance: str, life_seconds: float) -> int:
    """Let wait again what another Redis was told, while a value of before may still live."""
    return connection.execute(
        "UPDATE leadml.invalidations SET delivered_at = NULL "
        "WHERE delivered_at IS NOT NULL AND told IS DISTINCT FROM %s "
        "AND due_at > now() - make_interval(secs => %s)",
        (instance, life_seconds),
    ).rowcount


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM leadml.invalidations "
        "WHERE delivered_at IS NULL AND due_at <= clock_timestamp() + %s::interval",
        (AHEAD,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _prune(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "DELETE FROM leadml.invalidations "
        "WHERE delivered_at IS NOT NULL AND due_at < now() - %s::interval",
        (KEPT,),
    )


def _present(connection: psycopg.Connection[Any], entity_type: str) -> datetime:
    row = connection.execute(f"SELECT {present_sql('data', entity_type)}".encode()).fetchone()
    if row is None:
        raise AssertionError("unreachable")
    present: datetime = row[0]
    return present
