"""The curves of a model card, thinned to what a picture can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import ModelSpec

Values = npt.NDArray[np.float64]

FEWEST = 20
"""Rows that must be called before a precision is drawn."""
POINTS = 120
"""Points that are kept of a curve."""


def curves(
    spec: ModelSpec, labels: Values, predictions: Mapping[str, Values]
) -> dict[str, dict[str, Any]]:
    """The curves of several models on the same rows.

    Args:
        spec: Says whether there are classes.
        labels: float64[n], what happened.
        predictions: float64[n] by the model's name.

    Returns:
        By curve and model, `x` and `y`: `roc` (false against true positive rate) and
        `precision_recall` (recall against precision) for classes, and `captured` (best-ranked
        share of the rows against the share of all positives, or of the whole value, in them).
        Without any positive, or any other, there are none.
    """
    found: dict[str, dict[str, Any]] = {}
    total = labels.sum()
    if total <= 0:
        return found
    if spec.objective == "classification":
        from sklearn.metrics import precision_recall_curve, roc_curve

        if total == len(labels):
            return found
        found["roc"] = {who: _thin(*roc_curve(labels, of)[:2]) for who, of in predictions.items()}
        found["precision_recall"] = {}
        for who, of in predictions.items():
            precision, recall, _ = precision_recall_curve(labels, of)
            # The last point is set by convention, and the precision of a handful of rows is noise.
            called = np.divide(recall * total, precision, where=precision > 0, out=recall * 0)
            kept = np.flatnonzero(called[:-1] >= FEWEST)[::-1]
            found["precision_recall"][who] = _thin(recall[kept], precision[kept])
    found["captured"] = {who: _captured(labels, of) for who, of in predictions.items()}
    return found


def _captured(labels: Values, values: Values) -> dict[str, list[float]]:
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(values) - 1)
    found = np.cumsum(labels[order])[ends] / labels.sum()
    return _thin(np.append(0.0, (ends + 1) / len(values)), np.append(0.0, found))


def _thin(x: Values, y: Values) -> dict[str, list[float]]:
    """Points evenly spread along the curve, both ends kept."""
    if len(x) > POINTS:
        way = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
        at = np.unique(np.searchsorted(way, np.linspace(0, way[-1], POINTS)).clip(0, len(x) - 1))
        x, y = x[at], y[at]
    return {"x": [round(float(v), 5) for v in x], "y": [round(float(v), 5) for v in y]}
