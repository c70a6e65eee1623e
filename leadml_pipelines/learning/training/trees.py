"""Boosted trees: one fit, with early stopping on newer rows, weights by class, and a device.

Everything that asks for a fit (the search, the final model, its companions) comes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import structlog

from leadml_pipelines.learning.encoding import Matrix
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training.calibration import shift_to_mean
from leadml_pipelines.learning.training.rows import RowNumbers, Rows, Vector
from leadml_pipelines.signals import deferred

Heartbeat = Callable[[], None]
"""Called between two trees. To cancel, raise in it."""

DEFAULTS: Mapping[str, Any] = {
    "tree_method": "hist",
    "max_bin": 128,
    "learning_rate": 0.04,
    "max_depth": 4,
    "min_child_weight": 10,
    "subsample": 0.7,
    "colsample_bytree": 0.4,
    "reg_lambda": 10.0,
    "max_cat_to_onehot": 64,
    "class_weights": 0.0,
}
"""Parameters where a spec says nothing: XGBoost's, slow and well regularised, and one of ours.

`class_weights` is the exponent of the weight of a positive row, (negatives / positives) ^
class_weights: 0 for none, 1 for classes that count alike.
"""

PATIENCE = 30
"""Trees without an improvement after which a fit stops."""
ROUNDS_UNSTOPPED = 80
"""Trees where there are no rows that could tell when to stop."""
_LEAST_OF_A_CLASS = 5

_LINKS = {"binary:logistic": "logit", "reg:tweedie": "log", "reg:gamma": "log"}
_METRICS = {"logit": "logloss", "log": "tweedie-nloglik@{power}", "identity": "rmse"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Trees:
    """A fitted booster.

    Attributes:
        booster: XGBoost's own object.
        rounds: How many of its rounds count.
        shift: What class weights, the scale of the labels and the objective added to every raw
            score, in log-odds or in the logarithm of the value; raw scores are without it, so that
            on the rows of the fit the mean answer is the mean label.
    """

    booster: Any
    rounds: int
    shift: float

    def raw_scores(self, values: Matrix) -> Vector:
        """float64[n]: log-odds, or values on the scale of the objective's link."""
        margin = self.booster.inplace_predict(
            values,
            iteration_range=(0, self.rounds),
            predict_type="margin",
            validate_features=False,
        )
        return np.asarray(margin, np.float64) - self.shift


def base_params(spec: ModelSpec, *, seed: int, threads: int | None, device: str) -> dict[str, Any]:
    """XGBoost's parameters before any search: defaults, objective, and what the spec sets."""
    objective = "binary:logistic" if spec.objective == "classification" else "reg:squarederror"
    params = {**DEFAULTS, "objective": objective, **spec.params, "seed": seed}
    power = params.get("tweedie_variance_power", 1.5)
    params["eval_metric"] = _METRICS[link_of(params)].format(power=power)
    return {**params, "nthread": threads or 0, "device": device}


def link_of(params: Mapping[str, Any]) -> str:
    """How raw scores become values: `logit`, `log` or `identity`."""
    return _LINKS.get(params["objective"], "identity")


def fit_trees(
    spec: ModelSpec,
    params: Mapping[str, Any],
    rows: Rows,
    chosen: RowNumbers,
    *,
    rounds: int | None = None,
    heartbeat: Heartbeat = lambda: None,
) -> Trees:
    """Fit on some of the rows.

    Args:
        spec: Says what kind of model it is, and the most rounds.
        params: As in `DEFAULTS`.
        rows: All rows.
        chosen: Which to fit on.
        rounds: How many rounds; None to stop early by the newest of the chosen rows, which are
            then not learned from.
        heartbeat: Called between two rounds.
    """
    stops: RowNumbers | None = None
    if rounds is None:
        fits, stops = rows.early_stopping(chosen)
        if _can_tell(spec, rows.labels[stops]) and _can_tell(spec, rows.labels[fits]):
            chosen = fits
        else:
            stops, rounds = None, min(ROUNDS_UNSTOPPED, spec.rounds)
    positive, scale, link = 1.0, 1.0, link_of(params)
    if spec.objective == "classification":
        positive = _positive_weight(rows.labels[chosen]) ** params["class_weights"]
    elif link == "log":
        # In units of the mean a row weighs about 1, whatever the currency: `min_child_weight` and
        # `reg_lambda` count rows, as they do for every other objective.
        scale = float(rows.labels[chosen].mean()) or 1.0
    fit = matrix(rows, chosen, params, positive=positive, scale=scale)
    watched: dict[str, Any] = {}
    if stops is not None:
        valid = matrix(rows, stops, params, positive=positive, scale=scale, like=fit)
        watched = {"evals": [(valid, "newest")], "early_stopping_rounds": PATIENCE}
    booster = boost(params, fit, rounds or spec.rounds, rows.encoder.names, heartbeat, **watched)
    used = booster.best_iteration + 1 if stops is not None else booster.num_boosted_rounds()
    return Trees(booster, used, _shift(link, booster, used, fit, rows.labels[chosen]))


def _shift(link: str, booster: Any, rounds: int, fit: Any, labels: Vector) -> float:
    """What raw scores are too high by for their mean answer to be the mean of the labels.

    Weights of a class, labels in other units, and the objective itself move the mean: Tweedie's
    deviance with a logarithm is least at predictions whose sum is below that of the labels.
    """
    mean = float(labels.mean())
    if link == "identity" or not 0 < mean < (1 if link == "logit" else np.inf):
        return 0.0
    margins = booster.predict(
        fit, output_margin=True, iteration_range=(0, rounds), validate_features=False
    )
    return -shift_to_mean(link, np.asarray(margins, np.float64), mean)


def boost(
    params: Mapping[str, Any],
    fit: Any,
    rounds: int,
    names: Sequence[str],
    heartbeat: Heartbeat,
    **watched: Any,
) -> Any:
    """XGBoost's own training, with a heartbeat between rounds.

    The names of the features are told at the end: in between, XGBoost would compare them one by one
    in every round, which takes a fifth of the time.
    """
    xgboost = _xgboost()

    class Beat(xgboost.callback.TrainingCallback):  # type: ignore[name-defined]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            heartbeat()
            return False

    own = {name: value for name, value in params.items() if name != "class_weights"}
    if own["objective"] != "reg:tweedie":
        # What goes with a model (its companions) has an objective of its own, and XGBoost warns.
        own.pop("tweedie_variance_power", None)
    booster = xgboost.train(own, fit, rounds, verbose_eval=False, callbacks=[Beat()], **watched)
    booster.feature_names = list(names)
    return booster


def matrix(
    rows: Rows,
    chosen: RowNumbers,
    params: Mapping[str, Any],
    *,
    labels: Vector | None = None,
    positive: float = 1.0,
    scale: float = 1.0,
    like: Any = None,
) -> Any:
    """Some of the rows as XGBoost's quantised matrix.

    Args:
        rows: All rows.
        chosen: Which of them.
        params: For the number of bins and threads.
        labels: float64[len(chosen)], instead of the rows' own.
        positive: Weight of a positive row against a negative one.
        scale: What the labels are divided by.
        like: Another matrix whose bins to use.
    """
    target = rows.labels[chosen] if labels is None else labels
    weight = np.where(target > 0, positive, 1.0) if positive != 1.0 else None
    # XGBoost fetches the rows by calling back; an exception in there may end the whole process.
    with deferred():
        return _xgboost().QuantileDMatrix(
            rows.values[chosen],
            target / scale,
            weight=weight,
            feature_types=rows.encoder.xgboost_types,
            enable_categorical=True,
            max_bin=params["max_bin"],
            nthread=params["nthread"] or None,
            ref=like,
        )


@cache
def usable_device(wanted: str) -> str:
    """The device to train on: the wanted one, or `cpu` with a warning where there is no GPU."""
    if wanted == "cpu":
        return wanted
    import json
    import warnings

    xgboost = _xgboost()
    tiny = xgboost.DMatrix(np.zeros((2, 1)), np.array([0.0, 1.0]))
    with warnings.catch_warnings():
        # XGBoost warns once per call and goes on; we say it once, in words.
        warnings.simplefilter("ignore")
        booster = xgboost.train({"device": wanted, "tree_method": "hist"}, tiny, 1)
    got = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if got.startswith("cuda"):
        return wanted
    log.warning("no_gpu", wanted=wanted, training_on="cpu")
    return "cpu"


def _positive_weight(labels: Vector) -> float:
    """What makes the positives count as much as the negatives; 1 where that can't be said."""
    positive = float((labels > 0).sum())
    return (len(labels) - positive) / positive if 0 < positive < len(labels) else 1.0


def _can_tell(spec: ModelSpec, labels: Vector) -> bool:
    if spec.objective == "regression":
        return len(labels) > 1 and float(np.ptp(labels)) > 0
    positive = int(labels.sum())
    return min(positive, len(labels) - positive) >= _LEAST_OF_A_CLASS


def _xgboost() -> Any:
    """XGBoost, imported when it is first needed."""
    import xgboost

    return xgboost
