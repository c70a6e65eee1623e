"""The same model for whom: its metric apart for each source, state, product, agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import LEVEL, Resamples, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import HIGHER_IS_BETTER, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

LEAST_LEADS = 30
"""Leads with a positive row, and leads with another, that a slice needs to be measured at all. With
fewer, the interval of a ROC AUC is wider than 0.2 and says nothing."""


@dataclass(frozen=True)
class Slice:
    """A model's metric on the rows that share a word.

    Attributes:
        column: What the rows are cut by, as in `state`.
        word: What they share, as in `TX`.
        rows: How many there are.
        positives: Those with a label over 0.
        value: The metric.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    column: str
    word: str
    rows: int
    positives: int
    value: float
    low: float
    high: float

    def better_end(self, higher_is_better: bool) -> float:
        """The end of the interval that is kindest to the model."""
        return self.high if higher_is_better else self.low

    def kindest(self, higher_is_better: bool, looked_at: int) -> float:
        """The best value that noise leaves open when this is one of many slices.

        Of 60 sound slices, one or two lie outside of their own 95 % interval on the bad side. So
        the level is shared out among all that were looked at (Bonferroni), on a normal curve as
        wide as the interval.
        """
        normal = NormalDist()
        tail = (1 - LEVEL) / 2
        deviation = (self.high - self.low) / 2 / normal.inv_cdf(1 - tail)
        reach = normal.inv_cdf(1 - tail / max(looked_at, 1)) * deviation
        return self.value + reach if higher_is_better else self.value - reach


def measure_slices(
    spec: ModelSpec,
    frame: pd.DataFrame,
    labels: Values,
    values: Values,
    resamples: Resamples,
    *,
    threshold: float,
) -> tuple[Slice, ...]:
    """The spec's metric on each slice that is large enough (`LEAST_LEADS`).

    Args:
        spec: Names the columns and the metric. A column that the frame lacks is no slice.
        frame: The test rows.
        labels: float64[n], what happened.
        values: float64[n], the predictions.
        resamples: Draws of the leads of these rows.
        threshold: Probability from which the prediction is yes.

    Returns:
        The slices, the worst first: that whose interval ends lowest (for a loss: begins highest).
        A small slice with a wide interval is not called the worst because of its noise.
    """
    found: list[Slice] = []
    for column in spec.slices:
        if column not in frame:
            continue
        words = frame[column].astype(object)
        for word in sorted({str(w) for w in words.dropna()}):
            chosen = (words.astype(str) == word).to_numpy(bool)
            if not _large_enough(labels[chosen], resamples.codes[chosen]):
                continue
            scored = Scored(spec.objective, labels[chosen], values[chosen], threshold)
            measured = measure(scored, resamples.within(chosen), (spec.metric,)).intervals()
            if spec.metric in measured:
                positives = int((labels[chosen] > 0).sum())
                found.append(
                    Slice(column, word, int(chosen.sum()), positives, **measured[spec.metric])
                )
    better = HIGHER_IS_BETTER[spec.metric]
    sign = 1 if better else -1
    return tuple(sorted(found, key=lambda s: (sign * s.better_end(better), s.column, s.word)))


def slices_document(slices: tuple[Slice, ...]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Slices by column and word, fit for JSON."""
    document: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in sorted(slices, key=lambda s: (s.column, s.word)):
        facts = asdict(one)
        document.setdefault(facts.pop("column"), {})[facts.pop("word")] = facts
    return document


def _large_enough(labels: Values, leads: npt.NDArray[np.intp]) -> bool:
    positive = labels > 0
    return min(len(np.unique(leads[positive])), len(np.unique(leads[~positive]))) >= LEAST_LEADS
