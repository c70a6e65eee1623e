"""PostgreSQL: connections, versioned migrations, and bulk reading and writing through Arrow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo

_SESSION = "-c timezone=UTC"
_MIGRATION_LOCK = 0x1EAD_0001
"""Key of the advisory lock that lets one process migrate at a time."""

T = TypeVar("T")


class SilentServerError(psycopg.OperationalError):
    """The server did not answer in time, and its connection was closed."""


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever.

    Time limits of PostgreSQL are kept by the server, and those of TCP by its kernel: a server that
    is frozen (stopped, or waiting for its disk) while its kernel lives keeps none of them.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """As in psycopg, which looks at the clock every tenth of a second."""
        if self.answer_seconds is None:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_ended_after(self.answer_seconds, gen), *args, **options)
        except SilentServerError:
            self.close()
            raise


def _ended_after(seconds: float, gen: PQGen[T]) -> PQGen[T]:
    """A generator of psycopg's, until it has waited so long."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise SilentServerError(
                    f"PostgreSQL gave no answer in {seconds:g} s; look whether it is overloaded or "
                    "frozen"
                )
            wanted = gen.send(ready)
    except StopIteration as end:
        found: T = end.value
        return found


def connect(
    url: str, *, answer_seconds: float | None = None, **options: Any
) -> psycopg.Connection[Any]:
    """Open a connection whose session speaks UTC, so that every engine agrees on hours and days.

    Args:
        url: `postgresql://...`.
        answer_seconds: How long to wait for each answer before the connection is closed with a
            `SilentServerError`; None: for ever. Longer than the server's own limits, which leave
            the connection in order.
        options: passed to `psycopg.connect`, for example `autocommit=True`.

    Raises:
        SilentServerError: the server did not let us in within the `connect_timeout` of the options.
    """
    try:
        connection = _Connection.connect(url, options=_SESSION, **options)
    except psycopg.errors.ConnectionTimeout as error:
        raise SilentServerError(
            "PostgreSQL did not let us in in time; look whether it is overloaded or frozen"
        ) from error
    connection.answer_seconds = answer_seconds
    return connection


@contextmanager
def arrow_connection(url: str) -> Iterator[Any]:
    """Open an ADBC connection: a DB-API connection whose cursors speak Arrow.

    Commit is explicit: leaving the block without `connection.commit()` undoes what was written.
    """
    from adbc_driver_postgresql import dbapi

    connection = dbapi.connect(make_conninfo(url, options=_SESSION))
    try:
        yield connection
    finally:
        connection.close()


def migrate(url: str) -> list[str]:
    """Bring the database up to date and return the names of the migrations that were applied.

    Each `leadml_pipelines/migrations/NNNN_<room>.sql` runs once, in the order of its name, in a
    transaction of its own together with its entry in `leadml.migrations`. Several processes may
    call this at once; one works, the others wait.
    """
    applied: list[str] = []
    with connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS leadml")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS leadml.migrations ("
            " name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row[0] for row in connection.execute("SELECT name FROM leadml.migrations")}
        for name, sql in _migrations():
            if name in done:
                continue
            with connection.transaction():
                connection.execute(sql.encode())
                connection.execute("INSERT INTO leadml.migrations (name) VALUES (%s)", (name,))
            applied.append(name)
    return applied


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("leadml_pipelines") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(f.name.removesuffix(".sql"), f.read_text(encoding="utf-8")) for f in files]
