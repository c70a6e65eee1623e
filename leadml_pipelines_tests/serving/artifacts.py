"""Small real models on disk, in the trainer's own format, with the pointers that name them."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import xgboost

from leadml_pipelines.learning.encoding import Encoder, to_document
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import write_artifact
from leadml_pipelines.learning.training.calibration import Calibration
from leadml_pipelines_tests.online.frames import lead_features, lead_frame

KEY = "the signing key of the tests"
"""Signs every model that is made here."""
CHURN = "(is_open and inbound_count_30d > 0) or active_policy_count > 0"


def make_model(
    root: Path | str,
    name: str,
    model_id: str,
    *,
    objective: str = "classification",
    population: str = "",
    seed: int = 0,
    risk_levels: tuple[float, float, float] | None = None,
    groups: Mapping[str, tuple[float, tuple[float, float, float] | None]] | None = None,
    companions: Mapping[str, tuple[str, ...]] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Train a few trees on random rows, write them, and return their pointer.

    Args:
        root: Folder of all models, or its address.
        name: Name of the model.
        model_id: Its version.
        objective: `classification` or `regression`.
        population: Condition over features.
        seed: Of rows and labels.
        risk_levels: From which chances a risk is medium, high, critical.
        groups: By stage of the lead, threshold and risk levels of its own; None for a manifest
            from before there were groups.
        companions: Words by what their chances are shown as, `urgency` or `cross_sell`.
        more: Further files to write.
    """
    frame = lead_frame([f"t{i}" for i in range(200)], seed=seed)
    encoder = Encoder.fit(lead_features(), frame)
    random = np.random.default_rng(seed)
    classifier = objective == "classification"
    label = random.integers(0, 2, 200) if classifier else random.gamma(2.0, 500.0, 200)
    data = xgboost.DMatrix(
        encoder.encode(frame),
        label,
        feature_names=list(encoder.names),
        feature_types=encoder.xgboost_types,
        enable_categorical=True,
    )
    kind = "binary:logistic" if classifier else "reg:squarederror"
    booster = xgboost.train({"objective": kind, "max_depth": 3, "nthread": 1}, data, 10)
    asked = {
        answer: _companion(data, len(words), random) for answer, words in (companions or {}).items()
    }
    apart = bool(asked) and not classifier
    fitted = np.asarray(booster.predict(data, output_margin=True), np.float64)
    manifest = {
        "format": 3,
        "name": name,
        "model_id": model_id,
        "entity": "lead",
        "objective": objective,
        "link": "logit" if classifier else "identity",
        "population": population,
        "threshold": 0.5,
        "risk_levels": risk_levels,
        **_groups(groups),
        "factors": 5,
        "members": [{"kind": "trees", "file": "model.ubj", "weight": 1.0, "shift": 0.0}],
        "companions": [
            {
                "name": f"{answer}_question",
                "answer": answer,
                "words": words,
                "levels": [0.6, 0.9],
                "file": f"{answer}.ubj",
            }
            for answer, words in (companions or {}).items()
        ],
        "occurs": {"file": "occurs.ubj", "shift": 0.0} if apart else None,
        **to_document(encoder),
        "dimensions": {feature.name: feature.dimension for feature in lead_features()},
    }
    rest = BytesIO()
    points = np.linspace(0, 1, 101)
    joblib.dump(
        {
            "calibration": Calibration("none").to_arrays(),
            "venn_abers": None,
            "linear": None,
            "quantiles": np.quantile(fitted, points),
            "dimension_quantiles": {f.dimension: points for f in lead_features()},
            "occurs_calibration": Calibration("none").to_arrays() if apart else None,
            "near_quantiles": {"urgency_question": points / 2},
        },
        rest,
    )
    files = {
        "model.ubj": bytes(booster.save_raw("ubj")),
        **{f"{answer}.ubj": content for answer, content in asked.items()},
        **({"occurs.ubj": _occurs(data, random)} if apart else {}),
        "rest.joblib": rest.getvalue(),
        **(more or {}),
    }
    written = write_artifact(open_store(root), model_id, files, manifest, KEY.encode())
    return {
        "model_id": model_id,
        "name": name,
        "objective": objective,
        "artifact_uri": written.uri,
        "manifest_sha256": written.manifest_sha256,
        "sha256": written.sha256,
        "features": list(encoder.names),
        "threshold": 0.5,
        "traffic_share": 1.0,
        "metrics": {},
        "trained_at": "2026-11-01T00:00:00+00:00",
    }


def _groups(groups: Mapping[str, Any] | None) -> dict[str, Any]:
    if groups is None:
        return {}
    return {
        "group_by": "stage",
        "groups": [
            {"word": word, "threshold": threshold, "risk_levels": levels}
            for word, (threshold, levels) in groups.items()
        ],
    }


def _occurs(data: xgboost.DMatrix, random: np.random.Generator) -> bytes:
    """A classifier of whether anything occurs, on the same rows."""
    other = data.slice(range(data.num_row()))
    other.set_label(random.integers(0, 2, data.num_row()))
    params = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1}
    return bytes(xgboost.train(params, other, 5).save_raw("ubj"))


def _companion(data: xgboost.DMatrix, words: int, random: np.random.Generator) -> bytes:
    """A classifier over words and others, if anything occurs, on the same rows."""
    other = data.slice(range(data.num_row()))
    other.set_label(random.integers(0, words + 1, data.num_row()))
    params = {"objective": "multi:softprob", "num_class": words + 1, "max_depth": 2, "nthread": 1}
    return bytes(xgboost.train(params, other, 5).save_raw("ubj"))


def expected_value(pointer: dict[str, Any], frame: pd.DataFrame, entity_id: str) -> float:
    """What the model answers for a row of the frame, without Redis and HTTP in between."""
    from leadml_pipelines.learning.model import load_model

    model = load_model(pointer["artifact_uri"], KEY.encode(), pointer["manifest_sha256"])
    row = frame[frame["entity_id"] == entity_id]
    return float(model.predict(model.encoder.encode(row)).values[0])
