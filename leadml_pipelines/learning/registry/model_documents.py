"""A registered model as commands and HTTP tell of it, JSON-ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leadml_pipelines.learning.registry.aliases import Change, Held
from leadml_pipelines.learning.registry.model_records import ModelRecord, json_ready

_FACTS = (
    "model_id", "name", "status", "description", "objective", "trained_at", "metrics",
    "passed_gate", "promoted_at", "promoted_by", "pruned_at",
)  # fmt: skip
_MORE = (
    "gate_reasons", "compared_with", "threshold", "baseline", "evaluation", "validation", "counts",
    "params", "tuning", "spec_hash", "training_set_hash", "code_version", "package_versions",
    "seconds", "artifact_uri", "manifest_sha256", "sha256",
)  # fmt: skip


def summary(record: ModelRecord, held: Iterable[Held] = ()) -> dict[str, Any]:
    """What a list tells of a model.

    Args:
        record: The model.
        held: What the aliases point to.
    """
    facts = {name: getattr(record, name) for name in _FACTS}
    mine = [one for one in held if one.model_id == record.model_id]
    facts["aliases"] = [one.alias for one in mine]
    shares = [one.traffic_share for one in mine if one.alias == "challenger"]
    facts["traffic_share"] = shares[0] if shares else None
    found: dict[str, Any] = json_ready(facts)
    return found


def detail(
    record: ModelRecord, held: Iterable[Held] = (), changes: Sequence[Change] = ()
) -> dict[str, Any]:
    """All about a model, but for its card.

    Args:
        record: The model.
        held: What the aliases point to.
        changes: The changes of aliases that touched it.
    """
    more: Mapping[str, Any] = {
        **{name: getattr(record, name) for name in _MORE},
        "horizon_seconds": record.horizon.total_seconds(),
        "features": record.signature,
        "changes": [asdict(change) for change in changes],
    }
    return {**summary(record, held), **json_ready(more)}


def main_metric(record: ModelRecord) -> tuple[str, float] | None:
    """The metric by which a model is first judged, and its value; None if it has none."""
    for name in ("roc_auc", "gini", *record.metrics):
        value = record.metrics.get(name)
        if isinstance(value, int | float):
            return name, float(value)
    return None
