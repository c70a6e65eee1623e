"""The search for parameters: a grid, or optuna with a budget. Both score on time-ordered folds.

Each fit stops early by rows of its own, so that no fold chooses the number of trees by which it is
then scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.learning.calibration import sigmoid
from leadml_pipelines.learning.evaluate import evaluate
from leadml_pipelines.learning.rows import RowNumbers, Rows, Vector
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.trees import Trees, fit_trees, link_of

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

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
        journal: Where optuna writes its trials, so that a search goes on where it was interrupted;
            None keeps them in memory.
    """
    if not spec.hyperparameter_tuning:
        return _by_grid(spec, base, rows, chosen, tell, [dict(spec.grid[0])])
    if spec.tuner == "optuna":
        return _by_optuna(spec, base, rows, chosen, tell, journal)
    return _by_grid(spec, base, rows, chosen, tell, [dict(c) for c in spec.grid])


def score(spec: ModelSpec, base: Mapping[str, Any], labels: Vector, raw: Vector) -> float:
    """The spec's metric of raw scores; greater is always better."""
    link = link_of(base)
    values = sigmoid(raw) if link == "logit" else np.exp(raw) if link == "log" else raw
    sign = 1 if spec.higher_is_better else -1
    return sign * float(evaluate(spec, labels, values)[spec.metric])


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
        {"params": grid[at], "scores": _plain(spec, scores[at]), "rounds": rounds[at].tolist()}
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


def _by_optuna(
    spec: ModelSpec,
    base: Mapping[str, Any],
    rows: Rows,
    chosen: list[Fold],
    tell: Tell,
    journal: Path | None,
) -> Tuned:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(
        storage=storage,
        study_name=spec.name,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=base["seed"], n_startup_trials=10),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=6),
    )
    if not study.trials:
        for combination in spec.grid:
            inside = {**base, **combination}
            study.enqueue_trial(
                {name: inside[name] for name in spec.tuning_space if name in inside}
            )
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(deepcopy=False, states=finished))

    def objective(trial: optuna.Trial) -> float:
        params = {
            name: _suggest(trial, name, *bounds) for name, bounds in spec.tuning_space.items()
        }
        scores: list[float] = []
        for number, fold in enumerate(chosen):
            fits = min(trial.number, spec.tuning_trials - 1) * len(chosen) + number
            text = f"search, trial {trial.number + 1} of {spec.tuning_trials}"
            heartbeat = partial(tell, fits, text)
            trees = fit_trees(spec, {**base, **params}, rows, fold.train, heartbeat=heartbeat)
            raw = trees.raw_scores(rows.values[fold.valid])
            scores.append(score(spec, base, rows.labels[fold.valid], raw))
            trial.set_user_attr(f"fold_{number}", [scores[-1], trees.rounds])
            trial.report(float(np.mean(scores)), number)
            if number + 1 < len(chosen) and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(scores))

    # A search that was interrupted takes up its trials; those that never ended count for nothing.
    left = spec.tuning_trials - done
    if left > 0:
        study.optimize(objective, n_trials=left, timeout=spec.tuning_seconds)
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    ranked = sorted(complete, key=lambda trial: -_value(trial))
    seen = [
        {
            "params": dict(trial.params),
            "scores": _plain(spec, [at[0] for at in _folds_of(trial)]),
            "rounds": [at[1] for at in _folds_of(trial)],
        }
        for trial in complete
    ]
    pruned = len(study.get_trials(deepcopy=False)) - len(complete)
    return Tuned(
        params=dict(ranked[0].params),
        rounds=max(1, round(float(np.mean([at[1] for at in _folds_of(ranked[0])])))),
        record={
            "tuner": "optuna",
            "metric": spec.metric,
            "folds": len(chosen),
            "combinations": seen,
            "pruned": pruned,
            "taken_up": done,
        },
        runner_up=dict(ranked[1].params) if len(ranked) > 1 else None,
    )


def _suggest(trial: Any, name: str, least: float, greatest: float, kind: str) -> float:
    if kind == "int":
        return int(trial.suggest_int(name, int(least), int(greatest)))
    return float(trial.suggest_float(name, least, greatest, log=kind == "log"))


def _folds_of(trial: Any) -> list[tuple[float, int]]:
    return [trial.user_attrs[name] for name in sorted(trial.user_attrs) if name.startswith("fold_")]


def _value(trial: Any) -> float:
    return float(trial.value)


def _plain(spec: ModelSpec, scores: Any) -> list[float]:
    """Scores as the metric is written, whichever way is better."""
    sign = 1 if spec.higher_is_better else -1
    return [sign * float(value) for value in scores]


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
