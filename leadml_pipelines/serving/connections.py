"""Connections to PostgreSQL that stay open between requests, and what is said when it is away."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from leadml_pipelines.postgres import SilentServerError, connect

TURN_WAIT = 2.0
"""Seconds that a caller waits for its turn before it is refused."""
REST = 0.5
"""Seconds for which PostgreSQL is left alone after it could not be reached."""
GRACE = 0.5
"""Seconds that an answer may be late after a statement's time is up: the server's own limit comes
first, and this one only where the server is frozen."""

# A lost server is noticed in two seconds, also by a connection that was open before.
_LIMITS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 2000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}

T = TypeVar("T")


class PostgresUnavailableError(RuntimeError):
    """PostgreSQL can't be reached, or has no time; the message is the kind of the error alone."""


class StatementFailedError(RuntimeError):
    """PostgreSQL is there and could not do it; the message is the kind of the error alone."""


class Connections:
    """Up to so many connections at once, each used again and again. Safe to share.

    Args:
        url: `postgresql://...`.
        size: Connections at the most; further callers wait for their turn.
        session: Statements that each new connection begins with.
        statement_seconds: How long one statement may take.
    """

    def __init__(
        self, url: str, size: int, session: Sequence[str] = (), *, statement_seconds: float = 5.0
    ) -> None:
        self._url = make_conninfo(url, **_LIMITS)
        timeout = f"SET statement_timeout = {int(statement_seconds * 1000)}"
        self._session = (*session, timeout)
        self._answer_seconds = statement_seconds + GRACE
        self._turns = threading.BoundedSemaphore(size)
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue(size)
        self._rests_until = 0.0

    def run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Do some work over a connection in autocommit mode, which it leaves outside a transaction.

        It is done again where the server had closed the connection since its last use, so it must
        be something that may be done twice.

        Raises:
            PostgresUnavailableError: PostgreSQL can't be reached, or all connections are busy.
            StatementFailedError: it was reached, and refused.
        """
        self._refuse_while_it_rests()
        if not self._turns.acquire(timeout=TURN_WAIT):
            raise PostgresUnavailableError("busy")
        try:
            # Whose turn this was may have found out meanwhile.
            self._refuse_while_it_rests()
            return self._run(work)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        while True:
            connection, reused = self._take()
            try:
                answer = work(connection)
            except BaseException as error:
                broken = connection.broken or connection.closed
                if not isinstance(error, psycopg.Error):
                    connection.close()
                    raise
                # A server that was started again has closed the connections of before.
                if broken and reused and not isinstance(error, SilentServerError):
                    continue
                if broken:
                    raise self._unavailable(error) from error
                self._idle.put_nowait(connection)
                raise StatementFailedError(type(error).__name__) from error
            self._idle.put_nowait(connection)
            return answer

    def _take(self) -> tuple[psycopg.Connection[Any], bool]:
        """An open connection, and whether it was used before."""
        try:
            return self._idle.get_nowait(), True
        except queue.Empty:
            pass
        try:
            connection = connect(self._url, answer_seconds=self._answer_seconds, autocommit=True)
        except psycopg.Error as error:
            raise self._unavailable(error) from error
        try:
            for statement in self._session:
                connection.execute(statement.encode())
        except psycopg.Error as error:
            connection.close()
            raise self._unavailable(error) from error
        return connection, False

    def _refuse_while_it_rests(self) -> None:
        if time.monotonic() < self._rests_until:
            raise PostgresUnavailableError("unreachable a moment ago")

    def _unavailable(self, error: psycopg.Error) -> PostgresUnavailableError:
        self._rests_until = time.monotonic() + REST
        # Only the kind: a driver's message may quote the address.
        return PostgresUnavailableError(type(error).__name__)
