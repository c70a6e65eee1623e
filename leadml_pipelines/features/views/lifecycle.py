"""Where the lead stands: stage and age, policies and closures, first and last contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.phrase import RECENT_DAYS, Phrase, counted
from leadml_pipelines.features.view import KEYS, Feature, feature_view

# fmt: off
FEATURES = (
    Feature("stage", "category", "", None, None, None,
            "open, customer (has an active policy), or closed (closed, without one).",
            "relationship",
            phrase=Phrase("The lead's stage is {value}",
                          words=(("open", "The lead's stage is open"),
                                 ("customer", "The lead is a customer"),
                                 ("closed", "The lead's stage is closed")),
                          missing="The lead's stage is not known")),
    Feature("is_open", "boolean", "", None, None, False,
            "Whether the stage is open.", "relationship",
            phrase=Phrase(yes="The lead is open", no="The lead is not open",
                          missing="It is not known whether the lead is open")),
    Feature("lead_age_days", "double", "days", 0, None, None,
            "Days since the lead was created.", "urgency",
            phrase=Phrase("The lead came {value} ago", clause=True,
                          missing="It is not known when the lead came")),
    Feature("stage_age_days", "double", "days", 0, None, None,
            "Days since the last change of stage: creation, policy bound or cancelled, closure.",
            "urgency",
            phrase=Phrase("The lead has been at its stage for {value}", clause=True,
                          missing="It is not known how long the lead has been at its stage")),
    Feature("policy_count", "integer", "policies", 0, None, 0,
            "Policies ever bound, cancelled ones included.", "relationship",
            phrase=counted("policy", "policies", "ever bound")),
    Feature("active_policy_count", "integer", "policies", 0, None, 0,
            "Policies bound and not cancelled.", "relationship",
            phrase=counted("active policy", "active policies")),
    Feature("cancelled_policy_count", "integer", "policies", 0, None, 0,
            "Policies cancelled.", "relationship",
            phrase=counted("cancelled policy", "cancelled policies")),
    Feature("active_premium", "double", "currency per year", 0, 9e11, 0.0,
            "Annual premium of the active policies.", "value",
            phrase=Phrase("The active premium of {value}", none="No active premium",
                          missing="The active premium is not known")),
    Feature("days_since_last_policy", "double", "days", 0, None, None,
            "Days since the newest policy was bound.", "relationship",
            phrase=Phrase("The newest policy, bound {value} ago,",
                          missing="The lead has never bound a policy")),
    Feature("closure_count", "integer", "closures", 0, None, 0,
            "How often the lead was closed.", "relationship",
            phrase=counted("closure of the lead", "closures of the lead", "so far")),
    Feature("event_count_total", "integer", "events", 0, None, 0,
            "Events of any kind, ever.", "engagement",
            phrase=counted("event", "events", "in the lead's whole history")),
    Feature("activity_window_start_days", "double", "days", 0, None, None,
            "Days since anything happened for the first time; missing when nothing ever did.",
            "relationship",
            phrase=Phrase("The first event with the lead, {value} ago,",
                          missing="Nothing has happened with the lead yet")),
    Feature("activity_window_end_days", "double", "days", 0, None, None,
            "Days since anything happened for the last time; missing when nothing ever did.",
            "urgency",
            phrase=Phrase("Nothing has happened with the lead for {value}",
                          below=(RECENT_DAYS, "Something last happened with the lead {value} ago"),
                          clause=True, missing="Nothing has happened with the lead yet")),
    Feature("activity_window_days", "double", "days", 0, None, None,
            "Days from the first thing that happened to the last.", "engagement",
            phrase=Phrase("The span of {value} from the first event with the lead to the last",
                          missing="Nothing has happened with the lead yet")),
    Feature("days_since_last_inbound", "double", "days", 0, None, None,
            "Days since the lead last did something; missing when it never did.", "urgency",
            phrase=Phrase("No sign of life for {value}",
                          below=(RECENT_DAYS, "The last sign of life, {value} ago,"),
                          missing="The lead has never given a sign of life")),
    Feature("days_since_last_outbound", "double", "days", 0, None, None,
            "Days since the last touch, an attempt of ours to reach the lead; missing without one.",
            "relationship",
            phrase=Phrase("No attempt to reach the lead for {value}",
                          below=(RECENT_DAYS, "Our last attempt to reach the lead, {value} ago,"),
                          missing="We have never tried to reach the lead")),
    Feature("first_outbound_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first attempt to reach it; missing before.",
            "relationship",
            phrase=Phrase("Our first attempt to reach the lead, {value} after it came,",
                          below=(0.0,
                                 "Our first attempt to reach the lead, {value} before it came,"),
                          missing="We have never tried to reach the lead")),
    Feature("first_agent_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first event with an agent; missing before.",
            "relationship",
            phrase=Phrase("The first work of an agent on the lead, {value} after it came,",
                          below=(0.0,
                                 "The first work of an agent on the lead, {value} before it came,"),
                          missing="No agent has worked on the lead yet")),
    Feature("first_inbound_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first thing it did; missing before.",
            "engagement",
            phrase=Phrase("The first sign of life, {value} after the lead came,",
                          below=(0.0, "The first sign of life, {value} before the lead came,"),
                          missing="The lead has never given a sign of life")),
)
# fmt: on


@feature_view(
    name="lifecycle",
    entity="lead",
    description="Stage, age, policies, and first and last contacts of a lead.",
    features=FEATURES,
    reads=("spine", "lead_created", "known_policies", "known_closures", "event_totals"),
)
def lifecycle(read: Mapping[str, Any]) -> Any:
    """One row per row of the spine: events may come before their lead's own row does."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    active = F.col("cancelled_at").isNull()
    ever = F.col("bound_at").isNotNull()
    policies = (
        read["known_policies"]
        .groupBy(*KEYS)
        .agg(
            p.count_if(ever).alias("bound"),
            p.count_if(active).alias("active"),
            p.money_sum_if(active, F.col("annual_premium")).alias("premium"),
            p.latest_if(ever, F.col("bound_at")).alias("last_bound_at"),
            p.latest_if(ever, F.col("cancelled_at")).alias("last_cancelled_at"),
        )
    )
    closures = (
        read["known_closures"]
        .groupBy(*KEYS)
        .agg(
            p.count_if(F.col("closed_at").isNotNull()).alias("closures"),
            p.latest_if(F.col("closed_at").isNotNull(), F.col("closed_at")).alias("last_closed_at"),
        )
    )
    as_of, created = F.col("as_of"), F.col("created_at")
    open_ = F.when(F.col("active") > F.lit(0), F.lit("customer")).when(
        F.col("closures") > F.lit(0), F.lit("closed")
    )
    staged = p.extend(
        p.beside(read["spine"], read["lead_created"], policies, closures, read["event_totals"]),
        # A lead that was not created yet has no stage, whatever arrived before it.
        stage=F.when(created.isNotNull(), open_.otherwise(F.lit("open"))),
        # Skips nulls on every engine.
        changed_at=F.when(
            created.isNotNull(),
            F.greatest("created_at", "last_bound_at", "last_cancelled_at", "last_closed_at"),
        ),
    )
    return p.extend(
        staged,
        is_open=F.col("stage") == F.lit("open"),
        lead_age_days=p.days_between(as_of, created),
        stage_age_days=p.days_between(as_of, F.col("changed_at")),
        policy_count=F.col("bound"),
        active_policy_count=F.col("active"),
        cancelled_policy_count=F.col("bound") - F.col("active"),
        active_premium=F.col("premium"),
        days_since_last_policy=p.days_between(as_of, F.col("last_bound_at")),
        closure_count=F.col("closures"),
        event_count_total=F.col("event_count"),
        activity_window_start_days=p.days_between(as_of, F.col("first_event_at")),
        activity_window_end_days=p.days_between(as_of, F.col("last_event_at")),
        activity_window_days=p.days_between(F.col("last_event_at"), F.col("first_event_at")),
        days_since_last_inbound=p.days_between(as_of, F.col("last_inbound_at")),
        days_since_last_outbound=p.days_between(as_of, F.col("last_outbound_at")),
        first_outbound_delay_hours=p.hours_between(F.col("first_outbound_at"), created),
        first_agent_delay_hours=p.hours_between(F.col("first_agent_at"), created),
        first_inbound_delay_hours=p.hours_between(F.col("first_inbound_at"), created),
    )
