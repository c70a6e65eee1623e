"""Who the lead is, as far as we knew at the time: its attributes and how it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.phrase import Phrase
from leadml_pipelines.features.view import KEYS, Feature, feature_view

INCOME_BANDS = ("low", "middle", "high")
CREDIT_BANDS = ("poor", "fair", "good", "excellent")
ATTRIBUTES = ("age", "income_band", "credit_band", "requested_amount", "has_current_insurer")

# fmt: off
FEATURES = (
    Feature("age", "integer", "years", 0, 130, None, "Age of the person.", "fit",
            phrase=Phrase("The age of {value}", missing="The lead's age is not known")),
    Feature("income_band", "category", "", None, None, None,
            "Band of the income: low, middle or high.", "fit",
            phrase=Phrase("The lead's income is {value}",
                          missing="The lead's income is not known")),
    Feature("credit_band", "category", "", None, None, None,
            "Band of the credit rating: poor, fair, good or excellent.", "fit",
            phrase=Phrase("The lead's credit rating is {value}",
                          missing="The lead's credit rating is not known")),
    Feature("requested_amount", "double", "currency", 0, 1e12, None,
            "Amount of money or cover that the lead asked for.", "value",
            phrase=Phrase("The requested amount of {value}",
                          missing="The lead has not named an amount")),
    Feature("has_current_insurer", "boolean", "", None, None, None,
            "Whether the person is insured elsewhere now.", "fit",
            phrase=Phrase(yes="The lead is insured elsewhere now",
                          no="The lead is not insured elsewhere now",
                          missing="It is not known whether the lead is insured elsewhere")),
    Feature("source", "category", "", None, None, None, "Where the lead came from.", "fit",
            phrase=Phrase("The lead came from the source {value}",
                          words=(("referral", "The lead came through a referral"),
                                 ("phone", "The lead came by phone"),
                                 ("web", "The lead came through the web"),
                                 ("email", "The lead came by e-mail"),
                                 ("aggregator", "The lead came through an aggregator"),
                                 ("social", "The lead came through social media")),
                          missing="It is not known where the lead came from")),
    Feature("campaign", "category", "", None, None, None,
            "Marketing campaign that brought the lead.", "fit",
            phrase=Phrase("The lead came through the campaign {value}",
                          missing="The lead came without a campaign")),
    Feature("product_interest", "category", "", None, None, None,
            "Product that the lead asked about.", "intent",
            phrase=Phrase("The lead is interested in {value}",
                          missing="It is not known which product the lead wants")),
    Feature("state", "category", "", None, None, None, "State the lead lives in.", "fit",
            phrase=Phrase("The lead lives in {value}",
                          missing="It is not known where the lead lives")),
    Feature("attribute_known_share", "double", "share", 0, 1, 0.0,
            "Share of the five attributes of a lead that are known.", "fit",
            phrase=Phrase("A profile that is filled in to {value}", none="An empty profile",
                          missing="It is not known how much of the profile is filled in")),
    Feature("created_hour", "integer", "hour", 0, 23, None,
            "Hour of the day (UTC) at which the lead was created.", "intent",
            phrase=Phrase("The lead's arrival at {value}",
                          missing="It is not known at what time of day the lead came")),
    Feature("created_weekday", "integer", "day", 1, 7, None,
            "Day of the week (UTC, 1 = Monday) on which the lead was created.", "intent",
            phrase=Phrase("The lead came on day {value} of the week",
                          words=(("1", "The lead came on a Monday"),
                                 ("2", "The lead came on a Tuesday"),
                                 ("3", "The lead came on a Wednesday"),
                                 ("4", "The lead came on a Thursday"),
                                 ("5", "The lead came on a Friday"),
                                 ("6", "The lead came on a Saturday"),
                                 ("7", "The lead came on a Sunday")),
                          clause=True,
                          missing="It is not known on which day of the week the lead came")),
)
# fmt: on


@feature_view(
    name="profile",
    entity="lead",
    description="Attributes of a lead and how it came.",
    features=FEATURES,
    reads=("lead_created", "lead_profile"),
)
def profile(read: Mapping[str, Any]) -> Any:
    """One row per lead that exists at the time."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    attributes = F.col("attributes")
    known = read["lead_profile"].select(
        *KEYS,
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
    return p.extend(
        p.beside(read["lead_created"], known),
        attribute_known_share=p.double(attribute_count) / p.number(len(ATTRIBUTES)),
        created_hour=p.hour_of_day(F.col("created_at")),
        created_weekday=p.day_of_week(F.col("created_at")),
    )
