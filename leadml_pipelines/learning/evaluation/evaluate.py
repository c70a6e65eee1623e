"""How good a set of predictions is, on rows that the model has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import CALENDAR

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]


def evaluate(
    spec: ModelSpec,
    labels: Values,
    values: Values,
    moments: pd.Series | None = None,
    *,
    threshold: float | Values = 0.5,
) -> dict[str, Any]:
    """Metrics of predictions.

    Args:
        spec: Says what kind of model this is.
        labels: float64[n], what happened.
        values: float64[n], probabilities or expected values.
        moments: The `moment` of each row; when some are ages, `by_age` has the metrics at each.
        threshold: Probability from which the prediction is yes, one or float64[n]; for accuracy,
            precision, recall.

    Returns:
        Plain numbers, fit for JSON. Classification: `roc_auc`, `average_precision`, `log_loss`,
        `brier`, `ece` (see `weighted.ECE_BINS`), `accuracy`, `precision`, `recall`, `base_rate`.
        Regression: `gini` (how well the value is ranked), `r2`, `spearman`, `mae`, `total_ratio`
        (all that was predicted over all that came), `mean`. Both: `captured_10` and
        `captured_20`, the share of all positives (or of the whole value) in the tenth and the fifth
        of the rows that rank best, and `lift_10` and `lift_20`, the same over what a random choice
        would hold; `rows` and `positives`. A metric that is undefined (one class only, nothing
        predicted) is absent.
    """
    thresholds = np.broadcast_to(threshold, len(labels))
    metrics: dict[str, Any] = _metrics(spec, labels, values, thresholds)
    if moments is not None:
        names = [name for name in moments.unique() if name != CALENDAR]
        if names:
            metrics["by_age"] = {
                name: _metrics(spec, labels[rows], values[rows], thresholds[rows])
                for name in names
                if (rows := (moments == name).to_numpy(bool)).any()
            }
    return metrics


def _metrics(
    spec: ModelSpec, labels: Values, values: Values, threshold: Values
) -> dict[str, float | int]:
    found: dict[str, float | int] = dict(Scored(spec.objective, labels, values, threshold).plain())
    if len(labels):
        found["base_rate" if spec.objective == "classification" else "mean"] = float(labels.mean())
    return {**found, "rows": len(labels), "positives": int((labels > 0).sum())}
