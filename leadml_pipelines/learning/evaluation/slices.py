"""The same model for whom: its metric apart for each source, state, product, agent, and age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.ages import LEAD_AGE, age_bands
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
        ahead: `value`, `low` and `high` of how much greater the metric is than that of the rule
            that the model replaces, on the same rows and resamples; None where the rule has none.
    """

    column: str
    word: str
    rows: int
    positives: int
    value: float
    low: float
    high: float
    ahead: Mapping[str, float] | None = None

    def better_end(self, higher_is_better: bool) -> float:
        """The end of the interval that is kindest to the model."""
        return self.high if higher_is_better else self.low

    def kindest(self, higher_is_better: bool, looked_at: int) -> float:
        """The best value that noise leaves open when this is one of many slices.

        Of 60 sound slices, one or two lie outside of their own 95 % interval on the bad side. So
        the level is shared out among all that were looked at (Bonferroni), on a normal curve as
        wide as the interval.
        """
        reach = _reach(self.low, self.high, looked_at)
        return self.value + reach if higher_is_better else self.value - reach

    def surely_behind(self, higher_is_better: bool, looked_at: int) -> bool:
        """Whether the rule is better here, and by more than noise among so many slices."""
        if self.ahead is None:
            return False
        value = self.ahead["value"] if higher_is_better else -self.ahead["value"]
        return value + _reach(self.ahead["low"], self.ahead["high"], looked_at) < 0


def _reach(low: float, high: float, looked_at: int) -> float:
    """From the figure to the end of its interval, were the level shared out among so many."""
    normal = NormalDist()
    tail = (1 - LEVEL) / 2
    deviation = (high - low) / 2 / normal.inv_cdf(1 - tail)
    return normal.inv_cdf(1 - tail / max(looked_at, 1)) * deviation


def measure_slices(
    spec: ModelSpec,
    frame: pd.DataFrame,
    labels: Values,
    values: Values,
    resamples: Resamples,
    *,
    threshold: float | Values,
    rule: Values,
) -> tuple[Slice, ...]:
    """The spec's metric on each slice that is large enough (`LEAST_LEADS`).

    Args:
        spec: Names the columns and the metric. A column that the frame lacks is no slice;
            `lead_age` is none, but made of `as_of` and `created_at` (see `ages`).
        frame: The test rows.
        labels: float64[n], what happened.
        values: float64[n], the predictions.
        resamples: Draws of the leads of these rows.
        threshold: Probability from which the prediction is yes; one, or float64[n].
        rule: float64[n], what the rule that the model replaces says.

    Returns:
        The slices, the worst first: that whose interval ends lowest (for a loss: begins highest).
        A small slice with a wide interval is not called the worst because of its noise.
    """
    found: list[Slice] = []
    thresholds = np.broadcast_to(threshold, len(labels))
    for column in spec.slices:
        words = _words(frame, column)
        if words is None:
            continue
        for word in sorted({str(w) for w in words.dropna()}):
            chosen = (words.astype(str) == word).to_numpy(bool)
            if not _large_enough(labels[chosen], resamples.codes[chosen]):
                continue
            mine, theirs = (
                measure(
                    Scored(spec.objective, labels[chosen], of[chosen], thresholds[chosen]),
                    resamples.within(chosen),
                    (spec.metric,),
                )
                for of in (values, rule)
            )
            measured = mine.intervals().get(spec.metric)
            if measured is not None:
                positives = int((labels[chosen] > 0).sum())
                ahead = mine.minus(theirs).get(spec.metric)
                found.append(
                    Slice(column, word, int(chosen.sum()), positives, **measured, ahead=ahead)
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


def _words(frame: pd.DataFrame, column: str) -> pd.Series | None:
    """What the rows are cut by; None where they can't be."""
    if column == LEAD_AGE:
        return age_bands(frame) if {"as_of", "created_at"} <= {*frame.columns} else None
    return frame[column].astype(object) if column in frame else None


def _large_enough(labels: Values, leads: npt.NDArray[np.intp]) -> bool:
    positive = labels > 0
    return min(len(np.unique(leads[positive])), len(np.unique(leads[~positive]))) >= LEAST_LEADS
