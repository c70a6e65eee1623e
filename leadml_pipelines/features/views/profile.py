"""Who the lead is, as far as we knew at the time: attributes, stage and policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.view import Feature, feature_view

INCOME_BANDS = ("low", "middle", "high")
CREDIT_BANDS = ("poor", "fair", "good", "excellent")
ATTRIBUTES = ("age", "income_band", "credit_band", "requested_amount", "has_current_insurer")

# fmt: off
FEATURES = (
    Feature("age", "integer", "years", 0, 130, None, "Age of the person.", "fit"),
    Feature("income_band", "category", "", None, None, None,
            "Band of the income: low, middle or high.", "fit"),
    Feature("credit_band", "category", "", None, None, None,
            "Band of the credit rating: poor, fair, good or excellent.", "fit"),
    Feature("requested_amount", "double", "currency", 0, 1e12, None,
            "Amount of money or cover that the lead asked for.", "value"),
    Feature("has_current_insurer", "boolean", "", None, None, None,
            "Whether the person is insured elsewhere now.", "fit"),
    Feature("source", "category", "", None, None, None, "Where the lead came from.", "fit"),
    Feature("campaign", "category", "", None, None, None,
            "Marketing campaign that brought the lead.", "fit"),
    Feature("product_interest", "category", "", None, None, None,
            "Product that the lead asked about.", "intent"),
    Feature("state", "category", "", None, None, None, "State the lead lives in.", "fit"),
    Feature("attribute_known_share", "double", "share", 0, 1, 0.0,
            "Share of the five attributes of a lead that are known.", "fit"),
    Feature("created_hour", "integer", "hour", 0, 23, None,
            "Hour of the day (UTC) at which the lead was created.", "intent"),
    Feature("created_weekday", "integer", "day", 1, 7, None,
            "Day of the week (UTC, 1 = Monday) on which the lead was created.", "intent"),
    Feature("lead_age_days", "double", "days", 0, None, None,
            "Days since the lead was created.", "urgency"),
    Feature("stage", "category", "", None, None, None,
            "open, customer (has an active policy), or closed (closed, without one).",
            "relationship"),
    Feature("is_open", "boolean", "", None, None, False,
            "Whether the stage is open.", "relationship"),
    Feature("stage_age_days", "double", "days", 0, None, None,
            "Days since the last change of stage: creation, policy bound or cancelled, closure.",
            "urgency"),
    Feature("policy_count", "integer", "policies", 0, None, 0,
            "Policies ever bound, cancelled ones included.", "relationship"),
    Feature("active_policy_count", "integer", "policies", 0, None, 0,
            "Policies bound and not cancelled.", "relationship"),
    Feature("cancelled_policy_count", "integer", "policies", 0, None, 0,
            "Policies cancelled.", "relationship"),
    Feature("active_premium", "double", "currency per year", 0, 9e11, 0.0,
            "Annual premium of the active policies.", "value"),
    Feature("days_since_last_policy", "double", "days", 0, None, None,
            "Days since the newest policy was bound.", "relationship"),
    Feature("closure_count", "integer", "closures", 0, None, 0,
            "How often the lead was closed.", "relationship"),
)
# fmt: on


@feature_view(
    name="profile",
    entity="lead",
    description="Attributes, stage and policies of a lead.",
    features=FEATURES,
    reads=("lead_created", "lead_profile", "known_policies", "known_closures"),
)
def profile(read: Mapping[str, Any]) -> Any:
    """One row per lead that exists at the time."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    keys = ["entity_id", "as_of"]
    active = F.col("cancelled_at").isNull()
    ever = F.col("bound_at").isNotNull()
    policies = (
        read["known_policies"]
        .groupBy(*keys)
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
        .groupBy(*keys)
        .agg(
            p.count_if(F.col("closed_at").isNotNull()).alias("closures"),
            p.latest_if(F.col("closed_at").isNotNull(), F.col("closed_at")).alias("last_closed_at"),
        )
    )
    attributes = F.col("attributes")
    known = read["lead_profile"].select(
        *keys,
        "source",
        F.col("campaign_id").alias("campaign"),
        "product_interest",
        "state",
        p.whole(p.attribute_number(attributes, "age", 0, 130)).alias("age"),
        p.attribute_category(attributes, "income_band", INCOME_BANDS).alias("income_band"),
        p.attribute_category(attributes, "credit_band", CREDIT_BANDS).alias("credit_band"),
        p.attribute_number(attributes, "requested_amount", 0, 1e12).alias("requested_amount"),
        p.attribute_boolean(attributes, "has_current_insurer").alias("has_current_insurer"),
    )
    attribute_count: Any = F.lit(0)
    for name in ATTRIBUTES:
        attribute_count = attribute_count + p.flag(F.col(name).isNotNull())
    as_of = F.col("as_of")
    staged = p.extend(
        p.beside(read["lead_created"], known, policies, closures),
        attribute_known_share=p.double(attribute_count) / p.number(len(ATTRIBUTES)),
        stage=F.when(F.col("active") > F.lit(0), F.lit("customer"))
        .when(F.col("closures") > F.lit(0), F.lit("closed"))
        .otherwise(F.lit("open")),
        # Skips nulls on every engine; the lead's creation is never null.
        changed_at=F.greatest("created_at", "last_bound_at", "last_cancelled_at", "last_closed_at"),
    )
    return p.extend(
        staged,
        is_open=F.col("stage") == F.lit("open"),
        created_hour=p.hour_of_day(F.col("created_at")),
        created_weekday=p.day_of_week(F.col("created_at")),
        lead_age_days=p.days_between(as_of, F.col("created_at")),
        stage_age_days=p.days_between(as_of, F.col("changed_at")),
        days_since_last_policy=p.days_between(as_of, F.col("last_bound_at")),
        policy_count=F.col("bound"),
        active_policy_count=F.col("active"),
        cancelled_policy_count=F.col("bound") - F.col("active"),
        active_premium=F.col("premium"),
        closure_count=F.col("closures"),
    )
