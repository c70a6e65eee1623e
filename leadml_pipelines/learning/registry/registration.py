"""From a trained model to a registered one: examined, written, signed, recorded."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import psycopg

from leadml_pipelines.learning.registry.artifacts import write_artifact
from leadml_pipelines.learning.registry.code_version import code_version
from leadml_pipelines.learning.registry.model_records import insert_record, json_ready
from leadml_pipelines.learning.registry.store_contract import ArtifactStore
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    from leadml_pipelines.learning.evaluation.examination import Examination
    from leadml_pipelines.learning.training.train import TrainedModel

CARD_FILE = "card.md"
EVALUATION_FILE = "evaluation.json"

_LOCK = 0x1EAD_0011
"""Key of the advisory lock under which ids are given out."""
_PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "duckdb", "optuna")


def store_trained(
    connection: psycopg.Connection[Any],
    store: ArtifactStore,
    key: bytes,
    trained: TrainedModel,
    examined: Examination,
    compared_with: str | None,
) -> str:
    """Write a model's files, then its row, commit, and return its id.

    Where the row can't be written no files stay. Where the connection is lost while it is committed
    they do, for the row may be there; the error has a note that says so.

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
        "code_version": code_version(),
        "package_versions": {name: metadata.version(name) for name in _PACKAGES},
        "params": trained.params,
        "tuning": trained.tuning,
        "validation": trained.validation,
        "counts": trained.counts,
        "metrics": examined.metrics,
        "baseline": examined.baseline,
        "gate_passed": examined.decision.passed,
        "gate_reasons": examined.decision.reasons,
        "compared_with": compared_with,
        "trained_at": trained.trained_at,
        "seconds": trained.seconds,
    }
    # Not in the manifest, which is parsed at each load: curves and slices are long.
    evaluation = json.dumps(json_ready(examined.evaluation), allow_nan=False).encode()
    registration_lock(connection)
    model_id = _free_id(connection, store, trained)
    written = write_artifact(
        store,
        model_id,
        {**trained.files, **examined.card, EVALUATION_FILE: evaluation},
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
        "evaluation": examined.evaluation,
        "card": examined.card[CARD_FILE].decode(),
        "artifact_uri": written.uri,
        "manifest_sha256": written.manifest_sha256,
        "sha256": written.sha256,
    }
    try:
        insert_record(connection, row)
    except BaseException as error:
        _remove(store, model_id, error)
        raise
    try:
        connection.commit()
    except BaseException as error:
        if _known_absent(connection, model_id):
            _remove(store, model_id, error)
        else:
            error.add_note(
                f"nobody knows whether {model_id} was registered, so its files stay: "
                "`leadml models list` tells; if it is not there, train again"
            )
        raise
    return model_id


def registration_lock(connection: psycopg.Connection[Any]) -> None:
    """Wait until nobody else registers a model; others wait until this transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def is_registered(connection: psycopg.Connection[Any], model_id: str) -> bool:
    """Whether there is a model of that id."""
    found = connection.execute("SELECT 1 FROM leadml.models WHERE model_id = %s", (model_id,))
    return found.fetchone() is not None


def _remove(store: ArtifactStore, model_id: str, error: BaseException) -> None:
    """Remove the files of a model that was not registered; where they stay, the error says so."""
    try:
        store.delete(model_id)
    except OSError as left:
        error.add_note(
            f"the files of {model_id} could not be removed ({left}); it is not registered, and "
            "`leadml models prune --dry-run` lists them"
        )


def _known_absent(connection: psycopg.Connection[Any], model_id: str) -> bool:
    """Whether the database says, after a commit that failed, that the row is not there.

    A connection that was lost meanwhile says nothing: the server may have committed all the same.
    """
    if connection.closed:
        return False
    try:
        connection.rollback()
        return not is_registered(connection, model_id)
    except psycopg.Error:
        return False


def _free_id(
    connection: psycopg.Connection[Any], store: ArtifactStore, trained: TrainedModel
) -> str:
    """Name and second; with a number behind it when another model ended in the same second."""
    at = require_utc(trained.trained_at, "trained_at")
    stem = f"{trained.spec.name}_{at:%Y%m%d_%H%M%S}"
    candidate, number = stem, 1
    while is_registered(connection, candidate) or store.exists(candidate):
        number += 1
        candidate = f"{stem}_{number}"
    return candidate
