"""Composites of other features: scores from 0 to 100, and ratios.

Each score is a weighted mean of parts between 0 and 1, times 100. `quality_score` uses facts of the
profile alone; it is also the number that the replaced rules of thumb look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.functions import Part, WeightedScore, with_functions
from leadml_pipelines.features.phrase import Phrase
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

SCORES = (
    WeightedScore(
        name="quality_score",
        # The answer of a lead score has a quality_score too, and that is another figure.
        label="CRM's own quality mark",
        description="How promising the facts about the lead are, before it has done anything.",
        dimension="fit",
        when="lead_age_days",
        parts=(
            Part(30, "credit_band", "points", worth=CREDIT, missing=0.4),
            Part(25, "source", "points", worth=SOURCE, missing=0.5),
            Part(15, "income_band", "points", worth=INCOME, missing=0.4),
            Part(10, "requested_amount", "saturating", 20_000, missing=0.3),
            # Who is insured elsewhere buys insurance.
            Part(10, "has_current_insurer", "flag", 0.4, missing=0.5),
            Part(10, "attribute_known_share"),
        ),
    ),
    WeightedScore(
        name="engagement_score",
        description="How much, how recently and in how many ways the lead responds.",
        when="lead_age_days",
        parts=(
            Part(30, "inbound_count_30d", "saturating", 4),
            Part(25, "days_since_last_inbound", "fading", 5),
            Part(15, "email_open_ratio_30d"),
            Part(15, "inbound_channel_count_30d", size=4),
            Part(15, "inbound_count_7d", "saturating", 2),
        ),
    ),
    WeightedScore(
        name="intent_score",
        description="How strongly its acts of the last 30 days point to buying: quotes, forms, "
        "calls, pages.",
        dimension="intent",
        when="lead_age_days",
        parts=(
            Part(35, "quote_request_count_30d", "saturating", 1),
            Part(20, "form_submit_count_30d", "saturating", 1),
            Part(20, "call_inbound_count_30d", "saturating", 1),
            Part(15, "page_view_count_30d", "saturating", 4),
            Part(10, "document_received_count_30d", "saturating", 1),
        ),
    ),
    WeightedScore(
        name="urgency_score",
        description="How much is lost by waiting: acts of the last day and week, and a young lead.",
        dimension="urgency",
        when="lead_age_days",
        parts=(
            Part(40, "inbound_count_1d", "saturating", 1),
            Part(30, "inbound_count_7d", "saturating", 3),
            Part(30, "lead_age_days", "fading", 7),
        ),
    ),
)

# fmt: off
_OTHERS = (
    Feature("inbound_pace_ratio_7d_30d", "double", "ratio", 0, 30 / 7, 1.0,
            "Pace of the lead's acts in the last 7 days over that of the last 30, smoothed; "
            "1 is steady.", "urgency",
            phrase=Phrase("The lead's pace in the last 7 days, {value} that of the last 30,",
                          missing="The lead's pace is not known",
                          young="The lead is too new to have changed its pace")),
    Feature("inbound_pace_ratio_30d_90d", "double", "ratio", 0, 3, 1.0,
            "Pace of the lead's acts in the last 30 days over that of the last 90, smoothed; "
            "1 is steady.", "engagement",
            phrase=Phrase("The lead's pace in the last 30 days, {value} that of the last 90,",
                          missing="The lead's pace is not known",
                          young="The lead is too new to have changed its pace")),
    Feature("outbound_pace_ratio_7d_30d", "double", "ratio", 0, 30 / 7, 1.0,
            "Pace of our attempts in the last 7 days over that of the last 30, smoothed; "
            "1 is steady.", "relationship",
            phrase=Phrase("Our pace of attempts in the last 7 days, {value} that of the last 30,",
                          missing="Our pace of attempts is not known",
                          young="The lead is too new for our pace of attempts to have changed")),
    Feature("inbound_outbound_ratio_30d", "double", "ratio", 0, None, 1.0,
            "Acts of the lead per attempt of ours in the last 30 days, smoothed by one of each.",
            "engagement",
            phrase=Phrase("The number of signs of life in the last 30 days, {value} that of our "
                          "attempts,",
                          missing="The lead's activity in the last 30 days is not known")),
    Feature("inbound_daily_rate_90d", "double", "events per day", 0, None, 0.0,
            "Acts of the lead per day of the last 90, or of its life when that is shorter.",
            "engagement",
            phrase=Phrase("An average of {value} from the lead",
                          none="No sign of life in the last 90 days",
                          missing="The lead's activity in the last 90 days is not known")),
    Feature("silence_share", "double", "share", 0, 1, None,
            "Share of its life that the lead has been silent for up to now; "
            "1 when it never did anything.", "urgency",
            phrase=Phrase("Silence over the last {value} of the time since the lead came",
                          none="A sign of life at this moment",
                          share_of_life=("No sign of life for {value} of the {age} since "
                                         "the lead came",
                                         "No sign of life in the {age} since the lead came"),
                          missing="It is not known when the lead came")),
    Feature("requested_amount_income_ratio", "double", "ratio", 0, None, None,
            "Requested amount over a typical yearly income of the lead's band.", "value",
            phrase=Phrase("The requested amount, {value} a typical yearly income,",
                          missing="The lead's income or the amount it wants is not known")),
    Feature("active_premium_mean", "double", "currency per year", 0, 9e11, None,
            "Mean annual premium of an active policy; missing without one.", "value",
            phrase=Phrase("The average premium of {value} per active policy",
                          missing="The lead has no active policy")),
)
# fmt: on

FEATURES = (*(score.feature for score in SCORES), *_OTHERS)


@feature_view(
    name="engineered",
    entity="lead",
    description="Scores and ratios built on the profile, the lifecycle and engagement.",
    features=FEATURES,
    reads=("profile", "lifecycle", "engagement"),
)
def engineered(read: Mapping[str, Any]) -> Any:
    """One row per row of the spine."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    frame = p.beside(read["profile"], read["lifecycle"], read["engagement"])

    def n(name: str) -> Any:
        return p.double(F.col(name))

    def pace(short: str, long: str, factor: float) -> Any:
        return (n(short) * p.number(factor) + p.number(1)) / (n(long) + p.number(1))

    age = F.col("lead_age_days")
    last = F.col("days_since_last_inbound")
    lived = F.when(age < p.number(1), p.number(1)).otherwise(p.at_most(age, 90))
    income = F.when(
        F.col("income_band").isNotNull(), p.points(F.col("income_band"), INCOME_LEVEL, 60_000)
    )
    others = {
        "inbound_pace_ratio_7d_30d": p.clamp(
            pace("inbound_count_7d", "inbound_count_30d", 30 / 7), 0, 30 / 7
        ),
        "inbound_pace_ratio_30d_90d": p.clamp(
            pace("inbound_count_30d", "inbound_count_90d", 3), 0, 3
        ),
        "outbound_pace_ratio_7d_30d": p.clamp(
            pace("outbound_count_7d", "outbound_count_30d", 30 / 7), 0, 30 / 7
        ),
        "inbound_outbound_ratio_30d": (n("inbound_count_30d") + p.number(1))
        / (n("outbound_count_30d") + p.number(1)),
        "inbound_daily_rate_90d": n("inbound_count_90d") / lived,
        "silence_share": F.when(
            age.isNotNull(), p.clamp(F.coalesce(p.ratio(last, age), p.number(1)), 0, 1)
        ),
        "requested_amount_income_ratio": p.ratio(F.col("requested_amount"), income),
        "active_premium_mean": p.ratio(F.col("active_premium"), n("active_policy_count")),
    }
    return with_functions(p.extend(frame, **others), SCORES, *others)
