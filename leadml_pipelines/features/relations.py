"""What a view may read: rows of the source tables that were known at the spine's moment.

A view never joins a source table by itself. It reads a relation, and the rule of the two clocks is
in the relation, in one place: `Known` pairs each row of the spine with the rows known at its
`as_of`, `Latest` with the one newest row, `Totals` with aggregates over all that were known,
`CurrentAgent` with the agent of that moment. None can show the future, whatever the view does.
"""

from __future__ import annotations

from leadml_pipelines.features.relation_kinds import (
    DOUBLE,
    INTEGER,
    MONEY,
    TEXT,
    TIME,
    CurrentAgent,
    Known,
    Latest,
    Relation,
    Total,
    Totals,
)

WINDOW_DAYS = 90
"""How far back `recent_events` and its like go: the longest window of the built-in views."""

_ATTRIBUTES = {
    "source": TEXT,
    "campaign_id": TEXT,
    "product_interest": TEXT,
    "state": TEXT,
    "household_id": TEXT,
    "attributes": TEXT,
}
_EVENT = {
    "event_type": TEXT,
    "channel": TEXT,
    "direction": TEXT,
    "agent_id": TEXT,
    "value": MONEY,
    "properties": TEXT,
    "occurred_at": TIME,
}
_EVENT_CLOCKS = ("occurred_at", "ingested_at")
# A customer's view need not tell when it knew; the extract fills it in the same way.
_EVENT_INSTEAD = {"ingested_at": "occurred_at"}

_ALL: tuple[Relation, ...] = (
    # `leads` holds the present; only the moment of creation may be read from it.
    Known("lead_created", "leads", "lead_id", ("created_at",), {"created_at": TIME}),
    Latest("lead_profile", "lead_versions", "lead_id", "valid_from", _ATTRIBUTES),
    Known("known_events", "lead_events", "lead_id", _EVENT_CLOCKS, _EVENT, instead=_EVENT_INSTEAD),
    Known(
        "recent_events",
        "lead_events",
        "lead_id",
        _EVENT_CLOCKS,
        _EVENT,
        instead=_EVENT_INSTEAD,
        within_days=WINDOW_DAYS,
    ),
    Totals(
        "event_totals",
        "lead_events",
        "lead_id",
        clock="occurred_at",
        known="ingested_at",
        totals={
            "event_count": Total("count"),
            "first_event_at": Total("min"),
            "last_event_at": Total("max"),
            "first_inbound_at": Total("min", "direction = 'inbound'"),
            "last_inbound_at": Total("max", "direction = 'inbound'"),
            "first_outbound_at": Total("min", "direction = 'outbound'"),
            "last_outbound_at": Total("max", "direction = 'outbound'"),
            "first_agent_at": Total("min", "agent_id IS NOT NULL"),
        },
    ),
    Known(
        "known_policies",
        "policies",
        "lead_id",
        ("bound_at",),
        {"product": TEXT, "annual_premium": MONEY, "bound_at": TIME, "cancelled_at": TIME},
        masked=("cancelled_at",),
    ),
    Known(
        "known_closures", "closures", "lead_id", ("closed_at",), {"closed_at": TIME, "reason": TEXT}
    ),
    Known(
        "known_assignments",
        "assignments",
        "lead_id",
        ("assigned_at",),
        {"agent_id": TEXT, "assigned_at": TIME, "ended_at": TIME},
        masked=("ended_at",),
    ),
    Known(
        "referrals_made",
        "referrals",
        "from_lead_id",
        ("referred_at",),
        {"to_lead_id": TEXT, "referred_at": TIME},
    ),
    Known(
        "referrals_received",
        "referrals",
        "to_lead_id",
        ("referred_at",),
        {"from_lead_id": TEXT, "referred_at": TIME},
    ),
    Latest(
        "lead_graph",
        "graph_metrics",
        "entity_id",
        "as_of",
        {
            "degree": INTEGER,
            "degree_referral": INTEGER,
            "degree_referral_made": INTEGER,
            "degree_referral_received": INTEGER,
            "degree_household": INTEGER,
            "degree_assignment": INTEGER,
            "pagerank": DOUBLE,
            "betweenness": DOUBLE,
            "closeness": DOUBLE,
            "clustering": DOUBLE,
            "core": INTEGER,
            "community_size": INTEGER,
            "community_share": DOUBLE,
            "community_conversion_rate": DOUBLE,
            "referral_depth": INTEGER,
            "referral_descendants": INTEGER,
            "household_size": INTEGER,
            "household_conversions": INTEGER,
            "nodes": INTEGER,
        },
        where={"entity_type": "lead"},
    ),
    CurrentAgent(
        "current_agent",
        agents={"specialty": TEXT},
        metrics={"agent_load": INTEGER, "agent_conversion_rate": DOUBLE},
    ),
    # Agents. Of an agent only `hired_at` has a time; specialty and capacity are as of now.
    Known(
        "agent_profile",
        "agents",
        "agent_id",
        ("hired_at",),
        {"hired_at": TIME, "specialty": TEXT, "capacity": INTEGER},
        always=("hired_at",),
    ),
    Known(
        "agent_assignments",
        "assignments",
        "agent_id",
        ("assigned_at",),
        {"lead_id": TEXT, "assigned_at": TIME, "ended_at": TIME},
        masked=("ended_at",),
    ),
    # Who was on the lead when the policy was bound has sold it. An end after the moment of the
    # spine lies after the binding too, so that it needs no mask.
    Known(
        "agent_sales",
        "assignments",
        "agent_id",
        ("bound_at",),
        {"lead_id": TEXT, "product": TEXT, "annual_premium": MONEY, "bound_at": TIME},
        joined=("policies",),
        source=(
            # An agent may have had the lead twice at once.
            "SELECT DISTINCT a.agent_id, p.policy_id, p.lead_id, p.product, p.annual_premium, "
            "p.bound_at FROM {assignments} AS a JOIN {policies} AS p ON p.lead_id = a.lead_id "
            "AND p.bound_at >= a.assigned_at AND (a.ended_at IS NULL OR p.bound_at < a.ended_at)"
        ),
    ),
    Known(
        "agent_events",
        "lead_events",
        "agent_id",
        _EVENT_CLOCKS,
        {"lead_id": TEXT, **_EVENT},
        instead=_EVENT_INSTEAD,
        within_days=WINDOW_DAYS,
    ),
    # What an agent did on a lead since it was theirs; one row per assignment and event.
    Known(
        "agent_touches",
        "assignments",
        "agent_id",
        ("assigned_at", "occurred_at", "ingested_at"),
        {"lead_id": TEXT, "assigned_at": TIME, "occurred_at": TIME},
        instead=_EVENT_INSTEAD,
        within_days=WINDOW_DAYS,
        joined=("lead_events",),
        source=(
            "SELECT a.agent_id, a.lead_id, a.assigned_at, e.occurred_at, e.ingested_at "
            "FROM {assignments} AS a JOIN {lead_events} AS e ON e.lead_id = a.lead_id "
            "AND e.agent_id = a.agent_id AND e.occurred_at >= a.assigned_at"
        ),
    ),
)

RELATIONS: dict[str, Relation] = {relation.name: relation for relation in _ALL}
"""Every relation by name. `spine` itself (entity_id, as_of) can be read under that name too."""

SOURCE_TABLES: tuple[str, ...] = tuple(
    dict.fromkeys(table for relation in _ALL for table in relation.tables)
)
"""The tables that relations read."""


def columns_of(relation: Relation) -> dict[str, str]:
    """Column name -> type of a relation as views see it, keys included."""
    return {"entity_id": TEXT, "as_of": TIME, **relation.all_columns}
