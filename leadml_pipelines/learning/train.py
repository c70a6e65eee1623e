"""From a training set to a tested model.

The hyper-parameters are chosen on folds inside the training rows, with early stopping; the model is
then fitted on all training rows with the rounds found there. The test rows are looked at once, at
the end. One seed and one set of rows give one model, byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.baselines import evaluate_heuristic
from leadml_pipelines.learning.encoding import Encoder, Matrix, to_document
from leadml_pipelines.learning.evaluate import evaluate
from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold, folds, train_test
from leadml_pipelines.learning.training_set import TrainingSet
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what comes next. To cancel, raise in it."""

Values = npt.NDArray[np.float64]

DEFAULTS: Mapping[str, Any] = {
    "tree_method": "hist",
    "max_bin": 128,
    "learning_rate": 0.06,
    "max_depth": 4,
    "min_child_weight": 20,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "reg_lambda": 2.0,
}
"""XGBoost's parameters where a spec says nothing."""

PATIENCE = 25
"""Rounds without an improvement on the validation rows after which a fit stops."""
ROUNDS_UNTUNED = 80
"""Rounds where the data is too short for a validation fold."""
QUANTILES = 1_001
"""How finely the training population's predictions are kept, for the 0-100 rank."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model, tested, not yet registered.

    Attributes:
        spec: Its declaration.
        booster: The model in XGBoost's UBJSON.
        manifest: All that serving needs besides; without `model_id`, which the registry gives.
        metrics: On the test rows (see `evaluate`).
        baseline: The heuristic's, on the same rows.
        params: XGBoost's parameters, and `rounds`.
        tuning: What the search saw: a row per combination, or why there was none.
        counts: Rows on every side, and what was left out.
        training_set_hash: Hash of the training set.
        trained_at: When training ended.
        seconds: How long it took.
        test: The test rows, so that another model can be measured on the same.
    """

    spec: ModelSpec
    booster: bytes
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    params: Mapping[str, Any]
    tuning: Mapping[str, Any]
    counts: Mapping[str, int]
    training_set_hash: str
    trained_at: datetime
    seconds: float
    test: pd.DataFrame = field(repr=False)

    def load(self, model_id: str = "unregistered") -> LoadedModel:
        """The model in memory, as serving would have it."""
        return LoadedModel({**self.manifest, "model_id": model_id}, self.booster)

    def measure(self, other: LoadedModel) -> dict[str, Any]:
        """Metrics of another model on the same test rows.

        Raises:
            KeyError: the rows lack a feature of that model; the message names it.
        """
        values = other.predict(other.encoder.encode(self.test)).values
        return evaluate(self.spec, _labels(self.test), values, self.test["moment"])


def train(
    spec: ModelSpec,
    training_set: TrainingSet,
    *,
    seed: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Search, fit and test.

    Args:
        spec: The model's declaration.
        training_set: Its rows.
        seed: Same seed, same model.
        threads: Threads of XGBoost; all cores if None.
        progress: Told of each step; an exception it raises ends the training.

    Raises:
        TooLittleDataError: the data is too short for the horizon, or one-sided.
    """
    started = time.perf_counter()
    tell = progress or (lambda done, total, text: None)
    frame = training_set.frame
    split = train_test(
        spec, frame, data_start=training_set.data_start, data_end=training_set.data_end
    )
    train_rows, test_rows = frame.iloc[split.train], frame.iloc[split.test]
    encoder = Encoder.fit(training_set.features, train_rows)
    values, labels = encoder.encode(frame), _labels(frame)
    base = {**DEFAULTS, **_objective(spec), **spec.params, "seed": seed, "nthread": threads or 0}

    chosen = folds(spec, frame, split.train)
    steps = len(chosen) * len(spec.grid) + 2
    params, rounds, tuning = _search(
        spec, base, encoder, values, labels, chosen, lambda done, text: tell(done, steps, text)
    )
    tell(steps - 2, steps, f"fitting on {len(split.train):,} rows")
    booster = _fit(params, rounds, _matrix(encoder, values, labels, split.train, params))
    tell(steps - 1, steps, f"testing on {len(split.test):,} newer rows")

    raw = bytes(booster.save_raw("ubj"))
    fitted = np.asarray(booster.inplace_predict(values[split.train]), np.float64)
    manifest = {
        "format": 1,
        "name": spec.name,
        "entity": spec.entity,
        "objective": spec.objective,
        "population": spec.population,
        "horizon_seconds": spec.horizon.total_seconds(),
        "threshold": spec.threshold,
        **to_document(encoder),
        "quantiles": np.quantile(fitted, np.linspace(0, 1, QUANTILES)).tolist(),
        "spec_hash": spec.hash,
        "training_set_hash": training_set.hash,
    }
    model = LoadedModel({**manifest, "model_id": "unregistered"}, raw)
    metrics = evaluate(
        spec, labels[split.test], model.predict(values[split.test]).values, test_rows["moment"]
    )
    baseline = evaluate_heuristic(spec, train_rows, test_rows, seed=seed)
    tell(steps, steps, "done")
    return TrainedModel(
        spec=spec,
        booster=raw,
        manifest=manifest,
        metrics=metrics,
        baseline=baseline,
        params={**{k: v for k, v in params.items() if k != "nthread"}, "rounds": rounds},
        tuning=tuning,
        counts={
            **training_set.counts,
            "train_rows": len(split.train),
            "test_rows": len(split.test),
            "gap_rows": split.gap_rows,
        },
        training_set_hash=training_set.hash,
        trained_at=utc_now(),
        seconds=time.perf_counter() - started,
        test=test_rows,
    )


def _search(
    spec: ModelSpec,
    base: Mapping[str, Any],
    encoder: Encoder,
    values: Matrix,
    labels: Values,
    chosen: list[Fold],
    tell: Callable[[int, str], None],
) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Try the grid on the folds; parameters, rounds, and a record of what was seen."""
    if not chosen:
        params = {**base, **spec.grid[0]}
        reason = "the training part is too short for a validation fold; first of the grid taken"
        return params, min(ROUNDS_UNTUNED, spec.rounds), {"skipped": reason}
    seen: list[dict[str, Any]] = [
        {"params": dict(combination), "scores": [], "rounds": []} for combination in spec.grid
    ]
    for number, fold in enumerate(chosen):
        fit = _matrix(encoder, values, labels, fold.train, base)
        valid = _matrix(encoder, values, labels, fold.valid, base, like=fit)
        for at, result in enumerate(seen):
            done = number * len(seen) + at
            tell(done, f"fold {number + 1} of {len(chosen)}, combination {at + 1} of {len(seen)}")
            booster = _fit({**base, **result["params"]}, spec.rounds, fit, valid)
            best = booster.best_iteration + 1
            guess = np.asarray(
                booster.inplace_predict(values[fold.valid], iteration_range=(0, best)), np.float64
            )
            score = evaluate(spec, labels[fold.valid], guess)[spec.metric]
            result["scores"].append(score)
            result["rounds"].append(best)
    sign = 1 if spec.higher_is_better else -1
    winner = max(seen, key=lambda result: sign * float(np.mean(result["scores"])))
    rounds = max(1, round(float(np.mean(winner["rounds"]))))
    record = {"metric": spec.metric, "folds": len(chosen), "combinations": seen}
    return {**base, **winner["params"]}, rounds, record


def _xgboost() -> Any:
    """XGBoost, imported when it is first needed."""
    import xgboost

    return xgboost


def _fit(params: Mapping[str, Any], rounds: int, fit: Any, valid: Any = None) -> Any:
    watched = (
        {} if valid is None else {"evals": [(valid, "valid")], "early_stopping_rounds": PATIENCE}
    )
    return _xgboost().train(dict(params), fit, rounds, verbose_eval=False, **watched)


def _matrix(
    encoder: Encoder,
    values: Matrix,
    labels: Values,
    rows: npt.NDArray[np.intp],
    params: Mapping[str, Any],
    like: Any = None,
) -> Any:
    return _xgboost().QuantileDMatrix(
        values[rows],
        labels[rows],
        feature_names=list(encoder.names),
        feature_types=encoder.xgboost_types,
        enable_categorical=True,
        max_bin=params["max_bin"],
        nthread=params["nthread"] or None,
        ref=like,
    )


def _objective(spec: ModelSpec) -> dict[str, Any]:
    if spec.objective == "classification":
        return {"objective": "binary:logistic", "eval_metric": "logloss"}
    return {"objective": "reg:squarederror", "eval_metric": "rmse"}


def _labels(frame: pd.DataFrame) -> Values:
    return frame["label"].to_numpy(np.float64)
