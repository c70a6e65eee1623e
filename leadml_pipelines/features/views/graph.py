"""The lead among others: metrics of the relationship graph, referrals and agents.

Metrics are those of the latest Monday 00:00 UTC not after `as_of`, for the present as for the past
(`graph/history.py` stores no other moment); how long ago that was is a feature of its own, and a
lead has none before its first Monday. Referrals and assignments are counted from their tables, up
to the moment itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.view import Feature, feature_view

# fmt: off
FEATURES = (
    Feature("degree", "integer", "edges", 0, None, 0,
            "Relations of the lead in the graph, campaigns aside.", "relationship"),
    Feature("degree_referral", "integer", "edges", 0, None, 0,
            "Referrals from and to the lead in the graph.", "relationship"),
    Feature("degree_household", "integer", "edges", 0, None, 0,
            "Relations through the household in the graph.", "relationship"),
    Feature("pagerank_relative", "double", "ratio", 0, None, None,
            "PageRank of the lead over that of an average node.", "relationship"),
    Feature("pagerank", "double", "share", 0, 1, None,
            "PageRank of the lead.", "relationship"),
    Feature("community_size", "integer", "nodes", 0, None, 0,
            "Nodes in the lead's community.", "relationship"),
    Feature("graph_age_days", "double", "days", 0, None, None,
            "Age of the graph metrics at the time.", "relationship"),
    Feature("household_known", "boolean", "", None, None, False,
            "Whether the lead belongs to a known household.", "relationship"),
    Feature("referral_made_count", "integer", "referrals", 0, None, 0,
            "Leads that this lead has referred.", "relationship"),
    Feature("referral_received_count", "integer", "referrals", 0, None, 0,
            "Leads that have referred this lead.", "relationship"),
    Feature("agent_assigned", "boolean", "", None, None, False,
            "Whether an agent works on the lead now.", "relationship"),
    Feature("handover_count", "integer", "hand-overs", 0, None, 0,
            "How often the lead went on to another assignment after the first.", "relationship"),
    Feature("agent_tenure_days", "double", "days", 0, None, None,
            "Days since the newest assignment that still runs; missing without one.",
            "relationship"),
)
# fmt: on


@feature_view(
    name="graph",
    entity="lead",
    description="Graph metrics, referrals and agents of a lead.",
    features=FEATURES,
    reads=(
        "spine",
        "lead_graph",
        "lead_profile",
        "known_assignments",
        "referrals_made",
        "referrals_received",
    ),
)
def graph(read: Mapping[str, Any]) -> Any:
    """One row per row of the spine."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    keys = ["entity_id", "as_of"]
    as_of = F.col("as_of")
    metrics = read["lead_graph"].select(
        *keys,
        "degree",
        "degree_referral",
        "degree_household",
        "pagerank",
        "community_size",
        (F.col("pagerank") * p.double(F.col("nodes"))).alias("pagerank_relative"),
        p.days_between(as_of, F.col("valid_from")).alias("graph_age_days"),
    )
    household = read["lead_profile"].select(
        *keys, F.col("household_id").isNotNull().alias("household_known")
    )

    def referrals(name: str, count: str) -> Any:
        rows = read[name].groupBy(*keys)
        return rows.agg(p.count_if(F.col("referred_at").isNotNull()).alias(count))

    started = F.col("assigned_at").isNotNull()
    running = F.col("ended_at").isNull()
    agents = (
        read["known_assignments"]
        .groupBy(*keys)
        .agg(
            p.count_if(started).alias("assignments"),
            p.latest_if(running, F.col("assigned_at")).alias("running_since"),
        )
        .select(
            *keys,
            (F.col("assignments") - F.lit(1)).alias("handover_count"),
            F.col("running_since").isNotNull().alias("agent_assigned"),
            p.days_between(as_of, F.col("running_since")).alias("agent_tenure_days"),
        )
    )
    return p.beside(
        read["spine"],
        metrics,
        household,
        referrals("referrals_made", "referral_made_count"),
        referrals("referrals_received", "referral_received_count"),
        agents,
    )
