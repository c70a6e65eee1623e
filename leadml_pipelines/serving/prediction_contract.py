"""Requests for predictions, and the answers with their reasons."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadml_pipelines.online.store import MAX_BATCH
from leadml_pipelines.serving.contract import (
    ErrorDetail,
    FeatureDimension,
    FeatureValue,
    Request,
)


class PredictRequest(Request):
    """Which model, for whom."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_type: str = Field(description="name of a model", examples=["churn"])
    entity_id: str = Field(description="whom to predict for", examples=["lead_0000042"])
    explain: bool = Field(
        True, description="whether to give reasons, urgency and opportunities with the answer"
    )


class PredictBatchRequest(Request):
    """Which model, for whom."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_type: str = Field(description="name of a model", examples=["conversion"])
    entity_ids: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=MAX_BATCH,
            description="1 to 1,000 ids",
            examples=[["lead_0000042", "lead_0000043"]],
        ),
    ]
    explain: bool = Field(
        False,
        description="whether to give reasons, urgency and opportunities with each answer; a few "
        "milliseconds per answer",
    )


class PredictionFactor(BaseModel):
    """A feature that moved an answer."""

    feature: str = Field(description="name in the catalogue", examples=["days_since_last_inbound"])
    value: FeatureValue = Field(
        description="in the feature's own type, a category as its word; null: missing",
        examples=[23.4],
    )
    direction: Literal["raises", "lowers"] = Field(
        description="whether it raises or lowers what is predicted, against training's average"
    )
    shap_value: float = Field(
        description="exact SHAP value, in the units of raw_score", examples=[0.61]
    )
    sentence: str = Field(
        description="the same for people",
        examples=["No sign of life for 23 days raises the risk."],
    )


class FeatureImportance(BaseModel):
    """How much of one answer is a feature's doing."""

    feature: str = Field(description="name in the catalogue", examples=["days_since_last_inbound"])
    share: float = Field(
        description="its |SHAP value| over the sum of those of all features, 0 to 1",
        examples=[0.18],
    )


class DimensionAnswer(BaseModel):
    """A dimension of a score."""

    score: float = Field(
        description="0 to 100: share of the training population with a lower contribution",
        examples=[71.5],
    )
    contribution: float = Field(
        description="sum of the SHAP values of its features, in the units of raw_score",
        examples=[0.27],
    )


class UrgencyAnswer(BaseModel):
    """How soon it happens."""

    level: Literal["low", "medium", "high"] = Field(
        description="by the rank and the limits in the model's declaration: high are the tenth of "
        "the training population who are likeliest within the near horizon, medium the next 30 %"
    )
    rank: float = Field(
        description="0 to 100: share of the training population with a lower near_chance",
        examples=[93.1],
    )
    ratio: float = Field(description="near_chance / far_chance, 0 to 1", examples=[0.44])
    near_chance: float = Field(
        description="chance within the near horizon (7 days in lead_score)", examples=[0.04]
    )
    far_chance: float = Field(
        description="chance within the far horizon (30 days in lead_score)", examples=[0.09]
    )


class CrossSellOpportunity(BaseModel):
    """A product to offer."""

    product: str = Field(description="its word in the data", examples=["home"])
    chance: float = Field(
        description="that it is what the lead buys first within the model's horizon, 0 to 1; those "
        "of all products are no more than the chance that it buys at all",
        examples=[0.06],
    )


class Prediction(BaseModel):
    """A model's answer for one entity. A member that is not of its kind of model is left out."""

    model_config = ConfigDict(protected_namespaces=())

    entity_id: str = Field(description="whom it is about", examples=["lead_0000042"])
    model_type: str = Field(description="name of the model", examples=["churn"])
    model_id: str = Field(
        description="the version that answered", examples=["churn_20260115_103000"]
    )
    timestamp: datetime = Field(description="when the prediction was made")
    features_as_of: datetime | None = Field(
        description="the moment that its inputs describe; null where they are unavailable, or the "
        "entity is unknown"
    )
    stale: bool = Field(
        description="whether its inputs are older than they should be, or perhaps untrue since an "
        "event, and could not be computed anew"
    )
    degraded: list[Literal["postgres", "redis"]] = Field(
        description="servers that the answer had to do without"
    )
    error: ErrorDetail | None = Field(
        None,
        description="in a batch: why there is no prediction (unknown_entity, outside_population, "
        "unavailable); then all below is missing",
    )
    prediction: float | int | None = Field(
        None,
        description="1 or 0 of a classifier, by its threshold; a score of 0 to 100 otherwise",
        examples=[1],
    )
    probability: float | None = Field(
        None, description="of a classifier: calibrated chance, 0 to 1", examples=[0.62]
    )
    threshold: float | None = Field(
        None,
        description="of a classifier: the probability from which the prediction is 1",
        examples=[0.41],
    )
    group: str | None = Field(
        None,
        description="of a model that judges groups apart: the group whose threshold and risk "
        "levels count here; missing for who is in none",
        examples=["customer"],
    )
    confidence: float | None = Field(
        None,
        description="of a classifier: 1 minus the width of the interval that the chance lies in "
        "(Venn-Abers)",
        examples=[0.96],
    )
    risk_level: Literal["low", "medium", "high", "critical"] | None = Field(
        None, description="of a model whose chance is a risk: by the limits in its declaration"
    )
    value: float | None = Field(
        None,
        description="of a score: expected value behind it, in the data's currency",
        examples=[184.2],
    )
    quality_score: float | None = Field(
        None,
        description="of a score: 0 to 100, the share of the training population with a lower value",
        examples=[87.5],
    )
    base_value: float | None = Field(
        None,
        description="with explain: raw score of the average row of training",
        examples=[-0.84],
    )
    raw_score: float | None = Field(
        None,
        description="with explain: base_value plus the SHAP values of all features (log-odds "
        "before calibration; of a score, its value or the logarithm of it)",
        examples=[0.37],
    )
    factors: list[PredictionFactor] | None = Field(
        None, description="with explain: the features that moved the answer most, greatest first"
    )
    feature_importance: list[FeatureImportance] | None = Field(
        None, description="with explain: how much of the answer the greatest features make"
    )
    dimensions: dict[FeatureDimension, DimensionAnswer] | None = Field(
        None,
        description="of a score with explain: base_value plus all contributions is raw_score",
    )
    urgency: UrgencyAnswer | None = Field(
        None, description="with explain, where the model was taught to tell how soon"
    )
    cross_sell_opportunities: list[CrossSellOpportunity] | None = Field(
        None,
        description="with explain, where the model was taught to tell what is bought: the most "
        "probable product first",
    )


class PredictResponse(BaseModel):
    """One prediction."""

    success: Literal[True] = True
    data: Prediction


class PredictBatchResponse(BaseModel):
    """Predictions in the order of the request."""

    success: Literal[True] = True
    data: list[Prediction]
