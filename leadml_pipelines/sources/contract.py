"""The contract with the customer's data: tables, columns, types, and the typed lead attributes.

Everything that reads or writes a source table asks here for names and types; nothing else spells
them out. The SQL of the same tables is `migrations/0001_crm.sql`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Type = Literal["text", "timestamp", "numeric", "integer", "json"]
"""`timestamp`: UTC, microseconds; `json`: an object; `numeric`: exact, `Column.scale` digits."""

DIRECTIONS = ("inbound", "outbound", "internal")
PRECISION = 18
"""Digits of every `numeric` column, all together."""

MAX_ID_LENGTH = 200
"""Characters of an id (a column whose name ends in `_id`); a longer one does not fit an index."""

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""A time before this is impossible: no CRM is older, and an empty date often reads as 1970."""

FUTURE_TOLERANCE = timedelta(days=1)
"""How far past the present a time may lie before it is impossible."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far the second of two clocks may be behind the first before it counts as end before start."""


@dataclass(frozen=True)
class Column:
    """A column of a source table.

    Attributes:
        name: As in the database.
        type: What it holds.
        required: Whether a row without it is refused (a default counts as a value).
        scale: Digits after the point of a `numeric`.
        minimum: Smallest allowed number.
        choices: The only allowed texts; empty when any will do.
        default: Column whose value stands in for a missing one, or None.
    """

    name: str
    type: Type
    required: bool = True
    scale: int = 0
    minimum: int | None = None
    choices: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True)
class Span:
    """Two times of a row, in their order.

    Attributes:
        start: Column of the earlier time.
        end: Column of the later time; a missing one is no fault.
        skew: How much earlier than `start` the `end` may be, where two clocks wrote them.
    """

    start: str
    end: str
    skew: timedelta = timedelta(0)


@dataclass(frozen=True)
class Table:
    """A source table.

    Attributes:
        name: As in the database.
        columns: In the order of the contract.
        key: Columns that name a row.
        leads: Columns that must name a lead that exists.
        spans: Times in their order; an end before its start is refused.
        fills: Columns that may go from null to a value for a key that is already there.
        version: Column by which the newer of two rows with the same key wins, or None.
        fixed: Columns that even a newer version may not change.
        receipt: Columns that say when we got the row; a repeat may differ in them.
        happened: Times at which something happened to a lead: how far the data reach. Times of
            writing, of receipt and of an agent's entry say nothing of that.
        derived: Kept by the database itself; the door does not take rows for it.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    leads: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    fills: tuple[str, ...] = ()
    version: str | None = None
    fixed: tuple[str, ...] = ()
    receipt: tuple[str, ...] = ()
    happened: tuple[str, ...] = ()
    derived: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the columns that hold times, in order."""
        return tuple(column.name for column in self.columns if column.type == "timestamp")

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: there is none; the message lists the columns there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name}; it has {', '.join(self.names)}")


@dataclass(frozen=True)
class Attribute:
    """A known key of `leads.attributes`. All are optional; other keys are kept as they come.

    Attributes:
        name: The key.
        type: `integer`, `number`, `boolean` or `category`.
        description: What it means, with its unit.
        unit: For instance `years`; empty for categories and booleans.
        low: Smallest sensible value of a number.
        high: Largest sensible value of a number.
        choices: The values of a category, in their order.
    """

    name: str
    type: Literal["integer", "number", "boolean", "category"]
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


ATTRIBUTES: dict[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute("age", "integer", "age of the person", unit="years", low=0, high=130),
        Attribute(
            "income_band", "category", "band of the income", choices=("low", "middle", "high")
        ),
        Attribute(
            "requested_amount",
            "number",
            "amount of money or cover asked for",
            unit="currency",
            low=0,
            high=1e12,
        ),
        Attribute(
            "credit_band",
            "category",
            "band of the credit rating",
            choices=("poor", "fair", "good", "excellent"),
        ),
        Attribute("has_current_insurer", "boolean", "whether the person is insured elsewhere now"),
    )
}

_PROFILE = (
    Column("source", "text"),
    Column("campaign_id", "text", required=False),
    Column("product_interest", "text", required=False),
    Column("state", "text", required=False),
    Column("household_id", "text", required=False),
    Column("attributes", "json", required=False),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "leads",
            (
                Column("lead_id", "text"),
                Column("created_at", "timestamp"),
                *_PROFILE,
                Column("updated_at", "timestamp", default="created_at"),
            ),
            key=("lead_id",),
            spans=(Span("created_at", "updated_at", CLOCK_SKEW),),
            version="updated_at",
            fixed=("created_at",),
            happened=("created_at",),
        ),
        Table(
            "lead_versions",
            (Column("lead_id", "text"), Column("valid_from", "timestamp"), *_PROFILE),
            key=("lead_id", "valid_from"),
            derived=True,
        ),
        Table(
            "agents",
            (
                Column("agent_id", "text"),
                Column("hired_at", "timestamp", required=False),
                Column("specialty", "text", required=False),
                Column("capacity", "integer", required=False, minimum=0),
            ),
            key=("agent_id",),
            fills=("hired_at", "specialty", "capacity"),
        ),
        Table(
            "lead_events",
            (
                Column("event_id", "text"),
                Column("lead_id", "text"),
                Column("event_type", "text"),
                Column("channel", "text"),
                Column("direction", "text", choices=DIRECTIONS),
                Column("agent_id", "text", required=False),
                Column("value", "numeric", required=False, scale=4),
                Column("properties", "json", required=False),
                Column("occurred_at", "timestamp"),
                Column("ingested_at", "timestamp", default="occurred_at"),
            ),
            key=("event_id",),
            leads=("lead_id",),
            spans=(Span("occurred_at", "ingested_at", CLOCK_SKEW),),
            receipt=("ingested_at",),
            happened=("occurred_at",),
        ),
        Table(
            "assignments",
            (
                Column("lead_id", "text"),
                Column("agent_id", "text"),
                Column("assigned_at", "timestamp"),
                Column("ended_at", "timestamp", required=False),
            ),
            key=("lead_id", "agent_id", "assigned_at"),
            leads=("lead_id",),
            spans=(Span("assigned_at", "ended_at"),),
            fills=("ended_at",),
            happened=("assigned_at", "ended_at"),
        ),
        Table(
            "policies",
            (
                Column("policy_id", "text"),
                Column("lead_id", "text"),
                Column("product", "text"),
                Column("annual_premium", "numeric", scale=2, minimum=0),
                Column("bound_at", "timestamp"),
                Column("cancelled_at", "timestamp", required=False),
            ),
            key=("policy_id",),
            leads=("lead_id",),
            spans=(Span("bound_at", "cancelled_at"),),
            fills=("cancelled_at",),
            happened=("bound_at", "cancelled_at"),
        ),
        Table(
            "closures",
            (
                Column("lead_id", "text"),
                Column("closed_at", "timestamp"),
                Column("reason", "text"),
            ),
            key=("lead_id", "closed_at"),
            leads=("lead_id",),
            happened=("closed_at",),
        ),
        Table(
            "referrals",
            (
                Column("from_lead_id", "text"),
                Column("to_lead_id", "text"),
                Column("referred_at", "timestamp"),
            ),
            key=("from_lead_id", "to_lead_id"),
            leads=("from_lead_id", "to_lead_id"),
            happened=("referred_at",),
        ),
    )
}

CONTRACT_TABLES: tuple[str, ...] = (
    "leads",
    "agents",
    "lead_events",
    "assignments",
    "policies",
    "closures",
    "referrals",
)
"""The tables the door takes rows for, in an order that is safe for loading: leads come first."""

EXTRACT_TABLES: tuple[str, ...] = (*CONTRACT_TABLES, "lead_versions")
"""The tables of an extract: the contract's, and the history of the leads."""

EVENT_TYPES: dict[str, tuple[str, str]] = {
    "email_sent": ("email", "outbound"),
    "email_open": ("email", "inbound"),
    "email_click": ("email", "inbound"),
    "email_reply": ("email", "inbound"),
    "call_attempt": ("phone", "outbound"),
    "call_connected": ("phone", "outbound"),
    "call_inbound": ("phone", "inbound"),
    "page_view": ("web", "inbound"),
    "quote_request": ("web", "inbound"),
    "form_submit": ("web", "inbound"),
    "quote_sent": ("other", "outbound"),
    "document_received": ("other", "inbound"),
    "meeting": ("other", "internal"),
    "note": ("other", "internal"),
}
"""Canonical event type -> its usual (channel, direction). Other types are allowed."""


def table(name: str) -> Table:
    """The source table of that name.

    Raises:
        KeyError: there is none; the message lists the tables there are.
    """
    if name not in TABLES:
        raise KeyError(f"there is no source table {name}; there are {', '.join(TABLES)}")
    return TABLES[name]
