"""Rows that obey the contract, so that a test spells out only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from psycopg import sql

from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.tables import empty_tables

T0 = pd.Timestamp("2024-03-01 09:00", tz="UTC")
NAIVE = T0.tz_localize(None).to_pydatetime()


def leads(*ids: str, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"lead_id": pd.Series(ids, dtype="str"), "created_at": T0})
    return frame.assign(**{"source": "web", **columns})


def events(*ids: str, lead: str | Sequence[str], **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"event_id": pd.Series(ids, dtype="str")}).assign(lead_id=lead)
    values = {
        "event_type": "email_open",
        "channel": "email",
        "direction": "inbound",
        "occurred_at": T0 + pd.Timedelta("1h"),
        **columns,
    }
    return frame.assign(**values)


def assignment(lead: str, agent: str, start: Any, end: Any = None) -> pd.DataFrame:
    return pd.DataFrame(
        [{"lead_id": lead, "agent_id": agent, "assigned_at": start, "ended_at": end}]
    )


def rows(url: str, table: str, order: str = "1, 2", schema: str = "crm") -> list[dict[str, Any]]:
    """All rows of a table."""
    with connect(url) as connection:
        cursor = connection.execute(
            sql.SQL("SELECT * FROM {} ORDER BY {}").format(
                sql.Identifier(schema, table), sql.SQL(order)
            )
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def empty(url: str) -> None:
    """Empty all source tables and the quarantine."""
    with connect(url) as connection:
        empty_tables(
            connection,
            "crm.leads",
            "crm.lead_events",
            "crm.agents",
            "crm.assignments",
            "crm.policies",
            "crm.closures",
            "crm.referrals",
            "leadml.quarantine",
        )
