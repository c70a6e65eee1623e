"""A registered model: its row in PostgreSQL, and what of it others have to know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import psycopg

_JSON_FIELDS = frozenset({
    "signature", "package_versions", "params", "tuning", "counts", "metrics", "baseline",
    "evaluation", "validation", "sha256", "gate_reasons",
})  # fmt: skip
_TIMES = ("trained_at", "promoted_at", "pruned_at")
_SHORT = {
    "evaluation": "'{}'::jsonb AS evaluation",
    "card": "'' AS card",
    "passed_gate": "gate_passed",
}


@dataclass(frozen=True)
class ModelRecord:
    """A registered model.

    Attributes:
        model_id: Such as `churn_20240115_103000`.
        name: Name of the model.
        status: candidate, rejected, champion, challenger, previous, retired or pruned.
        description: One sentence.
        objective: classification or regression.
        threshold: Probability from which the prediction is yes, of all who are in no group; None
            for a regression.
        horizon: How far it looks ahead.
        signature: Name and type of each feature, in the order of its rows.
        spec_hash: Hash of its declaration.
        training_set_hash: Hash of its rows.
        code_version: The code of LeadML that trained it (see `code_version`).
        package_versions: Versions of the packages that did.
        params: Parameters of the learner.
        tuning: What the search saw.
        validation: What was chosen on the validation part.
        counts: Rows on every side, and what was left out.
        metrics: On the test rows.
        baseline: The replaced heuristic's, on the same rows.
        evaluation: All of it, with intervals, slices and the others on the same rows.
        card: The model card, Markdown.
        passed_gate: Whether it may be promoted.
        gate_reasons: Why, sentence by sentence.
        compared_with: The champion that the gate compared it with; None when there was none, or
            it could not be measured.
        artifact_uri: Address of its folder.
        manifest_sha256: SHA-256 (hex) of its manifest; None of a model from before artifacts were
            signed.
        sha256: SHA-256 (hex) of each file.
        trained_at: When.
        seconds: How long training took.
        promoted_at: When it last became champion.
        promoted_by: Who or what made it so.
        pruned_at: When it was decided to delete its files; from then on it can answer no more.
        freed_bytes: Bytes that this freed; None as long as the store has them.
    """

    model_id: str
    name: str
    status: str
    description: str
    objective: str
    threshold: float | None
    horizon: timedelta
    signature: tuple[Mapping[str, str], ...]
    spec_hash: str
    training_set_hash: str
    code_version: str
    package_versions: Mapping[str, str]
    params: Mapping[str, Any]
    tuning: Mapping[str, Any]
    validation: Mapping[str, Any]
    counts: Mapping[str, int]
    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(repr=False)
    card: str = field(repr=False)
    passed_gate: bool
    gate_reasons: tuple[str, ...]
    compared_with: str | None
    artifact_uri: str
    manifest_sha256: str | None
    sha256: Mapping[str, str]
    trained_at: datetime
    seconds: float
    promoted_at: datetime | None
    promoted_by: str | None
    pruned_at: datetime | None
    freed_bytes: int | None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features, in the order of its rows."""
        return tuple(feature["name"] for feature in self.signature)

    def pointer(self) -> dict[str, Any]:
        """What serving has to know to load and to use this model, JSON-ready."""
        output = "probability" if self.objective == "classification" else "value"
        return {
            "model_id": self.model_id,
            "name": self.name,
            "description": self.description,
            "objective": self.objective,
            "artifact_uri": self.artifact_uri,
            "manifest_sha256": self.manifest_sha256,
            "sha256": dict(self.sha256),
            "signature": {"inputs": [dict(f) for f in self.signature], "output": output},
            "features": list(self.features),
            "threshold": self.threshold,
            "horizon_seconds": self.horizon.total_seconds(),
            "metrics": dict(self.metrics),
            "trained_at": self.trained_at.isoformat(),
        }


def insert_record(connection: psycopg.Connection[Any], row: Mapping[str, Any]) -> None:
    """Add a model's row.

    Args:
        connection: Its transaction is left open.
        row: Value by column of `leadml.models`.
    """
    values = {
        name: Jsonb(json_ready(value)) if name in _JSON_FIELDS else value
        for name, value in row.items()
    }
    columns = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    query = f"INSERT INTO leadml.models ({columns}) VALUES ({places})"  # noqa: S608 - our names
    connection.execute(query.encode(), values)


def select_records(
    connection: psycopg.Connection[Any], where: str, params: Mapping[str, Any]
) -> list[ModelRecord]:
    """Models by a condition.

    Args:
        connection: Of the registry's database.
        where: What follows the table's name; written in code, never by a user.
        params: The condition's values.
    """
    query = f"SELECT * FROM leadml.models {where}"  # noqa: S608 - see above
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_record(row) for row in cursor.execute(query.encode(), params)]


def select_short_records(
    connection: psycopg.Connection[Any], where: str, params: Mapping[str, Any]
) -> list[ModelRecord]:
    """Models by a condition, without what is long: their `evaluation` and their `card` are empty.

    Args:
        connection: Of the registry's database.
        where: What follows the table's name; written in code, never by a user.
        params: The condition's values.
    """
    columns = ", ".join(_SHORT.get(column.name, column.name) for column in fields(ModelRecord))
    query = f"SELECT {columns} FROM leadml.models {where}"  # noqa: S608 - our names
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_record(row) for row in cursor.execute(query.encode(), params)]


def json_ready(value: Any) -> Any:
    """What JSON can hold: NumPy's numbers become Python's, times text, and NaN null."""
    if isinstance(value, Mapping):
        return {str(name): json_ready(one) for name, one in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_ready(one) for one in value]
    return value


def _record(row: dict[str, Any]) -> ModelRecord:
    content = {**row, "passed_gate": row["gate_passed"]}
    # The order in which models were registered is the table's own business.
    for name in ("gate_passed", "registration"):
        content.pop(name, None)
    content["signature"] = tuple(content["signature"])
    content["gate_reasons"] = tuple(content["gate_reasons"])
    for name in _TIMES:
        if content[name] is not None:
            content[name] = require_utc(content[name], name)
    return ModelRecord(**content)
