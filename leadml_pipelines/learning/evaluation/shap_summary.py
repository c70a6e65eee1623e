"""Which features move a model's answers, how far, and in which direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY

if TYPE_CHECKING:
    from leadml_pipelines.learning.model import LoadedModel

Matrix = npt.NDArray[np.float64]

ROWS = 2_000
"""Rows that are explained; more dots in a picture are one blot."""
FEATURES = 15
"""Features that are kept, the greatest first."""

_UNITS = {"logit": "log-odds", "log": "logarithm of the value", "identity": "the value's unit"}
"""What raw scores are in, by the link of the model."""


@dataclass(frozen=True)
class ShapSummary:
    """SHAP values of some test rows, for the features that matter most.

    Attributes:
        features: Their names, the greatest mean absolute SHAP value first.
        categories: Whether each is a category, whose codes have no order.
        shap: float64[rows, features].
        values: float64[rows, features], the features' own values; missing is NaN.
        unit: What SHAP values are in, as in `log-odds`.
        importance: For each feature of the model, the greatest first: `feature` and `mean_abs`.
    """

    features: tuple[str, ...]
    categories: tuple[bool, ...]
    shap: Matrix
    values: Matrix
    unit: str
    importance: list[dict[str, Any]]


def shap_summary(model: LoadedModel, matrix: Matrix, *, seed: int) -> ShapSummary:
    """Explain a sample of rows.

    Args:
        model: The model.
        matrix: float64[n, features], encoded by the model.
        seed: Which rows are taken.
    """
    if len(matrix) > ROWS:
        chosen = np.random.default_rng(seed).choice(len(matrix), ROWS, replace=False)
        matrix = matrix[np.sort(chosen)]
    shap = model.contributions(matrix).values
    weight = np.abs(shap).mean(0)
    order = np.argsort(-weight, kind="stable")
    top = order[:FEATURES]
    return ShapSummary(
        features=tuple(model.features[at] for at in top),
        categories=tuple(model.encoder.columns[at].type == CATEGORY for at in top),
        shap=shap[:, top],
        values=matrix[:, top],
        unit=_UNITS[model.manifest["link"]],
        importance=[
            {"feature": model.features[at], "mean_abs": round(float(weight[at]), 6)} for at in order
        ],
    )
