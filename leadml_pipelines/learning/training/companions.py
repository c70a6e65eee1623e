"""The further questions of a model: one classifier over words for each, on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.learning.spec import Companion
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


@dataclass(frozen=True)
class FittedCompanion:
    """A classifier over words.

    Attributes:
        facts: What the manifest says of it.
        trees: In XGBoost's UBJSON.
        log_loss: On newer rows before the last fit: of the `model`, and of the words' `shares`.
    """

    facts: dict[str, Any]
    trees: bytes
    log_loss: dict[str, float]


def fit_companion(
    companion: Companion,
    base: Mapping[str, Any],
    rows: Rows,
    frame: pd.DataFrame,
    chosen: RowNumbers,
    heartbeat: Heartbeat,
) -> FittedCompanion | str:
    """Fit one classifier: a class per word, and a last one for none.

    Args:
        companion: The question.
        base: XGBoost's parameters of the model itself.
        rows: All rows.
        frame: Them as a frame, with the companion's labels.
        chosen: The training rows whose label was known before the test begins.
        heartbeat: Called between two rounds.

    Returns:
        The classifier; or, in words, why there is none: its words hardly ever came true, or on
        newer rows it is no better than the words' shares.
    """
    words = frame[companion_column(companion)].to_numpy(object)
    known = chosen[[isinstance(words[at], str) for at in chosen]]
    seen = Counter(words[known].tolist())
    named = companion.words or tuple(word for word in sorted(seen) if word)
    spoken = tuple(word for word in named if seen[word] >= LEAST_OF_A_WORD)
    missing = [word for word in companion.words if word not in spoken]
    if not spoken or missing:
        what = f"{missing[0]!r} came true" if missing else "no word came true"
        return f"{what} in fewer than {LEAST_OF_A_WORD} training rows with a known {companion.name}"
    codes = {word: at for at, word in enumerate(spoken)}
    target = np.array([codes.get(words[at], len(spoken)) for at in known], np.float64)
    params = {
        **base,
        "objective": "multi:softprob",
        "num_class": len(spoken) + 1,
        "eval_metric": "mlogloss",
        "max_depth": 3,
        "learning_rate": 0.1,
    }
    where = dict(zip(known.tolist(), target.tolist(), strict=True))

    def part(numbers: RowNumbers, like: Any = None) -> Any:
        labels = np.array([where[int(at)] for at in numbers])
        return matrix(rows, numbers, params, labels=labels, like=like)

    fits, stops = rows.early_stopping(known)
    if not len(fits) or not len(stops):
        return f"there are no newer rows on which {companion.name} could be tried"
    fit, names = part(fits), rows.encoder.names
    watched = {"evals": [(part(stops, fit), "newest")], "early_stopping_rounds": PATIENCE}
    tried = boost(params, fit, _ROUNDS, names, heartbeat, **watched)
    log_loss = {
        "model": float(tried.best_score),
        "shares": _log_loss_of_shares([where[at] for at in fits], [where[at] for at in stops]),
    }
    if log_loss["model"] >= log_loss["shares"]:
        return (
            f"on newer rows {companion.name} is no better than the words' shares: log loss "
            f"{log_loss['model']:.4f} against {log_loss['shares']:.4f}"
        )
    booster = boost(params, part(known), tried.best_iteration + 1, names, heartbeat)
    facts = {
        "name": companion.name,
        "answer": companion.answer,
        "words": list(spoken),
        "levels": list(companion.levels),
        "horizon_seconds": companion.horizon.total_seconds(),
        "file": f"{companion.name}.ubj",
    }
    return FittedCompanion(facts, bytes(booster.save_raw("ubj")), log_loss)


def _log_loss_of_shares(older: list[float], newer: list[float]) -> float:
    """What the shares of the older rows would get on the newer ones, each with one row more."""
    classes = int(max(*older, *newer)) + 1
    counts = np.bincount(np.array(older, np.intp), minlength=classes) + 1.0
    return float(-np.log(counts / counts.sum())[np.array(newer, np.intp)].mean())
