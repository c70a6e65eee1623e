"""Requests and responses of the HTTP app; OpenAPI and the TypeScript client follow from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadml_pipelines.online.store import MAX_BATCH

MAX_RETRIEVE = 100
"""Most entities of a retrieve request."""

FeatureValue = float | int | bool | str | None


class Request(BaseModel):
    """A body with no members but the known ones."""

    model_config = ConfigDict(extra="forbid")


class FeatureBatchRequest(Request):
    """Which features of which entities."""

    entity_ids: Annotated[
        list[str], Field(min_length=1, max_length=MAX_BATCH, description="1 to 1,000 ids")
    ]
    feature_names: list[str] = Field(
        default_factory=list, description="features to return; all of them when empty"
    )
    entity_type: str = Field("lead", description="what the ids are of")


class FeatureRetrieveRequest(FeatureBatchRequest):
    """As for a batch, for one entity or a few."""

    entity_ids: Annotated[
        list[str], Field(min_length=1, max_length=MAX_RETRIEVE, description="1 to 100 ids")
    ]


class EntityMeta(BaseModel):
    """Where an entity's features come from and how old they are."""

    as_of: datetime = Field(description="the moment that the values describe")
    age_seconds: float = Field(description="time since then")
    status: Literal["present", "stale"] = Field(
        description="stale: older than features should ever be"
    )
    source: Literal["cache", "snapshot"] = Field(
        description="Redis, or the newest checked snapshot in PostgreSQL"
    )


class RetrievedEntityMeta(EntityMeta):
    """What retrieve adds."""

    computed_at: datetime = Field(description="when the values were computed")
    null_features: list[str] = Field(description="features without a value, by name")
    schema_id: int = Field(description="schema of the packed value")


class FeatureBatchResponse(BaseModel):
    """Features by entity id."""

    success: Literal[True] = True
    features: dict[str, dict[str, FeatureValue]]
    meta: dict[str, EntityMeta]


class FeatureRetrieveResponse(FeatureBatchResponse):
    """Features by entity id, with more about each entity."""

    meta: dict[str, RetrievedEntityMeta]  # type: ignore[assignment]


class PredictRequest(Request):
    """Which model, for whom."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_type: str = Field(description="name of a model, such as churn")
    entity_id: str


class PredictBatchRequest(Request):
    """Which model, for whom."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_type: str = Field(description="name of a model, such as churn")
    entity_ids: Annotated[
        list[str], Field(min_length=1, max_length=MAX_BATCH, description="1 to 1,000 ids")
    ]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="for programs")
    message: str = Field(description="for people")


class ErrorResponse(BaseModel):
    """The one shape of an error."""

    success: Literal[False] = False
    error: ErrorDetail


class Prediction(BaseModel):
    """A model's answer for one entity."""

    model_config = ConfigDict(protected_namespaces=())

    entity_id: str
    prediction: float | int | None = Field(
        description="1 or 0 of a classifier (by the model's threshold), a score of 0-100 otherwise"
    )
    probability: float | None = Field(description="of yes; null for a score")
    value: float | None = Field(None, description="expected value behind a score, in currency")
    model_type: str
    model_id: str
    timestamp: datetime = Field(description="when the prediction was made")
    features_as_of: datetime = Field(description="the moment that its inputs describe")
    error: ErrorDetail | None = Field(None, description="in a batch: why there is no prediction")


class PredictResponse(BaseModel):
    """One prediction."""

    success: Literal[True] = True
    data: Prediction


class PredictBatchResponse(BaseModel):
    """Predictions in the order of the request."""

    success: Literal[True] = True
    data: list[Prediction]


class ModelHealth(BaseModel):
    """A model, as this process has it."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str | None = Field(description="version that answers; null if none could be loaded")
    loaded: bool
    loaded_at: datetime | None
    trained_at: datetime | None
    features: int | None = Field(description="how many inputs it has")
    wanted_model_id: str = Field(description="version that should answer")
    error: str | None = Field(description="why the wanted version does not answer")


class HealthResponse(BaseModel):
    """How the app is."""

    success: Literal[True] = True
    status: Literal["ok", "starting", "degraded", "down"]
    reason: str | None = Field(description="why the status is not ok; null if it is")
    models: dict[str, ModelHealth]
    services: dict[str, str] = Field(description="redis and postgres: ok, or what is wrong")
    schemas: dict[str, int | None] = Field(description="current schema id by entity type")
    snapshot: dict[str, datetime | None] = Field(description="newest whole snapshot, by type")


class GraphNeighbour(BaseModel):
    """A relationship of the entity, and who is at its other end."""

    entity_type: Literal["lead", "agent", "household", "campaign"]
    entity_id: str
    relation: str = Field(description="ASSIGNED_TO, REFERRED, MEMBER_OF or CAME_FROM")
    direction: Literal["out", "in"] = Field(description="out: it starts at the entity asked for")
    since: datetime | None = Field(description="since when it holds; null if not known")
    until: datetime | None = Field(description="until when, exclusive; null if no end is known")
    holds: bool = Field(description="whether it holds now")


class GraphHousehold(BaseModel):
    """The household of a lead."""

    household_id: str
    since: datetime | None
    members: list[str] = Field(description="the other leads in it now, no more than the limit")


class GraphMetrics(BaseModel):
    """What was computed for the newest weekly snapshot of the graph that has the entity."""

    as_of: datetime = Field(description="the moment that the values describe")
    computed_at: datetime
    values: dict[str, FeatureValue] = Field(description="every metric there is, by name")


class GraphSurroundings(BaseModel):
    """An entity in the graph."""

    entity_type: Literal["lead", "agent"]
    entity_id: str
    as_of: datetime = Field(description="the moment of the answer; only the metrics are older")
    degree: dict[str, int] = Field(description="relationships that hold now, by relation")
    relationships: int = Field(description="relationships in all, also those that have ended")
    neighbours: list[GraphNeighbour] = Field(
        description="those that hold first, then the newest first; no more than the limit"
    )
    household: GraphHousehold | None = Field(description="of a lead that has one now")
    referrers: list[GraphNeighbour] = Field(description="who referred the lead")
    referred: list[GraphNeighbour] = Field(description="whom it referred")
    current_agent: GraphNeighbour | None = Field(description="whom the lead is assigned to now")
    community: str | None = Field(description="of the metrics: named after its smallest lead")
    metrics: GraphMetrics | None
    metrics_missing: Literal["no_snapshot", "postgres_unavailable"] | None = Field(
        description="why there are no metrics: no snapshot has the entity yet, or PostgreSQL, "
        "where they are, did not answer"
    )


class GraphResponse(BaseModel):
    """The surroundings of one entity."""

    success: Literal[True] = True
    data: GraphSurroundings
