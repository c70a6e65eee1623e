"""Emptying tables between tests."""

from __future__ import annotations

from typing import Any

import psycopg


def empty_tables(connection: psycopg.Connection[Any], *tables: str) -> None:
    """Delete all rows of tables, named with their schemas, in this order.

    TRUNCATE makes new files for a table and each of its indexes, 20 ms apiece; for the few rows of
    a test that is most of the test.
    """
    connection.execute("; ".join(f"DELETE FROM {table}" for table in tables).encode())


def empty_registry(connection: psycopg.Connection[Any]) -> None:
    """Forget all models and trainings, what the aliases point to and every change of them.

    By TRUNCATE: a trigger keeps single changes from being deleted.
    """
    connection.execute(
        "TRUNCATE leadml.models, leadml.model_aliases, leadml.model_alias_changes, leadml.trainings"
    )


def drop_snapshots(connection: psycopg.Connection[Any]) -> None:
    """Drop the tables of all views that were written, and what is noted of their snapshots."""
    tables = connection.execute(
        "SELECT format('%I.%I', 'leadml', relname) FROM pg_class "
        "WHERE relnamespace = 'leadml'::regnamespace AND relkind = 'p' "
        "AND starts_with(relname, 'feature_')"
    ).fetchall()
    for (table,) in tables:
        connection.execute(f"DROP TABLE {table}".encode())
    empty_tables(connection, "leadml.feature_snapshots", "leadml.feature_view_snapshots")
