"""PostgreSQL: connections, versioned migrations, and bulk reading and writing through Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

_SESSION = "-c timezone=UTC"
_MIGRATION_LOCK = 0x1EAD_0001
"""Key of the advisory lock that lets one process migrate at a time."""


def connect(url: str, **options: Any) -> psycopg.Connection[Any]:
    """Open a connection whose session speaks UTC, so that every engine agrees on hours and days.

    Args:
        url: `postgresql://...`.
        options: passed to `psycopg.connect`, for example `autocommit=True`.
    """
    return psycopg.connect(url, options=_SESSION, **options)


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
