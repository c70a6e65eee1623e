"""Metrics as people read them, in gate sentences, cards and tables."""

from __future__ import annotations

from collections.abc import Mapping

METRIC_NAMES: Mapping[str, str] = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "gini": "Gini index",
    "r2": "R2",
    "spearman": "Spearman correlation",
    "mae": "mean absolute error",
    "total_ratio": "predicted sum / actual sum",
    "captured_10": "captured in the top 10 %",
    "captured_20": "captured in the top 20 %",
    "lift_10": "lift in the top 10 %",
    "lift_20": "lift in the top 20 %",
}
"""What each metric is called, in the order in which they are shown."""

_PERCENT = ("accuracy", "precision", "recall", "captured_10", "captured_20")


def metric_text(metric: str, value: float) -> str:
    """A figure with as many digits as it deserves: shares in percent, the others by their size."""
    if metric in _PERCENT:
        return f"{100 * value:.1f} %"
    if metric.startswith("lift"):
        return f"{value:.2f}"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    # `z`: what rounds to nothing has no sign.
    return f"{value:z.{1 if abs(value) >= 100 else 3}f}"


def range_text(metric: str, low: float, high: float) -> str:
    """An interval, as in `0.712 to 0.745` or `71.2 to 74.5 %`."""
    return f"{metric_text(metric, low).removesuffix(' %')} to {metric_text(metric, high)}"
