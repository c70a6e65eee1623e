"""The lead among others: metrics of the relationship graph, referrals and agents.

What the metrics mean is said in `docs/graph.md`. They are those of the latest Monday 00:00 UTC not
after `as_of`, for the present as for the past (`graph/history.py` stores no other moment); how long
ago that was is a feature of its own, and a lead has none before its first Monday. Referrals and
assignments are counted from their tables, up to the moment itself; of the agent who works on the
lead at that moment, load and conversion rate are those of the latest Monday too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.phrase import Phrase, counted
from leadml_pipelines.features.view import Feature, feature_view

# fmt: off
FEATURES = (
    Feature("degree", "integer", "edges", 0, None, 0,
            "Relations of the lead in the graph, campaigns aside.", "relationship",
            phrase=counted("relation of the lead", "relations of the lead", "in the network")),
    Feature("degree_referral", "integer", "edges", 0, None, 0,
            "Referrals from and to the lead in the graph.", "relationship",
            phrase=counted("referral from or to the lead", "referrals from or to the lead",
                           "in the network")),
    Feature("degree_referral_made", "integer", "edges", 0, None, 0,
            "Referrals from the lead in the graph.", "relationship",
            phrase=counted("referral by the lead", "referrals by the lead", "in the network")),
    Feature("degree_referral_received", "integer", "edges", 0, None, 0,
            "Referrals to the lead in the graph.", "relationship",
            phrase=counted("referral of the lead", "referrals of the lead", "in the network")),
    Feature("degree_household", "integer", "edges", 0, None, 0,
            "Relations through the household in the graph.", "relationship",
            phrase=counted("relation through the household", "relations through the household")),
    Feature("degree_assignment", "integer", "edges", 0, None, 0,
            "Assignments of the lead that run, in the graph.", "relationship",
            phrase=counted("running assignment to an agent", "running assignments to an agent")),
    Feature("pagerank_relative", "double", "ratio", 0, None, None,
            "PageRank of the lead over that of an average node.", "relationship",
            phrase=Phrase("The lead's weight in the network, {value} the average,",
                          missing="The lead is not in the network yet")),
    Feature("pagerank", "double", "share", 0, 1, None,
            "PageRank of the lead.", "relationship",
            relative=True,
            phrase=Phrase("The lead's weight in the network, {value} of the whole,",
                          missing="The lead is not in the network yet")),
    Feature("betweenness", "double", "share", 0, 1, None,
            "Share of the shortest paths between others that lead through the lead.",
            "relationship",
            relative=True,
            phrase=Phrase("The lead's place on {value} of the shortest paths between others in the "
                          "network",
                          missing="The lead is not in the network yet")),
    Feature("closeness_harmonic", "double", "share", 0, 1, None,
            "Mean of one over the distance to every other node.", "relationship",
            relative=True,
            phrase=Phrase("The lead's closeness of {value} to everybody else in the network",
                          missing="The lead is not in the network yet")),
    Feature("clustering_coefficient", "double", "share", 0, 1, None,
            "Share of the pairs of the lead's neighbours that are joined themselves.",
            "relationship",
            phrase=Phrase("The lead's circle, in which {value} of the pairs know each other,",
                          none="A circle around the lead in which nobody knows each other",
                          missing="The lead has no circle of its own yet")),
    Feature("core_number", "integer", "edges", 0, None, 0,
            "Greatest k for which the lead is in a part where all have k neighbours or more.",
            "relationship",
            phrase=Phrase("The lead's part of the network, in which everybody has {value} or more,",
                          none="A lead without relations in the network",
                          missing="The lead is not in the network yet")),
    Feature("community_size", "integer", "nodes", 0, None, 0,
            "Nodes in the lead's community.", "relationship",
            relative=True,
            phrase=counted("member of the lead's community", "members of the lead's community")),
    Feature("community_share", "double", "share", 0, 1, None,
            "Share of all leads and agents that are in the lead's community.", "relationship",
            relative=True,
            phrase=Phrase("The lead's community, {value} of the network,",
                          missing="The lead belongs to no community yet")),
    Feature("community_conversion_rate", "double", "share", 0, 1, None,
            "Share of the other leads of the community that have bought, drawn to that of all.",
            "relationship",
            phrase=Phrase("The buying rate of {value} in the lead's community",
                          missing="The lead belongs to no community yet")),
    Feature("referral_depth", "integer", "leads", 0, None, 0,
            "Length of the chain of referrers above the lead.", "relationship",
            phrase=counted("referrer in the chain above the lead",
                           "referrers in the chain above the lead")),
    Feature("referral_descendant_count", "integer", "leads", 0, None, 0,
            "Leads that came through the lead, directly or through those it brought.",
            "relationship",
            phrase=counted("lead that came through this one", "leads that came through this one")),
    Feature("household_size", "integer", "leads", 0, None, 0,
            "Leads of the lead's household with itself; 0 without a known one.", "relationship",
            phrase=Phrase("A household of {value}", none="A household that is not known",
                          missing="The size of the household is not known")),
    Feature("household_conversion_count", "integer", "leads", 0, None, 0,
            "Other leads of the household that have bought.", "relationship",
            phrase=counted("other buyer in the household", "other buyers in the household")),
    Feature("graph_age_days", "double", "days", 0, None, None,
            "Age of the graph metrics at the time.", "relationship",
            phrase=Phrase("What is known of the network is {value} old", clause=True,
                          missing="Nothing is known of the network yet")),
    Feature("household_known", "boolean", "", None, None, False,
            "Whether the lead belongs to a known household.", "relationship",
            phrase=Phrase(yes="The lead's household is known",
                          no="The lead's household is not known",
                          missing="The lead's household is not known")),
    Feature("referral_made_count", "integer", "referrals", 0, None, 0,
            "Leads that this lead has referred.", "relationship",
            phrase=counted("referral by the lead", "referrals by the lead")),
    Feature("referral_received_count", "integer", "referrals", 0, None, 0,
            "Leads that have referred this lead.", "relationship",
            phrase=counted("referral that brought the lead", "referrals that brought the lead")),
    Feature("agent_assigned", "boolean", "", None, None, False,
            "Whether an agent works on the lead now.", "relationship",
            phrase=Phrase(yes="An agent works on the lead now",
                          no="No agent works on the lead now",
                          missing="It is not known whether an agent works on the lead")),
    Feature("handover_count", "integer", "hand-overs", 0, None, 0,
            "How often the lead went on to another assignment after the first.", "relationship",
            phrase=counted("hand-over to another agent", "hand-overs to another agent")),
    Feature("agent_tenure_days", "double", "days", 0, None, None,
            "Days since the newest assignment that still runs; missing without one.",
            "relationship",
            phrase=Phrase("The lead has been with its agent for {value}", clause=True,
                          missing="No agent is assigned to the lead")),
    Feature("assigned_agent_load", "integer", "leads", 0, None, None,
            "Leads that the lead's agent had on the Monday of the metrics; missing without one.",
            "relationship",
            phrase=counted("lead with the same agent", "leads with the same agent",
                           missing="It is not known how busy the lead's agent is")),
    Feature("assigned_agent_conversion_rate", "double", "share", 0, 1, None,
            "Share of the leads of the lead's agent that bought, drawn to that of all agents.",
            "relationship",
            phrase=Phrase("The agent's selling rate of {value}",
                          missing="The agent's selling rate is not known")),
    Feature("assigned_agent_specialty_match", "boolean", "", None, None, None,
            "Whether the specialty of the lead's agent is the lead's product interest.",
            "relationship",
            phrase=Phrase(yes="The agent is a specialist for what the lead wants",
                          no="The agent is not a specialist for what the lead wants",
                          missing="It is not known whether the agent is a specialist for what the "
                                  "lead wants")),
)
# fmt: on

_AS_STORED = (
    "degree",
    "degree_referral",
    "degree_referral_made",
    "degree_referral_received",
    "degree_household",
    "degree_assignment",
    "pagerank",
    "betweenness",
    "community_size",
    "community_share",
    "community_conversion_rate",
    "referral_depth",
    "household_size",
)
_RENAMED = {
    "closeness_harmonic": "closeness",
    "clustering_coefficient": "clustering",
    "core_number": "core",
    "referral_descendant_count": "referral_descendants",
    "household_conversion_count": "household_conversions",
}
"""Feature -> column of `graph_metrics`."""


@feature_view(
    name="graph",
    entity="lead",
    description="Graph metrics, referrals and agents of a lead.",
    features=FEATURES,
    reads=(
        "spine",
        "lead_graph",
        "lead_profile",
        "current_agent",
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
        *_AS_STORED,
        *(F.col(stored).alias(name) for name, stored in _RENAMED.items()),
        (F.col("pagerank") * p.double(F.col("nodes"))).alias("pagerank_relative"),
        p.days_between(as_of, F.col("valid_from")).alias("graph_age_days"),
    )
    profile = read["lead_profile"].select(
        *keys, F.col("household_id").isNotNull().alias("household_known"), "product_interest"
    )
    agent = read["current_agent"].select(
        *keys,
        "specialty",
        F.col("agent_load").alias("assigned_agent_load"),
        F.col("agent_conversion_rate").alias("assigned_agent_conversion_rate"),
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
    joined = p.beside(
        read["spine"],
        metrics,
        profile,
        agent,
        referrals("referrals_made", "referral_made_count"),
        referrals("referrals_received", "referral_received_count"),
        agents,
    )
    # Null where either is.
    return p.extend(
        joined, assigned_agent_specialty_match=F.col("specialty") == F.col("product_interest")
    )
