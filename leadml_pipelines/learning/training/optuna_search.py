"""The search with a budget: optuna's tree-structured Parzen estimator, pruned, taken up again.

Trials that ended are kept as lines of JSON, one written whole after each trial. Optuna's own file
storage takes locks, which a Ctrl-C in the wrong moment leaves behind; a line that was cut off is
just not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.training.rows import Rows
from leadml_pipelines.learning.training.trees import fit_trees
from leadml_pipelines.learning.training.tuning import Tell, Tuned, plain_scores, score

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 10
"""Trials at random before the estimator has seen enough to guess."""
UNPRUNED_TRIALS = 6
"""Trials that are not cut short, so that there is something to compare with."""


@dataclass(frozen=True)
class Trial:
    """A trial that ended.

    Attributes:
        params: The combination that was tried.
        scores: The score on each fold that was fitted; greater is better.
        rounds: Rounds used on each.
        pruned: Whether it was given up before the last fold.
    """

    params: Mapping[str, Any]
    scores: list[float]
    rounds: list[int]
    pruned: bool


def search_by_optuna(
    spec: ModelSpec,
    base: Mapping[str, Any],
    rows: Rows,
    chosen: list[Fold],
    tell: Tell,
    journal: Path | None,
) -> Tuned:
    """Search `spec.tuning_space` until the trials or the seconds are used up.

    The grid is tried first, as far as it lies in the space. Arguments as of `tuning.search`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _drop_cut_off_line(journal)
    ended = read_journal(journal)
    taken_up = len(ended)
    space = _space(spec)
    study = optuna.create_study(
        direction="maximize",
        # A search that is taken up must not draw again what it drew before.
        sampler=optuna.samplers.TPESampler(
            seed=base["seed"] + len(ended), n_startup_trials=RANDOM_TRIALS
        ),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS),
    )
    for trial in ended:
        study.add_trial(_frozen(space, trial))
    for combination in spec.grid[taken_up:]:
        study.enqueue_trial(_inside(space, {**base, **combination}))

    def objective(trial: optuna.Trial) -> float:
        params = {name: _suggest(trial, name, *bounds) for name, bounds in space.items()}
        text = f"search, trial {trial.number + 1} of {spec.tuning_trials}"
        scores: list[float] = []
        rounds: list[int] = []
        for number, fold in enumerate(chosen):
            heartbeat = partial(tell, trial.number * len(chosen) + number, text)
            trees = fit_trees(spec, {**base, **params}, rows, fold.train, heartbeat=heartbeat)
            raw = trees.raw_scores(rows.values[fold.valid])
            scores.append(score(spec, base, rows.labels[fold.valid], raw))
            rounds.append(trees.rounds)
            trial.report(float(np.mean(scores)), number)
            # optuna answers with NumPy's truth, which JSON does not know.
            pruned = number + 1 < len(chosen) and bool(trial.should_prune())
            if pruned or number + 1 == len(chosen):
                ended.append(Trial(params, scores, rounds, pruned))
                _append(journal, ended[-1])
            if pruned:
                raise optuna.TrialPruned
        return float(np.mean(scores))

    left = spec.tuning_trials - taken_up
    if left > 0:
        study.optimize(objective, n_trials=left, timeout=spec.tuning_seconds)
    complete = [trial for trial in ended if not trial.pruned]
    ranked = sorted(complete, key=lambda trial: -float(np.mean(trial.scores)))
    return Tuned(
        params=ranked[0].params,
        rounds=max(1, round(float(np.mean(ranked[0].rounds)))),
        record={
            "tuner": "optuna",
            "metric": spec.metric,
            "folds": len(chosen),
            "combinations": [
                {
                    "params": dict(trial.params),
                    "scores": plain_scores(spec, trial.scores),
                    "rounds": trial.rounds,
                }
                for trial in complete
            ],
            "pruned": len(ended) - len(complete),
            "taken_up": taken_up,
        },
        runner_up=ranked[1].params if len(ranked) > 1 else None,
    )


def read_journal(journal: Path | None) -> list[Trial]:
    """The trials that ended in earlier searches; a last line that was cut off is none."""
    if journal is None or not journal.exists():
        return []
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
    return [Trial(**json.loads(line)) for line in lines]


def _drop_cut_off_line(journal: Path | None) -> None:
    """Make room for the next trial where the last line was never finished."""
    if journal is not None and journal.exists():
        content = journal.read_bytes()
        journal.write_bytes(content[: content.rfind(b"\n") + 1])


def _append(journal: Path | None, trial: Trial) -> None:
    if journal is None:
        return
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(trial)) + "\n")


Space = Mapping[str, tuple[float, float, str]]


def _space(spec: ModelSpec) -> Space:
    """Where to search: class weights are of no use where there are no classes."""
    classes = spec.objective == "classification"
    return {
        name: bounds
        for name, bounds in spec.tuning_space.items()
        if classes or name != "class_weights"
    }


def _frozen(space: Space, trial: Trial) -> Any:
    import optuna

    state = optuna.trial.TrialState.PRUNED if trial.pruned else optuna.trial.TrialState.COMPLETE
    means = {at: float(np.mean(trial.scores[: at + 1])) for at in range(len(trial.scores))}
    return optuna.trial.create_trial(
        state=state,
        value=float(np.mean(trial.scores)),
        params=dict(trial.params),
        distributions={name: _distribution(*bounds) for name, bounds in space.items()},
        intermediate_values=means,
    )


def _distribution(least: float, greatest: float, kind: str) -> Any:
    import optuna

    if kind == "int":
        return optuna.distributions.IntDistribution(int(least), int(greatest))
    return optuna.distributions.FloatDistribution(least, greatest, log=kind == "log")


def _suggest(trial: optuna.Trial, name: str, least: float, greatest: float, kind: str) -> float:
    if kind == "int":
        return trial.suggest_int(name, int(least), int(greatest))
    return trial.suggest_float(name, least, greatest, log=kind == "log")


def _inside(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parameters that are searched, drawn into the space where they lie outside."""
    return {
        name: min(max(params[name], least), greatest)
        for name, (least, greatest, _) in space.items()
        if name in params
    }
