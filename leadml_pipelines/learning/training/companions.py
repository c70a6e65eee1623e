"""The further questions of a model: which word, if anything comes true at all.

A companion learns from the rows whose label is over 0, and from nothing else: whether it is over 0
is another question (see `occurs`). On newer rows its classifier has to tell more than the words'
shares do, beyond noise; else the shares are the answer, the same for everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import Companion
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.training.rows import RowNumbers, Rows
from leadml_pipelines.learning.training.trees import (
    PATIENCE,
    Heartbeat,
    boost,
    matrix,
)
from leadml_pipelines.learning.training_set import companion_column

if TYPE_CHECKING:
    import pandas as pd

LEAST_OF_A_WORD = 20
"""Fewest rows in which a word came true; a rarer one is not spoken of."""
_ROUNDS = 120
_REACH = 1.96
"""Standard errors within which 95 % of all figures lie."""
_LEAST_CHANCE = 1e-7

Codes = npt.NDArray[np.intp]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedCompanion:
    """The chance of each word, if anything comes true.

    Attributes:
        facts: What the manifest says of it; `shares` where they are the answer, else `file`.
        trees: In XGBoost's UBJSON; None where the shares are the answer.
        record: `by` (`model` or `shares`), and what spoke for it: on newer rows the `log_loss` of
            either, and `gain`, how much less the model's is, with its interval; JSON-ready.
    """

    facts: dict[str, Any]
    trees: bytes | None
    record: dict[str, Any]


def fit_companion(
    companion: Companion,
    base: Mapping[str, Any],
    rows: Rows,
    frame: pd.DataFrame,
    chosen: RowNumbers,
    folds: Sequence[Fold],
    heartbeat: Heartbeat,
) -> FittedCompanion | str:
    """Fit one companion: a class per word, and a last one for other words where there are any.

    Args:
        companion: The question.
        base: XGBoost's parameters of the model itself.
        rows: All rows.
        frame: Them as a frame, with the companion's labels.
        chosen: The training rows.
        folds: The folds inside them, on whose newer rows the classifier is tried.
        heartbeat: Called between two rounds.

    Returns:
        The companion; or, in words, why there is none: one of its words hardly ever came true.
    """
    words = frame[companion_column(companion)].to_numpy(object)

    def occurred(numbers: RowNumbers) -> RowNumbers:
        known = np.array([isinstance(words[at], str) for at in numbers], bool)
        return numbers[known & (rows.labels[numbers] > 0)]

    known = occurred(chosen)
    seen = Counter(words[known].tolist())
    named = companion.words or tuple(word for word in sorted(seen) if word)
    spoken = tuple(word for word in named if seen[word] >= LEAST_OF_A_WORD)
    missing = [word for word in companion.words if word not in spoken]
    if not spoken or missing:
        what = f"{missing[0]!r} came true" if missing else "no word came true"
        return f"{what} in fewer than {LEAST_OF_A_WORD} training rows with a known {companion.name}"
    place = {word: at for at, word in enumerate(spoken)}
    codes = np.full(len(words), len(spoken), np.intp)
    codes[known] = [place.get(words[at], len(spoken)) for at in known]
    classes = len(spoken) + bool((codes[known] == len(spoken)).any())

    fitting = _Fitting(_params(base, classes), classes, rows, codes, heartbeat)
    tried = [fitting.try_out(occurred(fold.train), occurred(fold.valid)) for fold in folds]
    record, rounds = _verdict([one for one in tried if one is not None], rows)
    facts = {
        "name": companion.name,
        "answer": companion.answer,
        "words": list(spoken),
        "levels": list(companion.levels),
    }
    if record["by"] == "shares":
        shares = _shares(codes[known], classes)[: len(spoken)]
        return FittedCompanion({**facts, "shares": shares.tolist()}, None, record)
    trees = bytes(fitting.fit(known, rounds).save_raw("ubj"))
    return FittedCompanion({**facts, "file": f"{companion.name}.ubj"}, trees, record)


@dataclass(frozen=True)
class _Tried:
    """What a fold's newer rows say: which rows, what either lost in each, and with what rounds."""

    rows: RowNumbers
    model: Values
    shares: Values
    rounds: int


@dataclass(frozen=True)
class _Fitting:
    """How a classifier over words is fitted: `codes` is the class of each row."""

    params: Mapping[str, Any]
    classes: int
    rows: Rows
    codes: Codes
    heartbeat: Heartbeat

    def fit(self, numbers: RowNumbers, rounds: int) -> Any:
        """On these rows, with so many rounds."""
        names = self.rows.encoder.names
        return boost(self.params, self._matrix(numbers), rounds, names, self.heartbeat)

    def try_out(self, older: RowNumbers, newer: RowNumbers) -> _Tried | None:
        """Fit on older rows, of which the newest tell when to stop, and judge by newer ones."""
        if self.classes < 2 or len(older) < LEAST_OF_A_WORD or not len(newer):
            return None
        fits, stops = self.rows.early_stopping(older)
        if not len(fits) or not len(stops):
            return None
        fit = self._matrix(fits)
        watched = [(self._matrix(stops, fit), "newest")]
        booster = boost(
            self.params, fit, _ROUNDS, self.rows.encoder.names, self.heartbeat,
            evals=watched, early_stopping_rounds=PATIENCE,
        )  # fmt: skip
        rounds = booster.best_iteration + 1
        said = booster.inplace_predict(
            self.rows.values[newer], iteration_range=(0, rounds), validate_features=False
        )
        came = self.codes[newer]
        chance = np.asarray(said, np.float64)[np.arange(len(newer)), came]
        shares = _shares(self.codes[older], self.classes)[came]
        return _Tried(newer, _losses(chance), _losses(shares), rounds)

    def _matrix(self, numbers: RowNumbers, like: Any = None) -> Any:
        labels = self.codes[numbers].astype(np.float64)
        return matrix(self.rows, numbers, self.params, labels=labels, like=like)


def _verdict(tried: Sequence[_Tried], rows: Rows) -> tuple[dict[str, Any], int]:
    """Whether the classifier or the shares are the answer, why, and the rounds of the former."""
    if not tried:
        return {"by": "shares", "reason": "there are no newer rows on which it could be tried"}, 0
    model = np.concatenate([one.model for one in tried])
    shares = np.concatenate([one.shares for one in tried])
    numbers = np.concatenate([one.rows for one in tried])
    _, leads = np.unique(rows.groups[numbers], return_inverse=True)
    gain = float((shares - model).mean())
    # Rows of a lead are alike: the deviation of a mean of clusters.
    sums = np.bincount(leads, shares - model - gain)
    reach = _REACH * float(np.sqrt((sums**2).sum())) / len(numbers)
    clear = gain - reach > 0 and len(sums) > 1
    record = {
        "by": "model" if clear else "shares",
        "rows": len(numbers),
        "leads": len(sums),
        "log_loss": {"model": float(model.mean()), "shares": float(shares.mean())},
        "gain": {"value": gain, "low": gain - reach, "high": gain + reach},
    }
    return record, round(float(np.mean([one.rounds for one in tried])))


def _params(base: Mapping[str, Any], classes: int) -> dict[str, Any]:
    return {
        **base,
        "objective": "multi:softprob",
        "num_class": classes,
        "eval_metric": "mlogloss",
        "max_depth": 3,
        "learning_rate": 0.1,
    }


def _shares(codes: Codes, classes: int) -> Values:
    """The share of each class, each with one row more, so that none is 0."""
    counts = np.bincount(codes, minlength=classes) + 1.0
    return np.asarray(counts / counts.sum(), np.float64)


def _losses(chances: Values) -> Values:
    return np.asarray(-np.log(np.maximum(chances, _LEAST_CHANCE)), np.float64)
