"""The search for parameters: a grid, or optuna with a budget. Both score on time-ordered folds.

Each fit stops early by rows of its own, so that no fold chooses the number of trees by which it is
then scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.training.calibration import sigmoid
from leadml_pipelines.learning.training.rows import RowNumbers, Rows, Vector
from leadml_pipelines.learning.training.trees import Trees, fit_trees, link_of

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

UNDEFINED = -1e9
"""The score where the metric can't be told, as of one class alone."""

Tell = Callable[[int, str], None]
"""Called with fits done and what comes next; and between trees, so that it may raise to cancel."""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        params: The winning combination, on top of the base parameters.
        rounds: Rounds that its fits used on average.
        record: Every combination with its scores, JSON-ready.
        runner_up: The second best combination; None where there was one alone.
    """

    params: Mapping[str, Any]
    rounds: int
    record: Mapping[str, Any]
    runner_up: Mapping[str, Any] | None


def fits_of_search(spec: ModelSpec, chosen: list[Fold]) -> int:
    """How many fits the search makes at most."""
    if not chosen or not spec.hyperparameter_tuning:
        return len(chosen)
    return len(chosen) * (spec.tuning_trials if spec.tuner == "optuna" else len(spec.grid))


def search(
    spec: ModelSpec,
    base: Mapping[str, Any],
    rows: Rows,
    chosen: list[Fold],
    tell: Tell,
    journal: Path | None = None,
) -> Tuned:
    """Find the combination with the best mean score on the folds.

    Args:
        spec: Says how to search, where, and by which metric.
        base: Parameters that all combinations share.
        rows: All rows.
        chosen: The folds; at least one.
        tell: Told of each fit.
        journal: Where a search by optuna keeps its trials; None to keep none.
    """
    if not spec.hyperparameter_tuning:
        return _by_grid(spec, base, rows, chosen, tell, [dict(spec.grid[0])])
    if spec.tuner == "optuna":
        from leadml_pipelines.learning.training.optuna_search import search_by_optuna

        return search_by_optuna(spec, base, rows, chosen, tell, journal)
    return _by_grid(spec, base, rows, chosen, tell, [dict(c) for c in spec.grid])


def score(spec: ModelSpec, base: Mapping[str, Any], labels: Vector, raw: Vector) -> float:
    """The spec's metric of raw scores; greater is always better, `UNDEFINED` worse than any."""
    link = link_of(base)
    values = sigmoid(raw) if link == "logit" else np.exp(raw) if link == "log" else raw
    sign = 1 if spec.higher_is_better else -1
    found = evaluate(spec, labels, values).get(spec.metric)
    return UNDEFINED if found is None else sign * float(found)


def _by_grid(
    spec: ModelSpec,
    base: Mapping[str, Any],
    rows: Rows,
    chosen: list[Fold],
    tell: Tell,
    grid: list[dict[str, Any]],
) -> Tuned:
    from sklearn.model_selection import GridSearchCV

    total, used = len(grid) * len(chosen), []

    def scored(estimator: Any, numbers: RowNumbers, labels: Vector) -> float:
        used.append(estimator.trees_.rounds)
        raw = estimator.trees_.raw_scores(rows.values[numbers[:, 0]])
        return score(spec, base, labels, raw)

    def beat() -> None:
        tell(len(used), f"search, fit {len(used) + 1} of {total}")

    found = GridSearchCV(
        _estimator(spec, base, rows, beat),
        {"params": grid},
        scoring=scored,
        cv=[(fold.train, fold.valid) for fold in chosen],
        refit=False,
        error_score="raise",
    )
    numbers = np.arange(len(rows.labels))
    found.fit(numbers[:, None], rows.labels)
    scores = np.stack([found.cv_results_[f"split{k}_test_score"] for k in range(len(chosen))], 1)
    rounds = np.array(used).reshape(len(grid), len(chosen))
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    seen = [
        {
            "params": grid[at],
            "scores": plain_scores(spec, scores[at]),
            "rounds": rounds[at].tolist(),
        }
        for at in range(len(grid))
    ]
    return Tuned(
        params=grid[order[0]],
        rounds=max(1, round(float(rounds[order[0]].mean()))),
        record={
            "tuner": "grid",
            "metric": spec.metric,
            "folds": len(chosen),
            "combinations": seen,
        },
        runner_up=grid[order[1]] if len(grid) > 1 else None,
    )


def plain_scores(spec: ModelSpec, scores: Any) -> list[float | None]:
    """Scores as the metric is written, whichever way is better; None where it is undefined."""
    sign = 1 if spec.higher_is_better else -1
    return [None if value == UNDEFINED else sign * float(value) for value in scores]


def _estimator(
    spec: ModelSpec, base: Mapping[str, Any], rows: Rows, heartbeat: Callable[[], None]
) -> BaseEstimator:
    """Trees as scikit-learn wants them: its X is row numbers, so that no fold copies the rows."""
    from sklearn.base import BaseEstimator

    class TreesOnRows(BaseEstimator):
        def __init__(self, params: Mapping[str, Any] | None = None) -> None:
            self.params = params
            self.trees_: Trees | None = None

        def fit(self, numbers: RowNumbers, labels: Vector) -> TreesOnRows:
            params = {**base, **(self.params or {})}
            self.trees_ = fit_trees(spec, params, rows, numbers[:, 0], heartbeat=heartbeat)
            return self

    return TreesOnRows()
