"""A trained model before the examiners: every figure on the newest rows, and beside whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.baselines import RULE_THRESHOLD, heuristic_values
from leadml_pipelines.learning.evaluation.calibration_check import error_by_chance, reliability
from leadml_pipelines.learning.evaluation.card import CardFacts, make_card
from leadml_pipelines.learning.evaluation.companions_check import check_companions
from leadml_pipelines.learning.evaluation.curves import curves
from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.evaluation.gate import Decision, decide
from leadml_pipelines.learning.evaluation.groups import measure_groups
from leadml_pipelines.learning.evaluation.intervals import (
    RESAMPLES,
    Measured,
    Resamples,
    draw,
    interval,
    measure,
    ratio,
)
from leadml_pipelines.learning.evaluation.linear_baseline import linear_predictions
from leadml_pipelines.learning.evaluation.shap_summary import shap_summary
from leadml_pipelines.learning.evaluation.slices import measure_slices, slices_document
from leadml_pipelines.learning.evaluation.totals import total_said
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import CALENDAR
from leadml_pipelines.learning.training.threshold import row_costs

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.learning.model import LoadedModel

Values = npt.NDArray[np.float64]


class Trained(Protocol):
    """What is examined: a `train.TrainedModel`, or anything with these."""

    @property
    def spec(self) -> ModelSpec:
        """Its declaration."""
        ...

    @property
    def train(self) -> pd.DataFrame:
        """The rows it learned from: keys, features, labels."""
        ...

    @property
    def test(self) -> pd.DataFrame:
        """The newest rows, which it has not seen; with a column `agent` where that is known."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the training."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows on every side, and what was left out."""
        ...

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of the learner."""
        ...

    @property
    def validation(self) -> Mapping[str, Any]:
        """What was chosen on the validation part: calibration, threshold, blend."""
        ...

    @property
    def training_set_hash(self) -> str:
        """Hash of its training set."""
        ...

    @property
    def trained_at(self) -> datetime:
        """When training ended."""
        ...

    def load(self) -> LoadedModel:
        """The model in memory, as serving would have it."""
        ...


@dataclass(frozen=True)
class Examination:
    """What there is to know about a candidate.

    Attributes:
        metrics: Plain figures on the test rows, `by_age` too (see `evaluate`).
        baseline: The heuristic's.
        evaluation: The same with intervals, beside the heuristic, the base rate, a linear model,
            the champion and the anchor; by slice; calibration, threshold, curves and importance. A
            JSON document, described in docs/evaluation.md.
        decision: What the gate says.
        card: The model card: `card.md` and the pictures it shows, by file name.
    """

    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    decision: Decision
    card: Mapping[str, bytes]


def examine(
    trained: Trained,
    champion: LoadedModel | None = None,
    *,
    compared_with: str | None = None,
    anchor: LoadedModel | None = None,
    remarks: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Examination:
    """Measure a trained model on the newest rows, compare it, judge it, and write its card.

    Args:
        trained: The model, with the rows it learned from and those it has not seen.
        champion: The model in production; None when there is none.
        compared_with: The champion's id.
        anchor: The best champion since a person promoted last, when that is another one than the
            champion.
        remarks: What could not be done before, such as loading the champion; told by the gate.
        resamples: Resamples of the intervals.
    """
    spec, train, test = trained.spec, trained.train, trained.test
    model = trained.load()
    labels = test["label"].to_numpy(np.float64)
    matrix = model.encoder.encode(test)
    values = model.predict(matrix).values
    thresholds = model.thresholds(matrix)
    miss, false_alarm = row_costs(spec, test)
    # As `ideal_threshold`, row by row: groups have costs of their own.
    fair = false_alarm / (miss + false_alarm)
    rule = heuristic_values(spec, train, test, seed=trained.seed)
    rule_thresholds = np.full(len(test), RULE_THRESHOLD)
    others: dict[str, tuple[Values, Values]] = {
        "heuristic": (rule, rule_thresholds),
        "logistic": (linear_predictions(spec, model.encoder, train, test, seed=trained.seed), fair),
    }
    if spec.objective == "classification":
        rate = np.full(len(test), float(train["label"].mean()))
        others["base_rate"] = (rate, rule_thresholds)
    notes = list(remarks)
    for who, former in (("champion", champion), ("anchor", anchor)):
        if former is None:
            continue
        try:
            its = former.encoder.encode(test)
            others[who] = (former.predict(its).values, former.thresholds(its))
        except KeyError as error:
            # A champion that can't be measured must not keep every successor out.
            name = compared_with if who == "champion" and compared_with else former.model_id
            notes.append(f"not compared with the {who} {name}: {error.args[0]}")

    draws = draw(test["entity_id"].to_numpy(), seed=trained.seed, resamples=resamples)
    scored = {
        who: Scored(spec.objective, labels, of, threshold)
        for who, (of, threshold) in {"model": (values, thresholds), **others}.items()
    }
    measured = {who: measure(one, draws) for who, one in scored.items()}
    slices = measure_slices(
        spec,
        test,
        labels,
        values,
        draws,
        threshold=thresholds,
        rule=rule,
    )
    summary = shap_summary(model, matrix, seed=trained.seed)
    differences = _differences(measured)
    together = spec.metric in differences.get("champion", {})
    evaluation: dict[str, Any] = {
        **{who: one.intervals() for who, one in measured.items()},
        "champion": measured["champion"].intervals() if "champion" in measured else None,
        "compared_with": compared_with if together else None,
        "anchor": measured["anchor"].intervals() if "anchor" in measured else None,
        "held_to": _held_to(spec, differences, anchor, compared_with),
        "differences": differences,
        "slices": slices_document(slices),
        "worst_slice": asdict(slices[0]) if slices else None,
        "reliability": reliability(labels, values, draws.codes),
        "calibration": _calibration(spec, measured["model"], labels, values, draws, trained),
        "threshold": _threshold(
            spec, labels, values, thresholds, (miss, false_alarm), model, draws
        ),
        "groups": measure_groups(spec, test, labels, values, thresholds, draws),
        "curves": curves(
            spec,
            labels,
            {"model": values, **{who: others[who][0] for who in _DRAWN if who in others}},
        ),
        "importance": summary.importance,
        "rate": float((labels > 0).mean()),
        "companions": check_companions(spec, model, train, test, matrix, draws),
        "resamples": resamples,
        "leads": int(draws.counts.shape[1]),
    }
    moments = test.get("moment")
    metrics = evaluate(spec, labels, values, moments, threshold=thresholds)
    decision = decide(spec, evaluation, notes)
    return Examination(
        metrics=metrics,
        baseline=evaluate(spec, labels, rule, moments, threshold=RULE_THRESHOLD),
        evaluation=evaluation,
        decision=decision,
        card=make_card(_facts(trained, metrics), evaluation, decision, summary),
    )


def _differences(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        who: measured["model"].minus(other) for who, other in measured.items() if who != "model"
    }


def _held_to(
    spec: ModelSpec,
    differences: Mapping[str, Any],
    anchor: LoadedModel | None,
    champion: str | None,
) -> dict[str, Any] | None:
    """Whom the model was held to: the anchor, or the champion where that is the anchor itself."""
    for who, model_id in (("anchor", anchor and anchor.model_id), ("champion", champion)):
        found = differences.get(who, {}).get(spec.metric)
        if found is not None:
            return {"model_id": model_id, "metric": spec.metric, **found}
    return None


_DRAWN = ("heuristic", "logistic", "champion")
"""Whose curves are kept beside the model's."""
_ALLOWED_SHARE = 0.25
"""Most that chances may be off by, as a share of the rarer class."""


def _calibration(
    spec: ModelSpec,
    measured: Measured,
    labels: Values,
    values: Values,
    draws: Resamples,
    trained: Trained,
) -> dict[str, Any] | None:
    if spec.objective != "classification":
        return None
    rate = float(labels.mean())
    off = interval("ece", measured.point["ece"], measured.draws["ece"])
    moments = trained.test.get("moment")
    calendar = None if moments is None else (moments == CALENDAR).to_numpy(bool)
    return {
        "total": total_said(labels, values, draws),
        "calendar": None
        if calendar is None or calendar.all()
        else total_said(labels[calendar], values[calendar], draws.within(calendar)),
        "error": measured.point["ece"],
        "low": off["low"] if off else 0.0,
        "high": off["high"] if off else 1.0,
        "by_chance": error_by_chance(labels, values, draws.codes, seed=trained.seed),
        # Of a rare event 0.05 would be everything: a part of what there is of the rarer class.
        "allowed": min(spec.max_calibration_error, _ALLOWED_SHARE * min(rate, 1 - rate)),
    }


def _threshold(
    spec: ModelSpec,
    labels: Values,
    values: Values,
    thresholds: Values,
    costs: tuple[Values, Values],
    model: LoadedModel,
    draws: Resamples,
) -> dict[str, Any] | None:
    """What the threshold costs a row on the test rows, beside what else one might do."""
    if spec.objective != "classification":
        return None
    happened, (miss, false_alarm) = labels > 0, costs

    def cost(yes: npt.NDArray[np.bool_]) -> Values:
        return np.asarray(miss * (happened & ~yes) + false_alarm * (yes & ~happened), np.float64)

    nobody = np.zeros(len(labels), bool)
    mine, always, never = (cost(yes) for yes in (values >= thresholds, ~nobody, nobody))
    cheaper = min(always, never, key=np.mean)
    return {
        "value": model.threshold,
        "share_of_yes": float((values >= thresholds).mean()),
        "cost": float(mine.mean()),
        "cost_at_half": float(cost(values >= 0.5).mean()),
        "cost_of_always": float(always.mean()),
        "cost_of_never": float(never.mean()),
        "over_cheaper": ratio(mine - cheaper, np.ones(len(labels)), draws),
    }


def _facts(trained: Trained, metrics: Mapping[str, Any]) -> CardFacts:
    return CardFacts(
        spec=trained.spec,
        trained_at=trained.trained_at,
        seed=trained.seed,
        counts=trained.counts,
        params=trained.params,
        validation=trained.validation,
        training_set_hash=trained.training_set_hash,
        train=(trained.train["as_of"].min(), trained.train["as_of"].max()),
        test=(trained.test["as_of"].min(), trained.test["as_of"].max()),
        train_leads=int(trained.train["entity_id"].nunique()),
        test_leads=int(trained.test["entity_id"].nunique()),
        features=len(trained.load().features),
        by_age={
            age: found[trained.spec.metric]
            for age, found in metrics.get("by_age", {}).items()
            if trained.spec.metric in found
        },
    )
