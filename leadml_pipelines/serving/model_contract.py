"""What the routes about registered models answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSummary(BaseModel):
    """A registered model."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    name: str
    status: Literal[
        "candidate", "rejected", "champion", "challenger", "previous", "retired", "pruned"
    ]
    description: str
    objective: Literal["classification", "regression"]
    trained_at: datetime
    metrics: dict[str, Any] = Field(description="on data from after the training rows")
    passed_gate: bool = Field(description="whether it may become champion")
    promoted_at: datetime | None = Field(description="when it last became champion")
    promoted_by: str | None
    pruned_at: datetime | None = Field(
        description="when its files were deleted, so that it can answer no more"
    )
    aliases: list[Literal["champion", "challenger", "previous"]]
    traffic_share: float | None = Field(
        description="share of the entities that it answers for as a challenger"
    )


class ModelAnswering(BaseModel):
    """The version that this process answers with."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str | None = Field(description="the version; null if none could be loaded")
    fallback: Literal["last_good", "previous"] | None = Field(
        description="why it is not the champion: it answered before, or, where no good one was in "
        "memory, it is the alias `previous`; null while the champion answers, and while none does"
    )
    error: str | None = Field(description="why the champion does not answer")


class ModelRoles(BaseModel):
    """The versions of one model that matter now."""

    name: str
    champion: ModelSummary | None = Field(
        description="answers, unless it can't be loaded; null before the first promotion"
    )
    challenger: ModelSummary | None = Field(description="answers for a share of the entities")
    previous: ModelSummary | None = Field(
        description="what a rollback makes champion again, and what answers when an app that "
        "starts can't load the champion"
    )
    answering: ModelAnswering | None = Field(
        description="what this process answers with; null before it looked for the model"
    )
    last_trained: ModelSummary = Field(description="the newest version, whatever its status")


class ModelListResponse(BaseModel):
    """Every model by name."""

    success: Literal[True] = True
    data: list[ModelRoles]


class ModelChange(BaseModel):
    """A change of an alias, as it is recorded for ever."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    alias: Literal["champion", "challenger", "previous"]
    kind: Literal["promote", "rollback", "challenge", "end"]
    model_id: str | None = Field(description="where it points from then on; null: nowhere")
    replaced: str | None = Field(description="where it pointed before; null: nowhere")
    traffic_share: float | None
    changed_at: datetime
    changed_by: str
    forced: bool = Field(description="whether the gate was overruled")
    reason: str | None


class ModelDetail(ModelSummary):
    """All about a registered model."""

    gate_reasons: list[str]
    compared_with: str | None = Field(description="the champion that the gate saw")
    threshold: float | None = Field(
        description="chance from which the prediction is yes; of a model with groups, of all who "
        "are in none (see `validation`)"
    )
    horizon_seconds: float
    baseline: dict[str, Any] = Field(description="metrics of the heuristic that it replaces")
    evaluation: dict[str, Any] = Field(description="with intervals, others and slices")
    validation: dict[str, Any] = Field(description="what was chosen on the validation part")
    counts: dict[str, int]
    params: dict[str, Any]
    tuning: dict[str, Any]
    features: list[dict[str, str]] = Field(description="name and type, in the order of a row")
    spec_hash: str
    training_set_hash: str
    code_version: str
    package_versions: dict[str, str]
    seconds: float = Field(description="how long training took")
    artifact_uri: str
    manifest_sha256: str | None
    sha256: dict[str, str] = Field(description="of each file, by name")
    changes: list[ModelChange] = Field(description="changes of role, the newest first")


class ModelResponse(BaseModel):
    """One registered model."""

    success: Literal[True] = True
    data: ModelDetail
