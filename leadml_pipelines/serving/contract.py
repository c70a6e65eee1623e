"""Requests and responses of the HTTP app; OpenAPI and the TypeScript client follow from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from leadml_pipelines.online.store import MAX_BATCH
from leadml_pipelines.serving.events import MAX_EVENTS

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
    """Whether an entity is known, where its features come from and how old they are."""

    status: Literal["present", "stale", "unknown"] = Field(
        description="unknown: there is no such entity; stale: older than features should ever be, "
        "and they could not be computed anew"
    )
    as_of: datetime | None = Field(
        description="the moment that the values describe; null for an unknown entity, as are age "
        "and source"
    )
    age_seconds: float | None = Field(description="time since then")
    source: Literal["cache", "computed", "snapshot"] | None = Field(
        description="Redis; computed in PostgreSQL for this request; or the newest checked "
        "snapshot there, when it can't compute"
    )
    null_features: list[str] = Field(description="features asked for without a value, by name")


class RetrievedEntityMeta(EntityMeta):
    """What retrieve adds."""

    computed_at: datetime | None = Field(description="when the values were computed")
    schema_id: int | None = Field(description="schema of the packed value")


class FeatureBatchResponse(BaseModel):
    """Features by entity id; null for an unknown entity."""

    success: Literal[True] = True
    features: dict[str, dict[str, FeatureValue] | None]
    meta: dict[str, EntityMeta]


class FeatureRetrieveResponse(FeatureBatchResponse):
    """Features by entity id, with more about each entity."""

    meta: dict[str, RetrievedEntityMeta]  # type: ignore[assignment]


def _shown_as(kind: str, **more: Any) -> WithJsonSchema:
    """What OpenAPI says of a member whose values the door judges, one event at a time."""
    return WithJsonSchema({"type": kind, **more})


class Event(Request):
    """Something that happened to a lead: a row of `lead_events`.

    A member that is missing or of a wrong type is no malformed request: this event alone is
    quarantined, and its answer says why.
    """

    event_id: Annotated[Any, _shown_as("string")] = Field(
        None, description="the sender's own; a repeat is ignored"
    )
    lead_id: Annotated[Any, _shown_as("string")] = Field(None, description="whom it happened to")
    event_type: Annotated[Any, _shown_as("string")] = Field(
        None, description="such as email_open; any word is taken"
    )
    channel: Annotated[Any, _shown_as("string")] = Field(None, description="such as email, phone")
    direction: Annotated[Any, _shown_as("string", enum=["inbound", "outbound", "internal"])] = (
        Field(None, description="inbound: the lead did it; outbound: it was done to reach the lead")
    )
    agent_id: Annotated[Any, _shown_as("string")] = Field(None, description="who worked on it")
    value: Annotated[Any, _shown_as("number")] = Field(None, description="an amount, if it has one")
    properties: Annotated[Any, _shown_as("object")] = Field(None, description="anything else")
    occurred_at: Annotated[Any, _shown_as("string", format="date-time")] = Field(
        None, description="when it happened, ISO 8601 with a time zone"
    )
    ingested_at: Annotated[Any, _shown_as("string", format="date-time")] = Field(
        None, description="when it became known; now, if it is left out"
    )


class EventsRequest(Request):
    """Events to store."""

    events: Annotated[
        list[Event], Field(min_length=1, max_length=MAX_EVENTS, description="1 to 1,000 events")
    ]


class PostedEvent(BaseModel):
    """What became of an event."""

    event_id: Any = Field(description="as it was posted")
    status: Literal["stored", "duplicate", "quarantined"] = Field(
        description="duplicate: the same event was known already, nothing changed"
    )
    reason: str | None = Field(description="why it was quarantined, for programs")
    message: str | None = Field(description="why it was quarantined, for people")


class EventsResponse(BaseModel):
    """What became of events, in the order of the request."""

    success: Literal[True] = True
    events: list[PostedEvent]
    invalidation: Literal["done", "pending"] = Field(
        description="done: every reader sees the events from now on; pending: Redis can't be "
        "reached now, and is told as soon as it can be"
    )


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
