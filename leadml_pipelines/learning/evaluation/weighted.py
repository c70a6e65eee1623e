"""Metrics of rows that count more or less than once, for many weightings at once.

A resample of a bootstrap is a weighting: a row drawn twice counts twice. Rows are sorted once, and
every metric is then a few sums along the sorted rows, for a whole block of resamples. With all
weights at 1 these are the plain metrics; there is no second implementation of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

ECE_BINS = 10
"""Bins of the expected calibration error, of equally many rows each; equal predictions share a bin.

Equal-frequency bins, because equal-width ones leave most bins of a rare event empty and are the
more biased estimate (Nixon et al., Measuring Calibration in Deep Learning, 2019; Roelofs et al.,
Mitigating Bias in Calibration Error Estimation, AISTATS 2022). The sum over bins of the share of
rows times |mean label - mean prediction| is that of Naeini et al. (AAAI 2015).
"""

TOP_SHARES: Mapping[str, float] = {"10": 0.10, "20": 0.20}
"""The best-ranked shares of the rows that lift and captured share look at, by their suffix."""

_EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss; float32 knows no finer ones."""
_ROUNDING = 1e-12
"""A variance that is this small a part of the squares is none."""


class Scored:
    """Labels and predictions of n rows, sorted, ready to be weighed.

    Args:
        objective: `classification` or `regression`.
        labels: float64[n], what happened.
        values: float64[n], probabilities or expected values.
        threshold: Probability from which the prediction is yes; one, or float64[n], one for each
            row.
    """

    def __init__(
        self, objective: str, labels: Values, values: Values, threshold: float | Values
    ) -> None:
        self.rows = len(labels)
        self._order = np.argsort(values, kind="stable")
        self._values = np.asarray(values, np.float64)[self._order]
        self._labels = np.asarray(labels, np.float64)[self._order]
        self._starts = _starts(self._values)
        self._threshold = np.broadcast_to(threshold, self.rows)[self._order]
        self._metrics: Mapping[str, Callable[[_Block], Values]] = {
            **(self._classification() if objective == "classification" else self._regression()),
            **{f"captured_{s}": partial(_captured, share) for s, share in TOP_SHARES.items()},
            **{f"lift_{s}": partial(_lift, share) for s, share in TOP_SHARES.items()},
        }

    @classmethod
    def answered(
        cls, objective: str, labels: Values, values: Values, predictions: Values
    ) -> Scored:
        """The same by the answers that were given, whatever the threshold was that gave them.

        Args:
            objective: `classification` or `regression`.
            labels: float64[n], what happened.
            values: float64[n], probabilities or expected values.
            predictions: float64[n], of a classifier 1 or 0.
        """
        return cls(objective, labels, values, np.where(predictions > 0, -np.inf, np.inf))

    def measure(self, weights: Values, only: Collection[str] | None = None) -> dict[str, Values]:
        """Every metric under every weighting.

        Args:
            weights: float64[k, n], how often each row counts, in the order the rows were given.
            only: Names of the wanted metrics; None for all.

        Returns:
            float64[k] by metric, NaN where a metric is undefined.
        """
        if not self.rows:
            return {}
        block = _Block(np.take(weights, self._order, axis=-1), self._labels, self._starts)
        return {
            name: metric(block)
            for name, metric in self._metrics.items()
            if only is None or name in only
        }

    def plain(self) -> dict[str, float]:
        """The metrics of the rows as they are; undefined ones are absent."""
        measured = self.measure(np.ones((1, self.rows)))
        return {name: float(v[0]) for name, v in measured.items() if np.isfinite(v[0])}

    def _classification(self) -> dict[str, Callable[[_Block], Values]]:
        happened = self._labels > 0
        safe = np.clip(self._values, _EPSILON, 1 - _EPSILON)
        yes = self._values >= self._threshold
        bins = _starts(bins_of(self._values))
        return {
            "roc_auc": _roc_auc,
            "average_precision": _average_precision,
            "log_loss": partial(_mean, -np.where(happened, np.log(safe), np.log1p(-safe))),
            "brier": partial(_mean, (self._values - self._labels) ** 2),
            "ece": partial(_ece, self._labels - self._values, bins),
            "accuracy": partial(_mean, yes == happened),
            "precision": partial(_share, yes & happened, yes),
            "recall": partial(_share, yes & happened, happened),
        }

    def _regression(self) -> dict[str, Callable[[_Block], Values]]:
        by_label = np.argsort(self._labels, kind="stable")
        return {
            "r2": partial(_r2, self._labels, self._values),
            "gini": _gini,
            "spearman": partial(_spearman, by_label),
            "mae": partial(_mean, np.abs(self._labels - self._values)),
            "total_ratio": partial(_share, self._values, self._labels),
        }


class _Block:
    """Weightings of the sorted rows, and the sums along them that several metrics need.

    Equal predictions are one group: no order among them is better than another.
    """

    def __init__(self, weights: Values, labels: Values, starts: Places) -> None:
        self.weights = weights
        self.labels = labels
        self.starts = starts

    @cached_property
    def total(self) -> Values:
        """float64[k]: the weight of all rows."""
        return np.asarray(self.weights.sum(-1))

    @cached_property
    def every(self) -> Values:
        """float64[k, groups]: the weight of each group, the lowest prediction first."""
        return self._grouped(self.weights)

    @cached_property
    def amounts(self) -> Values:
        """float64[k, groups]: its weight times label; of a classifier, its positives."""
        return self._grouped(self.weights * self.labels)

    @cached_property
    def reached(self) -> Values:
        """float64[k, groups]: the weight up to and with each group."""
        return np.cumsum(self.every, axis=-1)

    @cached_property
    def found(self) -> Values:
        """float64[k, groups]: weight times label up to and with each group."""
        return np.cumsum(self.amounts, axis=-1)

    def _grouped(self, of: Values) -> Values:
        if len(self.starts) == self.weights.shape[-1]:
            return of
        return np.asarray(np.add.reduceat(of, self.starts, axis=-1))


def _roc_auc(block: _Block) -> Values:
    """The chance that a positive ranks above a negative, ties counted half."""
    below = block.reached - block.found - 0.5 * (block.every - block.amounts)
    wins = np.einsum("ij,ij->i", block.amounts, below)
    positive = block.found[:, -1]
    return _divide(wins, positive * (block.total - positive))


def _average_precision(block: _Block) -> Values:
    """Mean over the positives of the precision at their rank."""
    positive = block.found[:, -1:]
    within = block.total[:, None] - block.reached + block.every
    right = positive - block.found + block.amounts
    precision = np.divide(right, within, out=np.zeros_like(right), where=within > 0)
    return _divide(np.einsum("ij,ij->i", block.amounts, precision), positive[:, 0])


def _captured(share: float, block: _Block) -> Values:
    """The share of all labels that lies in the best-ranked rows; a group counts in part."""
    rest = (1 - share) * block.total[:, None]
    last = block.every.shape[-1] - 1
    at = np.minimum((block.reached < rest).sum(-1, keepdims=True), last)
    width, amount, reached, found = (
        np.take_along_axis(of, at, -1)
        for of in (block.every, block.amounts, block.reached, block.found)
    )
    part = np.divide(reached - rest, width, out=np.zeros_like(rest), where=width > 0)
    total = block.found[:, -1]
    return _divide(total - (found - part * amount)[:, 0], total)


def _gini(block: _Block) -> Values:
    """How far ahead of chance the value is met when the rows are gone through from the best on.

    Twice the area between the captured curve and the diagonal: 0 for a random order, at most 1 less
    the share of the rows that hold the value. The Gini index of the ordered Lorenz curve (Frees,
    Meyers and Cummings, Summarizing Insurance Scores Using a Gini Index, JASA 2011). No order does
    better in expectation than that by the expected value.
    """
    below = np.einsum("ij,ij->i", block.amounts, block.reached - 0.5 * block.every)
    return 2 * _divide(below, block.found[:, -1] * block.total) - 1


def _lift(share: float, block: _Block) -> Values:
    return _captured(share, block) / share


def _ece(gaps: Values, bins: Places, block: _Block) -> Values:
    per_bin = np.add.reduceat(block.weights * gaps, bins, axis=-1)
    return _divide(np.abs(per_bin).sum(-1), block.total)


def _r2(labels: Values, values: Values, block: _Block) -> Values:
    centred = labels - labels.mean()
    squares = block.weights @ centred**2
    spread = squares - _divide((block.weights @ centred) ** 2, block.total)
    spread[spread <= _ROUNDING * squares] = np.nan
    return np.asarray(1 - (block.weights @ (labels - values) ** 2) / spread)


def _spearman(by_label: Places, block: _Block) -> Values:
    """Pearson's correlation of the mid-ranks that the repeated rows would have."""
    half = 0.5 * block.total[:, None]
    ranks = _ranks(block.weights, block.starts) - half
    ordered = np.take(block.weights, by_label, axis=-1)
    other = np.empty_like(ranks)
    other[:, by_label] = _ranks(ordered, _starts(block.labels[by_label])) - half
    weighted = block.weights * ranks
    both = np.einsum("ij,ij->i", weighted, other)
    mine = np.einsum("ij,ij->i", weighted, ranks)
    theirs = np.einsum("ij,ij,ij->i", block.weights, other, other)
    # Predictions that are all equal rank nothing: a correlation of 0, not an undefined one.
    nothing = (mine <= 0) & (theirs > 0)
    return np.where(nothing, 0.0, _divide(both, np.sqrt(mine * theirs)))


def bins_of(values: Values) -> Places:
    """The bin of the expected calibration error for each of the sorted predictions.

    Args:
        values: float64[n], ascending.

    Returns:
        int[n], ascending, from 0 to `ECE_BINS` - 1; equal predictions are in one bin.
    """
    starts = _starts(values)
    sizes = np.diff(np.append(starts, len(values)))
    middle = (starts + 0.5 * sizes) / max(len(values), 1)
    return np.repeat((middle * ECE_BINS).astype(np.intp), sizes)


def _starts(ordered: npt.NDArray[np.generic]) -> Places:
    """Where each run of equal entries begins."""
    if not len(ordered):
        return np.empty(0, np.intp)
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def _ranks(weights: Values, starts: npt.NDArray[np.intp]) -> Values:
    """Mid-rank of each of the sorted rows, counted from 0, were each there `weights` times."""
    sizes = np.diff(np.append(starts, weights.shape[-1]))
    groups = np.add.reduceat(weights, starts, axis=-1)
    return np.repeat(np.cumsum(groups, axis=-1) - 0.5 * groups, sizes, axis=-1)


def _mean(of: npt.NDArray[np.generic], block: _Block) -> Values:
    return _divide(block.weights @ of.astype(np.float64), block.total)


def _share(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic], block: _Block) -> Values:
    return _divide(
        block.weights @ part.astype(np.float64), block.weights @ whole.astype(np.float64)
    )


def _divide(above: Values, below: Values) -> Values:
    """A quotient; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
