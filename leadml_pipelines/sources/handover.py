"""Assignments that follow from events, derived inside PostgreSQL from the events that are there.

Deriving from the loaded events, and not from the file, makes it right across batches, files and
later imports: when more files extend a case, its assignments are derived anew as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from leadml_pipelines.sources.mapping import Handover

_LOCK = 0x1EAD_0002
"""Key of the advisory lock under which one import at a time derives assignments."""


@dataclass(frozen=True)
class Derived:
    """What deriving did to the assignments: rows written, rows as they were, rows removed."""

    written: int
    unchanged: int
    removed: int


def derive_assignments(
    connection: psycopg.Connection[Any], handover: Handover, touched: str, schema: str = "crm"
) -> Derived:
    """Derive the assignments of the leads in the temporary table `touched (lead_id)`.

    Who does the first event that fits is assigned from then until another agent does one. Of two
    agents at the very same time the one of the later event id counts. Runs in a transaction.
    """
    conditions = [_condition(name, patterns) for name, patterns in handover.when.items()]
    names = {
        "events": sql.Identifier(schema, "lead_events"),
        "assignments": sql.Identifier(schema, "assignments"),
        "touched": sql.Identifier("pg_temp", touched),
        "fits": sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"),
    }
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(sql.SQL("ANALYZE {touched}").format(**names))
        connection.execute(
            sql.SQL(
                "CREATE TEMP TABLE derived ON COMMIT DROP AS WITH worked AS ("
                " SELECT DISTINCT ON (e.lead_id, e.occurred_at)"
                " e.lead_id, e.occurred_at, e.agent_id"
                " FROM {events} e JOIN {touched} USING (lead_id)"
                " WHERE e.agent_id IS NOT NULL AND {fits}"
                " ORDER BY e.lead_id, e.occurred_at, e.event_id DESC), changes AS ("
                " SELECT *, lag(agent_id) OVER w IS DISTINCT FROM agent_id AS changed FROM worked"
                " WINDOW w AS (PARTITION BY lead_id ORDER BY occurred_at))"
                " SELECT lead_id, agent_id, occurred_at AS assigned_at,"
                " lead(occurred_at) OVER (PARTITION BY lead_id ORDER BY occurred_at) AS ended_at"
                " FROM changes WHERE changed"
            ).format(**names)
        )
        removed = connection.execute(
            sql.SQL(
                "DELETE FROM {assignments} a USING {touched} t WHERE a.lead_id = t.lead_id"
                " AND NOT EXISTS (SELECT FROM pg_temp.derived d WHERE d.lead_id = a.lead_id"
                " AND d.agent_id = a.agent_id AND d.assigned_at = a.assigned_at)"
            ).format(**names)
        ).rowcount
        written = connection.execute(
            sql.SQL(
                "INSERT INTO {assignments} AS a (lead_id, agent_id, assigned_at, ended_at)"
                " SELECT lead_id, agent_id, assigned_at, ended_at FROM pg_temp.derived"
                " ORDER BY 1, 2, 3 ON CONFLICT (lead_id, agent_id, assigned_at) DO UPDATE"
                " SET ended_at = excluded.ended_at"
                " WHERE a.ended_at IS DISTINCT FROM excluded.ended_at"
            ).format(**names)
        ).rowcount
        found = connection.execute("SELECT count(*) FROM pg_temp.derived").fetchone()
    total = found[0] if found else 0
    return Derived(written=written, unchanged=total - written, removed=removed)


def _condition(name: str, patterns: tuple[str, ...]) -> sql.Composable:
    prefix, _, key = name.partition(".")
    if prefix == "properties" and key:
        value: sql.Composable = sql.SQL("e.properties ->> {}").format(sql.Literal(key))
    else:
        value = sql.Identifier("e", name)
    like = sql.Literal([_like(pattern) for pattern in patterns])
    return sql.SQL("({} LIKE ANY ({}))").format(value, like)


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")
