"""How far a figure could be another by chance: 95 % bootstrap intervals, leads drawn as a whole.

A lead has a row for many moments, and its rows are alike; rows drawn one by one would pretend to
know more than there is. So a resample draws leads, with all of their rows, and two models are
compared on the same resamples, where what is hard about a resample is hard for both.

500 resamples of 60,000 rows of 12,000 leads take 2 s of processor time for all metrics of a
classifier and 1 s for those of a regression (`python -m benchmarks.intervals`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.weighted import Scored

Values = npt.NDArray[np.float64]

RESAMPLES = 500
"""Resamples of an interval: its ends move by about a tenth of its length from seed to seed."""
LEVEL = 0.95
"""How often an interval holds the true figure."""

_CELLS = 250_000
"""Weights computed at once; more no longer fit the processor's cache."""
_SHIFTED = ("ece",)
"""Metrics that a resample overstates: noise always adds to them. Their intervals are moved back by
what the resamples overstate on average."""


@dataclass(frozen=True)
class Resamples:
    """Draws of leads with replacement.

    Attributes:
        codes: int[n], the lead of each row.
        counts: int16[k, leads], how often each resample drew each lead.
    """

    codes: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int16]

    def within(self, rows: npt.NDArray[np.bool_]) -> Resamples:
        """The same draws, of some of the rows.

        Args:
            rows: bool[n], which.
        """
        return Resamples(self.codes[rows], self.counts)

    def blocks(self) -> Iterator[Values]:
        """The weights of the rows, float64[a few resamples, n] at a time."""
        step = max(1, _CELLS // max(len(self.codes), 1))
        for at in range(0, len(self.counts), step):
            yield np.take(self.counts[at : at + step], self.codes, axis=1).astype(np.float64)


def draw(leads: Sequence[Any] | npt.NDArray[Any], *, seed: int, resamples: int) -> Resamples:
    """Draw leads.

    Args:
        leads: The lead of each row.
        seed: Same seed, same draws.
        resamples: How many.
    """
    _, codes = np.unique(np.asarray(leads, dtype=object).astype("U"), return_inverse=True)
    size = int(codes.max()) + 1 if len(codes) else 0
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, size), np.int16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, size, size), minlength=size)
    return Resamples(codes.reshape(-1), counts)


@dataclass(frozen=True)
class Measured:
    """A model's figures, and what they were on each resample.

    Attributes:
        point: Each defined metric on the rows themselves.
        draws: float64[k] by metric, NaN where a resample leaves it undefined.
    """

    point: Mapping[str, float]
    draws: Mapping[str, Values]

    def intervals(self) -> dict[str, dict[str, float]]:
        """`value`, `low` and `high` by metric, fit for JSON."""
        return {
            name: found
            for name, value in self.point.items()
            if (found := interval(name, value, self.draws[name]))
        }

    def minus(self, other: Measured) -> dict[str, dict[str, float]]:
        """The differences to another model on the same rows and resamples, paired."""
        both = [name for name in self.point if name in other.point]
        found = {
            name: interval(
                name,
                self.point[name] - other.point[name],
                self.draws[name] - other.draws[name],
                signed=True,
            )
            for name in both
        }
        return {name: one for name, one in found.items() if one is not None}


def measure(scored: Scored, resamples: Resamples, only: Collection[str] | None = None) -> Measured:
    """A model's metrics on the rows and on every resample.

    Args:
        scored: Its predictions.
        resamples: Draws of the leads of the same rows.
        only: Names of the wanted metrics; None for all.
    """
    point = {n: v for n, v in scored.plain().items() if only is None or n in only}
    parts = [scored.measure(weights, point) for weights in resamples.blocks()]
    return Measured(point, {n: np.concatenate([part[n] for part in parts]) for n in point})


def ratio(above: Values, below: Values, resamples: Resamples) -> dict[str, float] | None:
    """The sum of one figure of the rows over the sum of another, with its interval.

    Args:
        above: float64[n].
        below: float64[n], 0 or more; all 1 for the mean of `above`.
        resamples: Draws of the leads of these rows.

    Returns:
        `value`, `low`, `high`; None where there is nothing to divide by, or in most resamples.
    """
    if below.sum() <= 0:
        return None
    leads = resamples.counts.shape[1]
    tops, bottoms = (
        resamples.counts @ np.bincount(resamples.codes, of, minlength=leads)
        for of in (above, below)
    )
    draws = np.divide(tops, bottoms, out=np.full(len(tops), np.nan), where=bottoms > 0)
    return interval("ratio", float(above.sum() / below.sum()), draws)


def interval(
    name: str, value: float, draws: Values, *, signed: bool = False
) -> dict[str, float] | None:
    """The percentile interval of a figure.

    Args:
        name: Name of the metric.
        value: The figure on the rows themselves.
        draws: The figure on each resample.
        signed: Whether it may be negative, as a difference may.

    Returns:
        `value`, `low`, `high`; None where most resamples leave it undefined.
    """
    known = draws[np.isfinite(draws)]
    if len(known) <= len(draws) / 2:
        return None
    tail = (1 - LEVEL) / 2
    low, high = (float(end) for end in np.quantile(known, [tail, 1 - tail]))
    if name in _SHIFTED:
        shift = float(known.mean()) - value
        low, high = low - shift, high - shift
        if not signed:
            low, high = max(low, 0.0), max(high, 0.0)
    return {"value": value, "low": low, "high": high}
