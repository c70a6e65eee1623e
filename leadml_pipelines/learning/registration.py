"""From a trained model to a registered one: examined, written, signed, recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from leadml_pipelines.learning.artifact_stores import ArtifactStore
from leadml_pipelines.learning.artifacts import write_artifact
from leadml_pipelines.learning.gate import Decision, decide
from leadml_pipelines.learning.model import MODEL_FILE, LoadedModel
from leadml_pipelines.learning.model_records import insert_record, json_ready
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.learning.train import TrainedModel

_LOCK = 0x1EAD_0011
"""Key of the advisory lock under which ids are given out."""
_PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "duckdb", "optuna")


@dataclass(frozen=True)
class Examined:
    """What the newest data say of a candidate.

    Attributes:
        metrics: On the test rows.
        baseline: The replaced heuristic's, on the same rows.
        evaluation: All of it, JSON-ready.
        decision: What the gate says.
        card: The model card: `card.md` and its plots.
    """

    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    decision: Decision
    card: Mapping[str, bytes]


def examine_trained(
    trained: TrainedModel, champion: LoadedModel | None, remark: str | None
) -> Examined:
    """Pass a candidate through the gate.

    Args:
        trained: The candidate.
        champion: Is measured on the same rows; None when there is none, or none that can be.
        remark: Why there is none that can be; stands among the gate's reasons.
    """
    measured: Mapping[str, Any] | None = None
    if champion is not None:
        try:
            measured = trained.measure(champion)
        except KeyError as error:
            remark = f"not compared with the champion {champion.model_id}: {error.args[0]}"
    decision = decide(trained.spec, trained.metrics, trained.baseline, measured)
    reasons = (*decision.reasons, remark) if remark else decision.reasons
    decision = Decision(decision.passed, reasons)
    card = {"card.md": _card(trained, decision).encode()}
    return Examined(trained.metrics, trained.baseline, {}, decision, card)


def store_trained(
    connection: psycopg.Connection[Any],
    store: ArtifactStore,
    key: bytes,
    trained: TrainedModel,
    examined: Examined,
    compared_with: str | None,
) -> str:
    """Write a model's files, then its row, commit, and return its id.

    Where the row can't be written no files stay.

    Args:
        connection: Of the registry's database, without an open transaction.
        store: Where the files go.
        key: Signs them.
        trained: The model.
        examined: What is known of it.
        compared_with: Id of the champion of that time.
    """
    spec = trained.spec
    facts = {
        "name": spec.name,
        "description": spec.description,
        "objective": spec.objective,
        "spec_hash": spec.hash,
        "training_set_hash": trained.training_set_hash,
        "code_version": metadata.version("leadml"),
        "package_versions": {name: metadata.version(name) for name in _PACKAGES},
        "params": trained.params,
        "tuning": trained.tuning,
        "validation": {},
        "counts": trained.counts,
        "metrics": examined.metrics,
        "baseline": examined.baseline,
        "evaluation": examined.evaluation,
        "gate_passed": examined.decision.passed,
        "gate_reasons": examined.decision.reasons,
        "compared_with": compared_with,
        "trained_at": trained.trained_at,
        "seconds": trained.seconds,
    }
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    model_id = _free_id(connection, store, trained)
    written = write_artifact(
        store,
        model_id,
        {MODEL_FILE: trained.booster, **examined.card},
        json_ready({**facts, **trained.manifest, "model_id": model_id}),
        key,
    )
    row = {
        **facts,
        "model_id": model_id,
        "status": "candidate" if examined.decision.passed else "rejected",
        "threshold": trained.manifest.get("threshold"),
        "horizon": spec.horizon,
        "signature": trained.manifest["features"],
        "card": examined.card["card.md"].decode(),
        "artifact_uri": written.uri,
        "manifest_sha256": written.manifest_sha256,
        "sha256": written.sha256,
    }
    try:
        insert_record(connection, row)
        connection.commit()
    except BaseException:
        store.delete(model_id)
        raise
    return model_id


def _free_id(
    connection: psycopg.Connection[Any], store: ArtifactStore, trained: TrainedModel
) -> str:
    """Name and second; with a number behind it when another model ended in the same second."""
    at = require_utc(trained.trained_at, "trained_at")
    stem = f"{trained.spec.name}_{at:%Y%m%d_%H%M%S}"
    candidate, number = stem, 1
    while connection.execute(
        "SELECT 1 FROM leadml.models WHERE model_id = %s", (candidate,)
    ).fetchone() or store.exists(candidate):
        number += 1
        candidate = f"{stem}_{number}"
    return candidate


def _card(trained: TrainedModel, decision: Decision) -> str:
    """The model card: what it is, how good, and what the gate said."""
    lines = [f"# {trained.spec.name}", "", trained.spec.description, "", "| metric | model |"]
    lines.append("|---|---|")
    lines += [
        f"| {name} | {value:.4f} |"
        for name, value in trained.metrics.items()
        if isinstance(value, int | float)
    ]
    verdict = "passed" if decision.passed else "rejected"
    lines += ["", f"Gate: {verdict}", "", *(f"- {reason}" for reason in decision.reasons)]
    return "\n".join(lines) + "\n"
