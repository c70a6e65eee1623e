"""Agents: who they are and how busy, what they sell, how fast they answer.

Of an agent's own row only `hired_at` has a time: specialty and capacity are what the table says
now, also in the past. An agent has sold a policy if the lead was theirs when it was bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.functions import Count, function_view
from leadml_pipelines.features.view import KEYS, Feature, feature_view

PRODUCTS = ("auto", "home", "life", "health")
"""Products whose share in an agent's sales is a feature; all others together are one more."""

# fmt: off
_WORKLOAD = (
    Feature("specialty", "category", "", None, None, None,
            "Product that the agent is special in, by the table of agents.", "fit"),
    Feature("hired_days", "double", "days", 0, None, None,
            "Days since the agent was hired.", "relationship"),
    Feature("capacity", "integer", "leads", 0, None, None,
            "Leads that the agent can work on at once.", "relationship"),
    Feature("open_lead_count", "integer", "leads", 0, None, 0,
            "Leads that are assigned to the agent now: the load.", "relationship"),
    Feature("capacity_used_share", "double", "ratio", 0, None, None,
            "Load over capacity; above 1 when there are more leads than that.", "relationship"),
    Feature("assigned_lead_count_30d", "integer", "leads", 0, None, 0,
            "Leads assigned to the agent in the last 30 days, each counted once.", "relationship"),
    Feature("assigned_lead_count_total", "integer", "leads", 0, None, 0,
            "Leads ever assigned to the agent, each counted once.", "relationship"),
    Feature("assignment_ended_count_30d", "integer", "assignments", 0, None, 0,
            "Assignments of the agent that ended in the last 30 days.", "relationship"),
)
_RESULTS = (
    Feature("sale_count_30d", "integer", "policies", 0, None, 0,
            "Policies that the agent sold in the last 30 days.", "value"),
    Feature("sale_count_90d", "integer", "policies", 0, None, 0,
            "Policies that the agent sold in the last 90 days.", "value"),
    Feature("sale_premium_sum_90d", "double", "currency per year", 0, 9e11, 0.0,
            "Annual premium of the policies that the agent sold in the last 90 days.", "value"),
    Feature("sale_premium_mean_90d", "double", "currency per year", 0, 9e11, None,
            "Mean annual premium of a policy sold in the last 90 days.", "value"),
    Feature("conversion_ratio_total", "double", "share", 0, 1, 0.1,
            "Share of the leads ever assigned to the agent to which it sold, smoothed: 0.1 before "
            "the first, weighing ten leads.", "value"),
    *(
        Feature(f"sale_{product}_share_total", "double", "share", 0, 1, None,
                f"Specialty by deeds: share of {product} in all that the agent ever sold.", "fit")
        for product in PRODUCTS
    ),
    Feature("sale_product_diversity_total", "double", "share", 0, 1, None,
            "How evenly the agent's sales spread over products: quadratic entropy, 0 for one "
            "product alone, 1 for all alike.", "fit"),
)
_SPEED = (
    Feature("first_response_hours_90d", "double", "hours", 0, None, None,
            "Mean hours from an assignment of the last 90 days to the agent's first event on that "
            "lead; missing while there was none.", "urgency"),
    Feature("first_response_in_1h_share_90d", "double", "share", 0, 1, None,
            "Share of the answered assignments of the last 90 days that were answered within an "
            "hour.", "urgency"),
    Feature("first_response_in_1d_share_90d", "double", "share", 0, 1, None,
            "Share of the answered assignments of the last 90 days that were answered within a "
            "day.", "urgency"),
    Feature("answered_assignment_count_90d", "integer", "assignments", 0, None, 0,
            "Assignments of the last 90 days on which the agent has acted.", "relationship"),
)
# fmt: on


@feature_view(
    name="agent_workload",
    entity="agent",
    description="Who the agent is, and how many leads are theirs.",
    features=_WORKLOAD,
    reads=("spine", "agent_profile", "agent_assignments"),
)
def agent_workload(read: Mapping[str, Any]) -> Any:
    """One row per row of the spine."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    month = p.hours_before(F.col("as_of"), 24 * 30)
    # A lead may have been the agent's several times: by lead first, so that it counts once.
    leads = (
        read["agent_assignments"]
        .groupBy(*KEYS, "lead_id")
        .agg(
            p.count_if(F.col("ended_at").isNull()).alias("running"),
            p.count_if(F.col("assigned_at") > month).alias("begun"),
        )
    )
    counts = leads.groupBy(*KEYS).agg(
        p.count_if(F.col("running") > F.lit(0)).alias("open_lead_count"),
        p.count_if(F.col("begun") > F.lit(0)).alias("assigned_lead_count_30d"),
        p.count_if(F.col("lead_id").isNotNull()).alias("assigned_lead_count_total"),
    )
    ended = (
        read["agent_assignments"]
        .groupBy(*KEYS)
        .agg(p.count_if(F.col("ended_at") > month).alias("assignment_ended_count_30d"))
    )
    profile = read["agent_profile"].select(
        *KEYS,
        "specialty",
        "capacity",
        p.days_between(F.col("as_of"), F.col("hired_at")).alias("hired_days"),
    )
    load = F.coalesce(p.double(F.col("open_lead_count")), p.number(0))
    return p.extend(
        p.beside(read["spine"], profile, counts, ended),
        capacity_used_share=p.ratio(load, p.double(F.col("capacity"))),
    )


@feature_view(
    name="agent_results",
    entity="agent",
    description="What the agent has sold.",
    features=_RESULTS,
    reads=("spine", "agent_sales", "agent_workload"),
)
def agent_results(read: Mapping[str, Any]) -> Any:
    """One row per row of the spine."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    def within(days: int) -> Any:
        return F.col("bound_at") > p.hours_before(F.col("as_of"), 24 * days)

    sales = (
        read["agent_sales"]
        .groupBy(*KEYS)
        .agg(
            p.count_if(within(30)).alias("sale_count_30d"),
            p.count_if(within(90)).alias("sale_count_90d"),
            p.money_sum_if(within(90), F.col("annual_premium")).alias("sale_premium_sum_90d"),
            p.count_if(F.col("bound_at").isNotNull()).alias("sold"),
            *(
                p.count_if(F.col("product") == F.lit(product)).alias(f"sold_{product}")
                for product in PRODUCTS
            ),
        )
    )
    buyers = (
        read["agent_sales"]
        .groupBy(*KEYS, "lead_id")
        .agg(p.count_if(F.col("bound_at").isNotNull()).alias("bought"))
        .groupBy(*KEYS)
        .agg(p.count_if(F.col("bought") > F.lit(0)).alias("buyers"))
    )
    assigned = read["agent_workload"].select(*KEYS, "assigned_lead_count_total")
    frame = p.beside(read["spine"], sales, buyers, assigned)
    sold = p.double(F.col("sold"))
    other, squares = sold, p.number(0)
    for product in PRODUCTS:
        count = p.double(F.col(f"sold_{product}"))
        other, squares = other - count, squares + count * count
    kinds = len(PRODUCTS) + 1
    spread = p.ratio(sold * sold - (squares + other * other), sold * sold)
    return p.extend(
        frame,
        sale_premium_mean_90d=p.ratio(
            F.col("sale_premium_sum_90d"), p.double(F.col("sale_count_90d"))
        ),
        conversion_ratio_total=p.smoothed_share(
            F.coalesce(p.double(F.col("buyers")), p.number(0)),
            F.coalesce(p.double(F.col("assigned_lead_count_total")), p.number(0)),
            prior=0.1,
            weight=10,
        ),
        sale_product_diversity_total=p.at_most(spread * p.number(kinds / (kinds - 1)), 1),
        **{
            f"sale_{product}_share_total": p.ratio(p.double(F.col(f"sold_{product}")), sold)
            for product in PRODUCTS
        },
    )


@feature_view(
    name="agent_speed",
    entity="agent",
    description="How fast the agent acts on a lead that was assigned.",
    features=_SPEED,
    reads=("agent_touches",),
)
def agent_speed(read: Mapping[str, Any]) -> Any:
    """One row per agent who acted on an assignment of the last 90 days."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    acted = F.col("occurred_at").isNotNull()
    firsts = (
        read["agent_touches"]
        .groupBy(*KEYS, "lead_id", "assigned_at")
        .agg(p.earliest_if(acted, F.col("occurred_at")).alias("first_at"))
    )
    took = p.hours_between(F.col("first_at"), F.col("assigned_at"))
    answered = F.col("first_at").isNotNull()
    grouped = firsts.groupBy(*KEYS).agg(
        p.count_if(answered).alias("answered_assignment_count_90d"),
        p.count_if(took <= p.number(1)).alias("in_1h"),
        p.count_if(took <= p.number(24)).alias("in_1d"),
        p.whole_sum_if(
            answered, p.milliseconds_between(F.col("first_at"), F.col("assigned_at"))
        ).alias("milliseconds"),
    )
    count = p.double(F.col("answered_assignment_count_90d"))
    return p.extend(
        grouped,
        first_response_hours_90d=p.ratio(F.col("milliseconds"), count)
        / p.number(p.HOUR_MICROS / 1000),
        first_response_in_1h_share_90d=p.share(p.double(F.col("in_1h")), count),
        first_response_in_1d_share_90d=p.share(p.double(F.col("in_1d")), count),
    )


agent_activity = function_view(
    "agent_activity",
    "agent",
    [
        Count(name="worked_event_count_7d", window="7d", dimension="relationship"),
        Count(name="worked_event_count_30d", window="30d", dimension="relationship"),
        Count(
            name="worked_outbound_count_7d",
            direction="outbound",
            window="7d",
            dimension="relationship",
        ),
        Count(
            name="worked_outbound_count_30d",
            direction="outbound",
            window="30d",
            dimension="relationship",
        ),
    ],
    description="Events of the agent, with any lead.",
)
