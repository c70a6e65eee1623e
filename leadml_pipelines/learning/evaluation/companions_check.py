"""Whether a model's companions say what comes: on the newest rows, each of their chances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import Resamples, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training.calibration import log_loss
from leadml_pipelines.learning.training_set import companion_column

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.learning.model import CompanionModel, LoadedModel

Values = npt.NDArray[np.float64]

ALLOWED = 1 / 3
"""How far what is said may be from what came, as a part of it, before a card names it."""
OCCURS = "occurs"
"""What the chance that anything comes true is called in a document."""


@dataclass(frozen=True)
class CheckedChance:
    """A chance beside what came.

    Attributes:
        companion: Whose chance; `occurs` for that of anything at all.
        what: `near` or `far` of urgency, a word of cross-sell, `occurs`.
        words: The words that it is the chance of; empty for `occurs`.
        said: Mean chance.
        came: Share of the rows in which it came true.
        ratio: `said` over `came`, with its interval; None where it never came true.
        off: Whether the ratio is off by more than a third, and beyond noise.
        log_loss: Of the chances.
        log_loss_of_shares: Of the share in the training rows, said of every row.
        roc_auc: How well it ranks, with its interval; None where it can't be told.
    """

    companion: str
    what: str
    words: list[str]
    said: float
    came: float
    ratio: Mapping[str, float] | None
    off: bool
    log_loss: float
    log_loss_of_shares: float
    roc_auc: Mapping[str, float] | None


def check_companions(
    spec: ModelSpec,
    model: LoadedModel,
    train: pd.DataFrame,
    test: pd.DataFrame,
    matrix: Values,
    draws: Resamples,
) -> list[dict[str, Any]] | None:
    """Measure the chance that anything comes true, and what the companions say.

    Args:
        spec: The model's declaration.
        model: The model.
        train: The rows it learned from, with the companions' labels.
        test: The newest rows, likewise.
        matrix: float64[n, features], the newest rows as the model reads them.
        draws: Draws of their leads.

    Returns:
        The fields of `CheckedChance` for each chance; None for a model that declares no companions.
    """
    if not spec.companions:
        return None
    if not model.companions:
        return []
    columns = {companion.name: companion_column(companion) for companion in spec.companions}
    chances = model.chances(matrix)

    def check(name: str, what: str, words: list[str], said: Values) -> dict[str, Any]:
        happened, before = (_happened(side, columns.get(name), words) for side in (test, train))
        return asdict(_checked(name, what, words, said, happened, float(before.mean()), draws))

    found = [check(OCCURS, OCCURS, [], model.occurs(matrix))]
    for companion in model.companions:
        of = chances[companion.name]
        for what, words in _questions(companion):
            said = of[:, [companion.words.index(word) for word in words]].sum(axis=1)
            found.append(check(companion.name, what, words, said))
    return found


def _questions(companion: CompanionModel) -> Iterator[tuple[str, list[str]]]:
    """What a companion's answer shows, and the words that it is about."""
    if companion.answer == "urgency":
        yield "near", list(companion.words[:1])
        yield "far", list(companion.words[:2])
        return
    for word in companion.words:
        yield word, [word]


def _checked(
    companion: str,
    what: str,
    words: list[str],
    said: Values,
    happened: Values,
    share: float,
    draws: Resamples,
) -> CheckedChance:
    ranked = measure(Scored("classification", happened, said, 0.5), draws, ("roc_auc",))
    summed = measure(Scored("regression", happened, said, 0.5), draws, ("total_ratio",))
    ratio = summed.intervals().get("total_ratio")
    return CheckedChance(
        companion=companion,
        what=what,
        words=words,
        said=float(said.mean()),
        came=float(happened.mean()),
        ratio=ratio,
        off=ratio is not None
        and abs(ratio["value"] - 1) > ALLOWED
        and not ratio["low"] <= 1 <= ratio["high"],
        log_loss=log_loss(happened, said),
        log_loss_of_shares=log_loss(happened, np.full(len(said), share)),
        roc_auc=ranked.intervals().get("roc_auc"),
    )


def _happened(frame: pd.DataFrame, column: str | None, words: list[str]) -> Values:
    """Where the label is over 0 and the word is one of these; without a column, the former."""
    occurred = frame["label"].to_numpy(np.float64) > 0
    if column is not None:
        occurred &= frame[column].isin(words).to_numpy(bool)
    return occurred.astype(np.float64)
