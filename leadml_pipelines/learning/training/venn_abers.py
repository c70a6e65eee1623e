"""How sure a chance is: the interval of an inductive Venn-Abers predictor.

For a raw score, the isotonic regression of the calibration rows is drawn twice, once with the new
row added as a 0 and once as a 1. One of the two values at its place is calibrated, whatever the
data are; when they lie close together, little is left open. Source: Vovk, Petej and Fedorova
(2015), "Large-scale probabilistic predictors with and without guarantees of validity".

What is told apart are leads, not rows: the rows of one lead share its fate, so each weighs one over
the number of the lead's rows, and the row that is added is one more lead. The width says how far
that lead's outcome could move the chance at its place. It does not say how far the chance may be
from the truth: that the months to come are like those before is taken for granted.

The values are tabulated at no more than `GROUPS` scores, so that an answer takes two look-ups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

GROUPS = 400
"""Most places at which the interval is kept; rows between two places are put together."""


@dataclass(frozen=True)
class VennAbers:
    """The interval at each of some raw scores, with lines between them.

    Attributes:
        scores: float64[k], rising.
        low: float64[k], the chance with the new row as a 0.
        high: float64[k], with the new row as a 1.
    """

    scores: Vector
    low: Vector
    high: Vector

    def interval(self, raw: Vector) -> tuple[Vector, Vector]:
        """Lower and upper chance of raw scores, float64[n] each."""
        low = np.interp(raw, self.scores, self.low)
        return np.asarray(low, np.float64), np.asarray(
            np.interp(raw, self.scores, self.high), np.float64
        )

    def confidence(self, raw: Vector) -> Vector:
        """1 minus the width of the interval, float64[n] in 0..1."""
        low, high = self.interval(raw)
        return 1 - (high - low)

    def to_arrays(self) -> dict[str, Vector]:
        """Plain content, for a file."""
        return {"scores": self.scores, "low": self.low, "high": self.high}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> VennAbers:
        """The inverse of `to_arrays`."""
        return cls(**arrays)


def fit_venn_abers(raw: Vector, labels: Vector, leads: npt.NDArray[Any]) -> VennAbers:
    """Tabulate the intervals of calibration rows.

    Args:
        raw: float64[n], raw scores of rows that the model was not fitted on; at least one.
        labels: float64[n], 0 or 1.
        leads: [n], the lead of each row.
    """
    from sklearn.isotonic import isotonic_regression

    _, codes, sizes = np.unique(leads, return_inverse=True, return_counts=True)
    order = np.argsort(raw, kind="stable")
    scores, rows, positive = _grouped(raw[order], labels[order], 1 / sizes[codes][order])
    low, high = np.empty(len(scores)), np.empty(len(scores))
    for label, into in ((0.0, low), (1.0, high)):
        for at in range(len(scores)):
            weight, share = rows.copy(), positive.copy()
            weight[at] += 1
            share[at] += label
            into[at] = isotonic_regression(share / weight, sample_weight=weight)[at]
    return VennAbers(scores, low, high)


def _grouped(raw: Vector, labels: Vector, weights: Vector) -> tuple[Vector, Vector, Vector]:
    """Mean score, weight and weight of the positives of neighbouring rows, by rising score.

    Rows of one score stay together.
    """
    unique, start = np.unique(raw, return_index=True)
    if len(unique) > GROUPS:
        places = np.linspace(0, len(raw), GROUPS, endpoint=False).astype(np.intp)
        start = np.unique(start[np.searchsorted(start, places, "right") - 1])
    weight = np.add.reduceat(weights, start)
    scores = np.add.reduceat(raw * weights, start) / weight
    return scores, weight, np.add.reduceat(labels * weights, start)
