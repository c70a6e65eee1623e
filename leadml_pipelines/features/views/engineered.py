"""Composites of other features: scores from 0 to 100, trends, and ratios.

Each score is a weighted mean of parts between 0 and 1, times 100, so that it is bounded by
construction and can be read off its parts. `quality_score` uses facts of the profile alone; it is
also the number that the replaced rules of thumb look at. Its weights:

| part | weight | 0 to 1 |
|---|---|---|
| credit band | 30 | poor 0, fair 0.35, good 0.75, excellent 1, unknown 0.4 |
| source | 25 | referral 1, phone .85, web .6, email .55, aggregator .25, social .15, other .5 |
| income band | 15 | low 0.1, middle 0.5, high 1, unknown 0.4 |
| requested amount | 10 | amount / (amount + 20,000), unknown 0.3 |
| has an insurer now | 10 | yes 1 (buys insurance), no 0.4, unknown 0.5 |
| attributes known | 10 | share of the five |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.view import Feature, feature_view

CREDIT = (("poor", 0.0), ("fair", 0.35), ("good", 0.75), ("excellent", 1.0))
INCOME = (("low", 0.1), ("middle", 0.5), ("high", 1.0))
INCOME_LEVEL = (("low", 25_000.0), ("middle", 60_000.0), ("high", 130_000.0))
SOURCE = (
    ("referral", 1.0),
    ("phone", 0.85),
    ("web", 0.6),
    ("email", 0.55),
    ("aggregator", 0.25),
    ("social", 0.15),
)

# fmt: off
FEATURES = (
    Feature("quality_score", "double", "points", 0, 100, None,
            "How promising the facts about the lead are, before it has done anything.", "fit"),
    Feature("engagement_score", "double", "points", 0, 100, None,
            "How much, how recently and in how many ways the lead responds.", "engagement"),
    Feature("intent_score", "double", "points", 0, 100, None,
            "How strongly its acts of the last 30 days point to buying: quotes, forms, calls, "
            "pages.", "intent"),
    Feature("urgency_score", "double", "points", 0, 100, None,
            "How much is lost by waiting: acts of the last day and week, and a young lead.",
            "urgency"),
    Feature("inbound_trend_7d_30d", "double", "ratio", 0, 30 / 7, 1.0,
            "Pace of the lead's acts in the last 7 days over that of the last 30, smoothed; "
            "1 is steady.", "urgency"),
    Feature("inbound_trend_30d_90d", "double", "ratio", 0, 3, 1.0,
            "Pace of the lead's acts in the last 30 days over that of the last 90, smoothed; "
            "1 is steady.", "engagement"),
    Feature("outbound_trend_7d_30d", "double", "ratio", 0, 30 / 7, 1.0,
            "Pace of our attempts in the last 7 days over that of the last 30, smoothed; "
            "1 is steady.", "relationship"),
    Feature("inbound_outbound_ratio_30d", "double", "ratio", 0, None, 1.0,
            "Acts of the lead per attempt of ours in the last 30 days, smoothed by one of each.",
            "engagement"),
    Feature("inbound_daily_rate_90d", "double", "events per day", 0, None, 0.0,
            "Acts of the lead per day of the last 90, or of its life when that is shorter.",
            "engagement"),
    Feature("silence_share", "double", "share", 0, 1, None,
            "Share of its life that the lead has been silent for up to now; "
            "1 when it never did anything.", "urgency"),
    Feature("requested_amount_income_ratio", "double", "ratio", 0, None, None,
            "Requested amount over a typical yearly income of the lead's band.", "value"),
    Feature("active_premium_mean", "double", "currency per year", 0, 9e11, None,
            "Mean annual premium of an active policy; missing without one.", "value"),
)
# fmt: on


@feature_view(
    name="engineered",
    entity="lead",
    description="Scores, trends and ratios built on profile and engagement.",
    features=FEATURES,
    reads=("profile", "engagement"),
)
def engineered(read: Mapping[str, Any]) -> Any:
    """One row per lead that exists at the time."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    keys = ["entity_id", "as_of"]
    frame = p.beside(read["profile"], read["engagement"])

    def n(name: str) -> Any:
        return p.double(F.col(name))

    def score(*parts: tuple[float, Any]) -> Any:
        total: Any = p.number(0)
        for weight, part in parts:
            total = total + p.number(weight) * part
        # The weights add up to 100; clamping only takes off what rounding may have added.
        return F.when(F.col("lead_age_days").isNotNull(), p.clamp(total, 0, 100))

    def trend(short: str, long: str, factor: float) -> Any:
        return (n(short) * p.number(factor) + p.number(1)) / (n(long) + p.number(1))

    amount = F.col("requested_amount")
    age = F.col("lead_age_days")
    last = F.col("days_since_last_inbound")
    lived = F.when(age < p.number(1), p.number(1)).otherwise(p.at_most(age, 90))
    income = F.when(
        F.col("income_band").isNotNull(), p.points(F.col("income_band"), INCOME_LEVEL, 60_000)
    )
    silent = F.coalesce(p.fading(last, 5), p.number(0))
    return frame.select(
        *keys,
        score(
            (30, p.points(F.col("credit_band"), CREDIT, 0.4)),
            (25, p.points(F.col("source"), SOURCE, 0.5)),
            (15, p.points(F.col("income_band"), INCOME, 0.4)),
            (10, F.coalesce(p.saturating(amount, 20_000), p.number(0.3))),
            (
                10,
                F.when(F.col("has_current_insurer"), p.number(1))
                .when(F.col("has_current_insurer").isNull(), p.number(0.5))
                .otherwise(p.number(0.4)),
            ),
            (10, F.col("attribute_known_share")),
        ).alias("quality_score"),
        score(
            (30, p.saturating(n("inbound_count_30d"), 4)),
            (25, silent),
            (15, F.col("email_open_ratio_30d")),
            (15, n("inbound_channel_count_30d") / p.number(4)),
            (15, p.saturating(n("inbound_count_7d"), 2)),
        ).alias("engagement_score"),
        score(
            (35, p.saturating(n("quote_request_count_30d"), 1)),
            (20, p.saturating(n("form_submit_count_30d"), 1)),
            (20, p.saturating(n("call_inbound_count_30d"), 1)),
            (15, p.saturating(n("page_view_count_30d"), 4)),
            (10, p.saturating(n("document_received_count_30d"), 1)),
        ).alias("intent_score"),
        score(
            (40, p.saturating(n("inbound_count_1d"), 1)),
            (30, p.saturating(n("inbound_count_7d"), 3)),
            (30, p.fading(age, 7)),
        ).alias("urgency_score"),
        p.clamp(trend("inbound_count_7d", "inbound_count_30d", 30 / 7), 0, 30 / 7).alias(
            "inbound_trend_7d_30d"
        ),
        p.clamp(trend("inbound_count_30d", "inbound_count_90d", 3), 0, 3).alias(
            "inbound_trend_30d_90d"
        ),
        p.clamp(trend("outbound_count_7d", "outbound_count_30d", 30 / 7), 0, 30 / 7).alias(
            "outbound_trend_7d_30d"
        ),
        ((n("inbound_count_30d") + p.number(1)) / (n("outbound_count_30d") + p.number(1))).alias(
            "inbound_outbound_ratio_30d"
        ),
        (n("inbound_count_90d") / lived).alias("inbound_daily_rate_90d"),
        F.when(age.isNotNull(), p.clamp(F.coalesce(p.ratio(last, age), p.number(1)), 0, 1)).alias(
            "silence_share"
        ),
        p.ratio(amount, income).alias("requested_amount_income_ratio"),
        p.ratio(F.col("active_premium"), n("active_policy_count")).alias("active_premium_mean"),
    )
