"""From raw scores to answers that mean what they say: of those given 0.23, 23 of 100 come true.

A calibration has a shape and a level, and the validation part teaches the shape alone: how much
more a higher score means. It is a line on the scale of the link (for chances Platt's logistic
curve), or the centred isotonic regression, which joins the centres of the steps of the ordinary one
by lines, so that it keeps the order of nearly all scores. The level, how much comes true in all,
stays that of the raw scores, which on the rows of the fit is the truth. What the folds' models said
too little of the validation months is the surprise of those months, mostly season and luck; the
model that is calibrated has learned from the same months, so to add it would count it twice.

Which shape is taken, or none, is decided from each fold to the others, at the level that came true
there.

Sources: Platt (1999), "Probabilistic outputs for support vector machines"; Zadrozny and Elkan
(2002), "Transforming classifier scores into accurate multiclass probability estimates"; Oron and
Flournoy (2017), "Centered isotonic regression"; of values: Denuit, Charpentier and Trufin (2021),
"Autocalibration and Tweedie-dominance for insurance pricing with machine learning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

LEAST_FOR_ISOTONIC = 500
"""Fewest rows for an isotonic curve: with fewer it follows the noise."""
STEPS_OF_VALUES = 20
"""Most steps of an isotonic curve of values: a single large one must not make a step of its own."""
TWEEDIE_POWER = 1.5
"""Of the deviance by which expected values are judged; the one that the trees are fitted by."""
_EPSILON = 1e-7
_STEEPEST = 5.0
"""Greatest slope of a line; scores that need more tell nothing that could be trusted."""
_HALVINGS = 60
"""Of an interval of log-odds: to the last bit."""


def sigmoid(raw: Vector) -> Vector:
    """The chance of log-odds."""
    return np.asarray(1 / (1 + _exp(-raw)), np.float64)


def _exp(raw: Vector) -> Vector:
    # Beyond 709 it overflows; a chance is 0 or 1, and a value absurd, long before.
    return np.asarray(np.exp(np.clip(raw, -700, 700)), np.float64)


LINKS: Mapping[str, Callable[[Vector], Vector]] = {
    "identity": lambda raw: np.maximum(raw, 0.0),
    "log": _exp,
    "logit": sigmoid,
}
"""From raw scores to answers; what is expected of a premium is never less than nothing."""


@dataclass(frozen=True)
class Calibration:
    """A rising curve from raw scores to chances or expected values.

    Attributes:
        kind: `line` or `platt` (a line on the scale of the link; for chances it is Platt's curve),
            `isotonic`, or `none`, which takes the raw score as it is.
        slope: Of a line, on the raw score.
        level: Of a line.
        scores: Of `isotonic`: raw scores of the corners, rising.
        chances: Of `isotonic`: chances or values at the corners, rising.
        link: The scale of the raw scores: `logit`, `log` or `identity`.
    """

    kind: str
    slope: float = 1.0
    level: float = 0.0
    scores: Vector | None = None
    chances: Vector | None = None
    link: str = "logit"

    def __call__(self, raw: Vector) -> Vector:
        """Chances or values of raw scores, float64[n]."""
        if self.kind == "isotonic":
            if self.scores is None or self.chances is None:
                raise ValueError("an isotonic calibration needs its corners")
            between = np.interp(raw, self.scores, self.chances)
            # By a rounding it may come out above the corner that it leads up to.
            ahead = np.minimum(np.searchsorted(self.scores, raw), len(self.scores) - 1)
            return np.asarray(np.minimum(between, self.chances[ahead]), np.float64)
        if self.kind == "none":
            return LINKS[self.link](raw)
        return LINKS[self.link](self.slope * raw + self.level)

    def to_arrays(self) -> dict[str, Any]:
        """Plain content, for a file."""
        return {
            "kind": self.kind,
            "slope": self.slope,
            "level": self.level,
            "scores": self.scores,
            "chances": self.chances,
            "link": self.link,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_arrays`."""
        return cls(**arrays)


@dataclass(frozen=True)
class Fitted:
    """A calibration, and what can be said of the rows that it was fitted on.

    Attributes:
        calibration: Fitted on all rows.
        crossed: float64[n]: of each row, the answer of the same kind of calibration fitted on the
            other folds, at the level of its own fold. What is chosen by these rows is chosen by
            these answers.
        record: `kind`, and the `loss` of each shape on folds it was not fitted on; JSON-ready.
    """

    calibration: Calibration
    crossed: Vector
    record: dict[str, Any]


def fit_platt(raw: Vector, labels: Vector) -> Calibration:
    """The logistic curve of greatest likelihood; never a falling one."""
    from sklearn.linear_model import LogisticRegression

    if np.ptp(raw) == 0 or np.ptp(labels) == 0:
        return Calibration("platt", 0.0, float(_logit(labels.mean())))
    # A hardly noticed penalty keeps the slope finite when scores tell the classes apart entirely.
    scale = float(raw.std())
    model = LogisticRegression(C=1e4, max_iter=1_000).fit(raw[:, None] / scale, labels)
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:
        return Calibration("platt", 0.0, float(_logit(labels.mean())))
    return Calibration("platt", slope, float(model.intercept_[0]))


def fit_line(raw: Vector, labels: Vector, link: str) -> Calibration:
    """The line on the scale of the link with the least loss whose mean answer is the labels' mean.

    Never a falling one. Of the link `log` it is a power of the value.
    """
    from scipy.optimize import minimize_scalar

    mean = float(labels.mean())

    def line(slope: float) -> Calibration:
        return Calibration("line", slope, shift_to_mean(link, slope * raw, mean), link=link)

    found = minimize_scalar(
        lambda slope: loss_of(link, labels, line(slope)(raw)),
        bounds=(0.0, _STEEPEST),
        method="bounded",
    )
    return line(float(found.x))


def fit_isotonic(raw: Vector, labels: Vector, link: str = "logit") -> Calibration:
    """The centred isotonic curve of least squares.

    Each step's mean is drawn to the mean of all as by one more row, so that no chance is exactly 0
    or 1 and no value is nothing. Values are put together in `STEPS_OF_VALUES` equal parts before.
    """
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(raw, kind="stable")
    scores, start = np.unique(raw[order], return_index=True)
    if link != "logit" and len(start) > STEPS_OF_VALUES:
        wanted = np.linspace(0, len(raw), STEPS_OF_VALUES, endpoint=False)
        start = np.unique(start[np.searchsorted(start, wanted, "right") - 1])
    rows = np.diff(np.append(start, len(raw))).astype(np.float64)
    scores = np.add.reduceat(raw[order], start) / rows
    came = np.add.reduceat(labels[order], start)
    level = isotonic_regression(came / rows, sample_weight=rows)
    edges = np.flatnonzero(np.diff(level, prepend=-np.inf))
    weight = np.add.reduceat(rows, edges)
    centres = np.add.reduceat(scores * rows, edges) / weight
    share = (np.add.reduceat(came, edges) + labels.mean()) / (weight + 1)
    answers = np.maximum.accumulate(share)
    if link == "logit":
        answers = np.clip(answers, _EPSILON, 1 - _EPSILON)
    return Calibration("isotonic", scores=centres, chances=answers, link=link)


def fit_calibration(
    kind: str,
    raw: Vector,
    labels: Vector,
    folds: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    *,
    link: str = "logit",
) -> Fitted:
    """The wanted calibration, or the best.

    Args:
        kind: `best`, `platt` (for values: a line), `isotonic` or `none`.
        raw: float64[n], raw scores of rows that the model was not fitted on.
        labels: float64[n]: 0 or 1, or values.
        folds: [n], the validation fold of each row: blocks of time, with entities of their own.
            Where there is one alone, two halves of the entities take the place of folds.
        groups: [n], the entity of each row.
        link: The scale of the raw scores.
    """
    blocks = folds if len(np.unique(folds)) > 1 else np.unique(groups, return_inverse=True)[1] % 2
    inside = [blocks == block for block in np.unique(blocks)]
    at_level = raw.copy()
    for block in inside:
        at_level[block] = _levelled(link, raw[block], labels[block])
    shapes, reason = _shapes(kind, link, labels, inside)
    crossed, losses = {}, {}
    for name, fit in shapes.items():
        crossed[name] = np.empty(len(raw))
        for block in inside:
            said = fit(at_level[~block], labels[~block])(at_level[block])
            back = _levelled(link, _unlinked(link, said), labels[block])
            crossed[name][block] = LINKS[link](back)
        losses[name] = loss_of(link, labels, crossed[name])
    best = min(losses, key=lambda name: losses[name])
    calibration = _kept(shapes[best](at_level, labels), raw)
    return Fitted(calibration, crossed[best], {"kind": best, "loss": losses, **reason})


def shift_to_mean(link: str, raw: Vector, mean: float) -> float:
    """What has to be added to raw scores so that their mean answer is `mean`.

    Args:
        link: The scale of the raw scores.
        raw: float64[n]; finite.
        mean: The wanted mean; strictly between 0 and 1 for `logit`, over 0 for `log`, which takes
            nothing for next to nothing.
    """
    if link == "identity":
        return mean - float(raw.mean())
    if link == "log":
        greatest = float(raw.max())
        wanted = np.log(max(mean, _EPSILON))
        return float(wanted - greatest - np.log(np.exp(raw - greatest).mean()))
    # The mean of the chances rises with the shift, and is on either side of the wanted one here.
    low, high = _logit(mean) - float(raw.max()), _logit(mean) - float(raw.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sigmoid(raw + middle).mean() < mean:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def loss_of(link: str, labels: Vector, answers: Vector) -> float:
    """What answers are judged by; less is better.

    The log loss of chances, Tweedie's deviance of values on a log scale, the squared error of
    others. The truth has the least expected loss in each of them.
    """
    if link == "logit":
        return log_loss(labels, answers)
    if link == "identity":
        return float(np.mean((labels - answers) ** 2))
    # Without what depends on the labels alone.
    power, safe = TWEEDIE_POWER, np.maximum(answers, _EPSILON)
    terms = safe ** (2 - power) / (2 - power) - labels * safe ** (1 - power) / (1 - power)
    return float(np.mean(terms))


def log_loss(labels: Vector, chances: Vector) -> float:
    """Mean of minus the logarithm of the chance given to what happened."""
    safe = np.clip(chances, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels > 0, np.log(safe), np.log1p(-safe))))


_Fit = Callable[[Vector, Vector], Calibration]


def _shapes(
    kind: str, link: str, labels: Vector, inside: list[npt.NDArray[np.bool_]]
) -> tuple[dict[str, _Fit], dict[str, str]]:
    """Ways to fit, by name; and why there are not more of them."""
    line = "platt" if link == "logit" else "line"
    every: dict[str, _Fit] = {
        "none": lambda raw, labels: Calibration("none", link=link),
        line: fit_platt if link == "logit" else lambda raw, labels: fit_line(raw, labels, link),
        "isotonic": lambda raw, labels: fit_isotonic(raw, labels, link),
    }
    if kind != "best":
        wanted = line if kind == "platt" else kind
        return {wanted: every[wanted]}, {}
    one_sided = any(np.ptp(labels[block]) == 0 for block in inside)
    if len(labels) < LEAST_FOR_ISOTONIC or one_sided:
        del every["isotonic"]
        return every, {"reason": f"{len(labels)} rows are too few for an isotonic curve"}
    return every, {}


def _kept(curve: Calibration, raw: Vector) -> Calibration:
    """The same shape at the level of the raw scores: their mean answer stays what it is."""
    if curve.kind == "none":
        return curve
    mean = float(LINKS[curve.link](raw).mean())
    if curve.chances is None:
        return replace(curve, level=shift_to_mean(curve.link, curve.slope * raw, mean))
    shift = shift_to_mean(curve.link, _unlinked(curve.link, curve(raw)), mean)
    moved = LINKS[curve.link](_unlinked(curve.link, curve.chances) + shift)
    return replace(curve, chances=moved)


def _levelled(link: str, raw: Vector, labels: Vector) -> Vector:
    """Raw scores moved so that their mean answer is what came; as they are where that can't be."""
    mean = float(labels.mean())
    if link != "identity" and not 0 < mean < (1 if link == "logit" else np.inf):
        return raw
    return raw + shift_to_mean(link, raw, mean)


def _unlinked(link: str, answers: Vector) -> Vector:
    """The inverse of a link."""
    if link == "identity":
        return answers
    return _logit(answers) if link == "logit" else np.log(np.maximum(answers, _EPSILON))


def _logit(share: Any) -> Any:
    safe = np.clip(share, _EPSILON, 1 - _EPSILON)
    return np.log(safe / (1 - safe))
