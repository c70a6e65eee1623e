"""How good a set of predictions is, on rows that the model has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import CALENDAR

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

_EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss; float32 knows no finer ones."""


def evaluate(
    spec: ModelSpec, labels: Values, values: Values, moments: pd.Series | None = None
) -> dict[str, Any]:
    """Metrics of predictions.

    Args:
        spec: Says what kind of model this is, and its threshold.
        labels: float64[n], what happened.
        values: float64[n], probabilities or expected values.
        moments: The `moment` of each row; when some are ages, `by_age` has the metrics at each.

    Returns:
        Plain numbers, fit for JSON. Classification: `roc_auc`, `average_precision`, `log_loss`,
        `brier`, `accuracy`, `positives`, `base_rate`. Regression: `r2`, `spearman`, `mae`,
        `positives`, `mean`. Always `rows`. A metric that is undefined (one class only) is absent.
    """
    metrics: dict[str, Any] = _metrics(spec, labels, values)
    if moments is not None:
        names = [name for name in moments.unique() if name != CALENDAR]
        if names:
            metrics["by_age"] = {
                name: _metrics(spec, labels[rows], values[rows])
                for name in names
                if (rows := (moments == name).to_numpy(bool)).any()
            }
    return metrics


def _metrics(spec: ModelSpec, labels: Values, values: Values) -> dict[str, float | int]:
    counts: dict[str, float | int] = {"rows": len(labels), "positives": int((labels > 0).sum())}
    if spec.objective == "classification":
        return {**_classification(labels, values, spec.threshold), **counts}
    return {**_regression(labels, values), **counts}


def _classification(labels: Values, values: Values, threshold: float) -> dict[str, float | int]:
    from sklearn import metrics

    found: dict[str, float | int] = {}
    if 0 < labels.sum() < len(labels):
        found["roc_auc"] = float(metrics.roc_auc_score(labels, values))
        found["average_precision"] = float(metrics.average_precision_score(labels, values))
    safe = np.clip(values, _EPSILON, 1 - _EPSILON)
    found["log_loss"] = float(metrics.log_loss(labels, safe, labels=[0, 1]))
    found["brier"] = float(np.mean((values - labels) ** 2))
    found["accuracy"] = float(np.mean((values >= threshold) == (labels > 0)))
    found["base_rate"] = float(labels.mean())
    return found


def _regression(labels: Values, values: Values) -> dict[str, float | int]:
    from scipy.stats import rankdata

    found: dict[str, float | int] = {}
    total = float(np.sum((labels - labels.mean()) ** 2))
    if total > 0:
        found["r2"] = 1 - float(np.sum((labels - values) ** 2)) / total
        # Predictions that are all equal rank nothing: a correlation of 0, not an undefined one.
        found["spearman"] = (
            float(np.corrcoef(rankdata(labels), rankdata(values))[0, 1])
            if np.ptp(values) > 0
            else 0.0
        )
    found["mae"] = float(np.mean(np.abs(labels - values)))
    found["mean"] = float(labels.mean())
    return found
