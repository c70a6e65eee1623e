"""Requests and responses of the HTTP app; OpenAPI and the TypeScript client follow from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from leadml_pipelines.features.engineer import MAX_FUNCTIONS
from leadml_pipelines.online.store import MAX_BATCH
from leadml_pipelines.serving.events import MAX_EVENTS

MAX_RETRIEVE = 100
"""Most entities of a retrieve request."""
MAX_NAMES = 1000
"""Most feature names of a request."""

FeatureValue = float | int | bool | str | None
FeatureDimension = Literal["fit", "engagement", "intent", "value", "urgency", "relationship"]


def without_repeats(names: list[str]) -> list[str]:
    """Each name once, in the order in which they came first."""
    return list(dict.fromkeys(names))


class Request(BaseModel):
    """A body with no members but the known ones."""

    model_config = ConfigDict(extra="forbid")


class FeatureBatchRequest(Request):
    """Which features of which entities."""

    entity_ids: Annotated[
        list[str], Field(min_length=1, max_length=MAX_BATCH, description="1 to 1,000 ids")
    ]
    feature_names: Annotated[list[str], AfterValidator(without_repeats)] = Field(
        default_factory=list,
        max_length=MAX_NAMES,
        description="features to return, each once; all of them when empty",
    )
    entity_type: str = Field("lead", description="what the ids are of")


class FeatureRetrieveRequest(FeatureBatchRequest):
    """As for a batch, for one entity or a few."""

    entity_ids: Annotated[
        list[str], Field(min_length=1, max_length=MAX_RETRIEVE, description="1 to 100 ids")
    ]


class EntityMeta(BaseModel):
    """Whether an entity is known, where its features come from and how old they are."""

    status: Literal["present", "stale", "unknown", "unavailable"] = Field(
        description="unknown: there is no such entity; stale: older than features should ever be, "
        "or perhaps untrue since an event, and they could not be computed anew; unavailable: not "
        "cached, and PostgreSQL does not answer now, so that nobody can say whether it is known"
    )
    as_of: datetime | None = Field(
        description="the moment that the values describe; null where there are none, as are age "
        "and source"
    )
    age_seconds: float | None = Field(description="time since then")
    source: Literal["cache", "computed", "snapshot"] | None = Field(
        description="Redis; computed in PostgreSQL for this request; or the newest checked "
        "snapshot there, when it can't compute"
    )
    null_features: list[str] = Field(description="features asked for without a value, by name")
    degraded: list[Literal["postgres", "redis"]] = Field(description="as in the answer")


class RetrievedEntityMeta(EntityMeta):
    """What retrieve adds."""

    computed_at: datetime | None = Field(description="when the values were computed")
    schema_id: int | None = Field(description="schema of the packed value")


class FeatureBatchResponse(BaseModel):
    """Features by entity id; null for an unknown entity."""

    success: Literal[True] = True
    features: dict[str, dict[str, FeatureValue] | None]
    meta: dict[str, EntityMeta]
    degraded: list[Literal["postgres", "redis"]] = Field(
        description="servers that the answer had to do without: nothing can be computed without "
        "postgres, and without redis everything is"
    )


class FeatureRetrieveResponse(FeatureBatchResponse):
    """Features by entity id, with more about each entity."""

    meta: dict[str, RetrievedEntityMeta]  # type: ignore[assignment]


class FeatureLineage(BaseModel):
    """Where a feature comes from; source columns are written `table.column`."""

    values: list[str] = Field(description="source columns that the value is computed from")
    conditions: list[str] = Field(description="source columns that decide which rows count")
    features: list[str] = Field(description="features that it is computed from")


class CatalogueEntry(BaseModel):
    """All there is to know of a feature."""

    name: str
    entity_type: str
    view: str
    type: Literal["double", "integer", "boolean", "category"]
    unit: str = Field(description="what a number counts; empty for categories")
    low: float | None = Field(description="least value; null when there is no bound")
    high: float | None = Field(description="greatest value; null when there is no bound")
    default: FeatureValue = Field(
        description="value of an entity about which nothing is known; null: missing"
    )
    description: str
    dimension: FeatureDimension
    owner: str = Field(description="team:<name> or an e-mail address")
    freshness_seconds: float = Field(description="freshness target: older values are stale")
    ttl_seconds: float | None = Field(
        description="older stored values count as missing; null for no limit"
    )
    lineage: FeatureLineage


class FeatureDefinition(BaseModel):
    """Where a feature is written down."""

    place: str = Field(description="module and line of its view")
    text: str = Field(description="what makes it there, in Python; empty without source")
    sql: str = Field(description="the same in SQL, in terms of what the view reads")


class DefinedCatalogueEntry(CatalogueEntry):
    """All there is to know of a feature, and its definition."""

    definition: FeatureDefinition


class CatalogueResponse(BaseModel):
    """Features that were asked for, in the order of the catalogue, or best first for a search."""

    success: Literal[True] = True
    features: list[CatalogueEntry]
    near: list[str] = Field(description="names alike, when a search found nothing")


class CatalogueEntryResponse(BaseModel):
    """One feature."""

    success: Literal[True] = True
    data: DefinedCatalogueEntry


class EngineerRequest(Request):
    """Feature functions to compute now, or a model to propose some for."""

    entity_type: str = Field("lead", description="what the ids are of")
    entity_ids: Annotated[
        list[str], Field(max_length=MAX_RETRIEVE, description="1 to 100 ids; none to only propose")
    ] = Field(default_factory=list)
    functions: Annotated[
        list[dict[str, Any]],
        Field(
            max_length=MAX_FUNCTIONS,
            description='1 to 50, as in {"function": "count", "event_type": "email_open", '
            '"window": "14d"}; none to compute what is proposed',
        ),
    ] = Field(default_factory=list)
    target: str | None = Field(None, description="name of a model to propose functions for")
    limit: int = Field(10, ge=1, le=MAX_FUNCTIONS, description="most proposals")
    as_of: AwareDatetime | None = Field(
        None, description="a past moment; now by default, with its time zone"
    )


class EngineeredFeature(BaseModel):
    """A feature that a function makes."""

    name: str
    function: str = Field(description="name of the function")
    type: Literal["double", "integer", "boolean", "category"]
    unit: str
    low: float | None
    high: float | None
    default: FeatureValue
    description: str
    dimension: str
    spec: dict[str, Any] = Field(description="as in a request")
    definition: str = Field(description="Python text, to paste into the functions of a view")


class FeatureProposal(EngineeredFeature):
    """A feature that tells of the target."""

    score: float = Field(description="mutual information with the label, in nats")
    known_share: float = Field(description="share of the rows that have a value")
    most_like: str = Field(description="the feature that orders the rows most alike; may be empty")
    likeness: float = Field(description="rank correlation with it, 0 to 1")


class ProposalBasis(BaseModel):
    """What proposals were made from."""

    target: str
    rows: int = Field(description="rows of the training part that were looked at")
    candidates: int = Field(description="functions that were tried")
    training_set: str = Field(description="hash of the saved training set")
    data_end: datetime = Field(description="where its data ends")


class EngineerResponse(BaseModel):
    """Values by entity, and what they are."""

    success: Literal[True] = True
    as_of: datetime | None = Field(description="the moment of the values; null without ids")
    features: dict[str, dict[str, FeatureValue]]
    definitions: list[EngineeredFeature]
    proposals: list[FeatureProposal]
    basis: ProposalBasis | None = Field(description="null when nothing was to be proposed")
    view: str = Field(description="Python text of a view with these functions, to paste")


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


class InvalidateRequest(Request):
    """Entities whose rows were written past the app."""

    entity_type: str = Field("lead", description="what the ids are of")
    entity_ids: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=MAX_BATCH,
            description="1 to 1,000 ids; one that nobody knows does no harm",
        ),
    ]
    at: AwareDatetime | None = Field(
        None,
        description="the moment of what was written, if it may lie ahead of PostgreSQL's clock: "
        "the values are untrue from then on; now by default",
    )


class InvalidateResponse(BaseModel):
    """What was made untrue."""

    success: Literal[True] = True
    entities: int = Field(description="how many, repeats counted once")
    invalidation: Literal["done", "pending"] = Field(
        description="done: no reader gets a value of before any more; pending: Redis can't be "
        "reached now, and is told as soon as it can be"
    )


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="for programs")
    message: str = Field(description="for people")


class ErrorResponse(BaseModel):
    """The one shape of an error."""

    success: Literal[False] = False
    error: ErrorDetail


class ChallengerHealth(BaseModel):
    """The challenger of a model, as this process has it."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str | None
    loaded: bool
    traffic_share: float | None = Field(description="share of the entities that it answers for")
    error: str | None = Field(description="why it does not answer")


class ModelHealth(BaseModel):
    """A model, as this process has it."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str | None = Field(description="version that answers; null if none could be loaded")
    loaded: bool
    loaded_at: datetime | None
    trained_at: datetime | None
    features: int | None = Field(description="how many inputs it has")
    wanted_model_id: str = Field(description="version that should answer")
    fallback: Literal["last_good", "previous"] | None = Field(
        description="what answers where the wanted version can't be loaded: the one that answered "
        "before, or, where none was in memory, the alias `previous`; null while the wanted version "
        "answers, and while none does"
    )
    error: str | None = Field(
        description="why the wanted version does not answer, and which does instead"
    )
    challenger: ChallengerHealth | None = Field(description="null while no experiment runs")


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
