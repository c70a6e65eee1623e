"""Whether 0.23 means 23 of 100, and how far off chance alone would make it look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import LEVEL
from leadml_pipelines.learning.evaluation.weighted import bins_of

Values = npt.NDArray[np.float64]

DRAWS = 1_000
"""How often chance is asked."""


@dataclass(frozen=True)
class Bin:
    """Rows with about the same prediction.

    Attributes:
        rows: How many.
        predicted: Their mean prediction.
        actual: Their mean label.
        low: Where 95 % of the mean labels of such leads would begin.
        high: Where they would end.
    """

    rows: int
    predicted: float
    actual: float
    low: float
    high: float


def reliability(
    labels: Values, values: Values, leads: npt.NDArray[np.intp]
) -> list[dict[str, Any]]:
    """Prediction against what came, in the bins of the expected calibration error.

    Args:
        labels: float64[n], what happened.
        values: float64[n], predictions.
        leads: int[n], the lead of each row; rows of one lead are not independent.

    Returns:
        The fields of `Bin` for each bin, lowest predictions first.
    """
    order = np.argsort(values, kind="stable")
    bins = np.empty(len(values), np.intp)
    bins[order] = bins_of(values[order])
    found = []
    for number in np.unique(bins):
        rows = bins == number
        actual = float(labels[rows].mean())
        # The deviation of a mean of clusters: of the sums of the deviations in each lead.
        sums = np.bincount(leads[rows], labels[rows] - actual)
        reach = 1.96 * float(np.sqrt(np.sum(sums**2))) / int(rows.sum())
        found.append(
            asdict(
                Bin(
                    int(rows.sum()),
                    float(values[rows].mean()),
                    actual,
                    actual - reach,
                    actual + reach,
                )
            )
        )
    return found


def error_by_chance(
    labels: Values, values: Values, leads: npt.NDArray[np.intp], *, seed: int
) -> float:
    """The expected calibration error that perfectly calibrated predictions stay under, 95 of 100.

    Few rows look uncalibrated by chance alone, and rows of one lead even more so, because they
    come true together. So the deviations of each lead keep their size and their company and get a
    sign by lot, lead by lead (a wild cluster bootstrap: Cameron, Gelbach and Miller, Review of
    Economics and Statistics, 2008); in such a world nothing is off on average.

    Args:
        labels: float64[n], what happened.
        values: float64[n], predictions.
        leads: int[n], the lead of each row.
        seed: Same seed, same answer.
    """
    order = np.argsort(values, kind="stable")
    bins = np.empty(len(values), np.intp)
    bins[order] = bins_of(values[order])
    size, width = int(leads.max()) + 1, int(bins.max()) + 1
    cells = np.bincount(leads * width + bins, labels - values, minlength=size * width)
    deviations = cells.reshape(size, width)
    rng = np.random.default_rng(seed)
    errors = [
        np.abs(rng.choice((-1.0, 1.0), size) @ deviations).sum() / len(labels) for _ in range(DRAWS)
    ]
    return float(np.quantile(errors, LEVEL))
