"""Calibration in the large: whether as many come true as all chances together say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import Resamples, ratio

Values = npt.NDArray[np.float64]


def total_said(labels: Values, values: Values, resamples: Resamples) -> dict[str, Any] | None:
    """The sum of the chances beside the number of rows that came true.

    Of the rarer class: where nearly all come true, the few that do not are what chances can be
    wrong about. (Cox, Two Further Applications of a Model for Binary Regression, 1958, as
    Steyerberg, Clinical Prediction Models, 2009, names it.)

    Args:
        labels: float64[n], 0 or 1.
        values: float64[n], the chances of 1.
        resamples: Draws of the leads of these rows.

    Returns:
        `positive` (whether the rarer class is label 1), `said` and `came` in rows, and `value`,
        `low`, `high` of their ratio; None where nothing came, or in most resamples.
    """
    positive = float(labels.mean()) <= 0.5 if len(labels) else True
    said, came = (values, labels) if positive else (1 - values, 1 - labels)
    found = ratio(said, came, resamples)
    if found is None:
        return None
    return {
        "positive": bool(positive),
        "said": float(said.sum()),
        "came": float(came.sum()),
        **found,
    }
