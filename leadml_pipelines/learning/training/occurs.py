"""The chance that a label is over 0 at all, which a regression does not tell by itself.

The questions that go with a model are answered as this chance times that of a word if it comes
true, so that they can't contradict each other, nor the chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.training.calibration import Calibration, fit_calibration
from leadml_pipelines.learning.training.rows import RowNumbers, Rows
from leadml_pipelines.learning.training.trees import ROUNDS_UNSTOPPED, Heartbeat, fit_trees

OCCURS_FILE = "occurs.ubj"


@dataclass(frozen=True)
class FittedOccurs:
    """A calibrated classifier: is the label over 0?

    Attributes:
        facts: What the manifest says of it.
        trees: In XGBoost's UBJSON.
        calibration: From raw scores to chances.
        record: How it was calibrated, JSON-ready.
    """

    facts: dict[str, Any]
    trees: bytes
    calibration: Calibration
    record: dict[str, Any]


def fit_occurs(
    spec: ModelSpec,
    params: Mapping[str, Any],
    rows: Rows,
    chosen: RowNumbers,
    folds: Sequence[Fold],
    heartbeat: Heartbeat,
) -> FittedOccurs:
    """Fit on all chosen rows, and calibrate on what the same says of the folds' newer rows.

    Args:
        spec: The model's declaration.
        params: XGBoost's parameters of the model itself.
        rows: All rows.
        chosen: The training rows.
        folds: The folds inside them; without any, raw scores are taken for log-odds.
        heartbeat: Called between two rounds.
    """
    asked = replace(spec, objective="classification", learner="xgboost", params={})
    params = {**params, "objective": "binary:logistic", "eval_metric": "logloss"}
    rows = replace(rows, labels=(rows.labels > 0).astype(np.float64))
    raw, rounds = [], []
    for fold in folds:
        tried = fit_trees(asked, params, rows, fold.train, heartbeat=heartbeat)
        raw.append(tried.raw_scores(rows.values[fold.valid]))
        rounds.append(tried.rounds)
    used = round(float(np.mean(rounds))) if rounds else min(ROUNDS_UNSTOPPED, spec.rounds)
    fitted = fit_trees(asked, params, rows, chosen, rounds=used, heartbeat=heartbeat)
    calibration = Calibration("none")
    record: dict[str, Any] = {"kind": "none", "reason": "no validation fold"}
    newer = np.concatenate([fold.valid for fold in folds]) if folds else chosen[:0]
    happened = rows.labels[newer]
    if folds and np.ptp(happened) > 0:
        blocks = np.repeat(np.arange(len(folds)), [len(fold.valid) for fold in folds])
        made = fit_calibration(
            spec.calibration, np.concatenate(raw), happened, blocks, rows.groups[newer]
        )
        calibration, record = made.calibration, made.record
    return FittedOccurs(
        {"file": OCCURS_FILE, "shift": fitted.shift},
        bytes(fitted.booster.save_raw("ubj")),
        calibration,
        {**record, "rows": len(newer), "rounds": used},
    )
