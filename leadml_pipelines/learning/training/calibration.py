"""From raw scores to chances that mean what they say: of those given 0.23, 23 of 100 come true.

Both ways are fitted on rows that the model was not fitted on. Platt's is a logistic curve with two
parameters; the isotonic one is the centred isotonic regression, which joins the centres of the
steps of the ordinary one by lines, so that it keeps the order of nearly all scores.

Sources: Platt (1999), "Probabilistic outputs for support vector machines"; Zadrozny and Elkan
(2002), "Transforming classifier scores into accurate multiclass probability estimates"; Oron and
Flournoy (2017), "Centered isotonic regression".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

LEAST_FOR_ISOTONIC = 500
"""Fewest rows for an isotonic curve: with fewer it follows the noise."""
_EPSILON = 1e-7


@dataclass(frozen=True)
class Calibration:
    """A rising curve from raw scores to chances.

    Attributes:
        kind: `platt`, `isotonic` or `none`; the last takes the raw score for log-odds.
        slope: Of `platt`, on the raw score.
        level: Of `platt`.
        scores: Of `isotonic`: raw scores of the corners, rising.
        chances: Of `isotonic`: chances at the corners, rising.
    """

    kind: str
    slope: float = 1.0
    level: float = 0.0
    scores: Vector | None = None
    chances: Vector | None = None

    def __call__(self, raw: Vector) -> Vector:
        """Chances of raw scores, float64[n]."""
        if self.kind == "isotonic":
            if self.scores is None or self.chances is None:
                raise ValueError("an isotonic calibration needs its corners")
            return np.asarray(np.interp(raw, self.scores, self.chances), np.float64)
        return sigmoid(self.slope * raw + self.level)

    def to_arrays(self) -> dict[str, Any]:
        """Plain content, for a file."""
        return {
            "kind": self.kind,
            "slope": self.slope,
            "level": self.level,
            "scores": self.scores,
            "chances": self.chances,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_arrays`."""
        return cls(**arrays)


def sigmoid(raw: Vector) -> Vector:
    """The chance of log-odds."""
    # Beyond 700 the exponential overflows; the chance is 0 or 1 long before.
    return np.asarray(1 / (1 + np.exp(-np.clip(raw, -700, 700))), np.float64)


def fit_platt(raw: Vector, labels: Vector) -> Calibration:
    """The logistic curve of greatest likelihood; never a falling one."""
    from sklearn.linear_model import LogisticRegression

    if np.ptp(raw) == 0:
        return Calibration("platt", 0.0, float(_logit(labels.mean())))
    # A hardly noticed penalty keeps the slope finite when scores tell the classes apart entirely.
    scale = float(raw.std())
    model = LogisticRegression(C=1e4, max_iter=1_000).fit(raw[:, None] / scale, labels)
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:
        return Calibration("platt", 0.0, float(_logit(labels.mean())))
    return Calibration("platt", slope, float(model.intercept_[0]))


def fit_isotonic(raw: Vector, labels: Vector) -> Calibration:
    """The centred isotonic curve of least squares.

    Each step's share is drawn to the mean as by one more row, so that no chance is exactly 0 or 1.
    """
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(raw, kind="stable")
    scores, start = np.unique(raw[order], return_index=True)
    rows = np.diff(np.append(start, len(raw))).astype(np.float64)
    positive = np.add.reduceat(labels[order], start)
    level = isotonic_regression(positive / rows, sample_weight=rows)
    edges = np.flatnonzero(np.diff(level, prepend=-1.0))
    weight = np.add.reduceat(rows, edges)
    centres = np.add.reduceat(scores * rows, edges) / weight
    share = (np.add.reduceat(positive, edges) + labels.mean()) / (weight + 1)
    chances = np.clip(np.maximum.accumulate(share), _EPSILON, 1 - _EPSILON)
    return Calibration("isotonic", scores=centres, chances=chances)


def fit_calibration(
    kind: str, raw: Vector, labels: Vector, groups: npt.NDArray[Any]
) -> tuple[Calibration, dict[str, Any]]:
    """The wanted calibration, or the better of two.

    Args:
        kind: `best`, `platt`, `isotonic` or `none`.
        raw: float64[n], raw scores of rows that the model was not fitted on.
        labels: float64[n], 0 or 1.
        groups: [n], the entity of each row: each half of the comparison has its own entities.

    Returns:
        The calibration fitted on all rows, and what was seen: the log loss of either kind on the
        halves it was not fitted on.
    """
    if kind == "none":
        return Calibration("none"), {"kind": "none"}
    fits = {"platt": fit_platt, "isotonic": fit_isotonic}
    if kind != "best":
        return fits[kind](raw, labels), {"kind": kind}
    _, codes = np.unique(groups, return_inverse=True)
    halves = codes % 2 == 0
    if len(raw) < LEAST_FOR_ISOTONIC or min(labels[halves].sum(), labels[~halves].sum()) < 1:
        reason = f"{len(raw)} rows are too few for an isotonic curve"
        return fit_platt(raw, labels), {"kind": "platt", "reason": reason}
    losses = {}
    for name, fit in fits.items():
        guess = np.empty(len(raw))
        for half in (halves, ~halves):
            guess[~half] = fit(raw[half], labels[half])(raw[~half])
        losses[name] = log_loss(labels, guess)
    best = min(losses, key=lambda name: losses[name])
    return fits[best](raw, labels), {"kind": best, "log_loss": losses}


def log_loss(labels: Vector, chances: Vector) -> float:
    """Mean of minus the logarithm of the chance given to what happened."""
    safe = np.clip(chances, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels > 0, np.log(safe), np.log1p(-safe))))


def _logit(share: float) -> float:
    safe = float(np.clip(share, _EPSILON, 1 - _EPSILON))
    return float(np.log(safe / (1 - safe)))
