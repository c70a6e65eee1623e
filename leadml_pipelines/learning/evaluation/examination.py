"""A trained model before the examiners: every figure on the newest rows, and beside whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.baselines import heuristic_values
from leadml_pipelines.learning.evaluation.calibration_check import error_by_chance, reliability
from leadml_pipelines.learning.evaluation.card import CardFacts, make_card
from leadml_pipelines.learning.evaluation.companions_check import check_companions
from leadml_pipelines.learning.evaluation.curves import curves
from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.evaluation.gate import Decision, decide
from leadml_pipelines.learning.evaluation.intervals import RESAMPLES, Measured, draw, measure
from leadml_pipelines.learning.evaluation.linear_baseline import linear_predictions
from leadml_pipelines.learning.evaluation.shap_summary import shap_summary
from leadml_pipelines.learning.evaluation.slices import measure_slices, slices_document
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training.threshold import ideal_threshold

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
        evaluation: The same with intervals, beside the heuristic, a linear model and the champion;
            by slice; calibration, threshold, curves and importance. A JSON document, described in
            docs/evaluation.md.
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
    remarks: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Examination:
    """Measure a trained model on the newest rows, compare it, judge it, and write its card.

    Args:
        trained: The model, with the rows it learned from and those it has not seen.
        champion: The model in production; None when there is none.
        compared_with: The champion's id.
        remarks: What could not be done before, such as loading the champion; told by the gate.
        resamples: Resamples of the intervals.
    """
    spec, train, test = trained.spec, trained.train, trained.test
    model = trained.load()
    labels = test["label"].to_numpy(np.float64)
    matrix = model.encoder.encode(test)
    values = model.predict(matrix).values
    fair = ideal_threshold(spec.cost)
    others: dict[str, tuple[Values, float]] = {
        "heuristic": (heuristic_values(spec, train, test, seed=trained.seed), fair),
        "logistic": (linear_predictions(spec, model.encoder, train, test, seed=trained.seed), fair),
    }
    notes = list(remarks)
    if champion is not None:
        try:
            answer = champion.predict(champion.encoder.encode(test)).values
            others["champion"] = (answer, champion.threshold)
        except KeyError as error:
            # A champion that can't be measured must not keep every successor out.
            name = compared_with or champion.model_id
            notes.append(f"not compared with the champion {name}: {error.args[0]}")

    draws = draw(test["entity_id"].to_numpy(), seed=trained.seed, resamples=resamples)
    scored = {
        who: Scored(spec.objective, labels, of, threshold)
        for who, (of, threshold) in {"model": (values, model.threshold), **others}.items()
    }
    measured = {who: measure(one, draws) for who, one in scored.items()}
    slices = measure_slices(
        spec,
        test,
        labels,
        values,
        draws,
        threshold=model.threshold,
        rule=others["heuristic"][0],
    )
    summary = shap_summary(model, matrix, seed=trained.seed)
    differences = _differences(measured)
    evaluation: dict[str, Any] = {
        **{who: one.intervals() for who, one in measured.items()},
        "champion": measured["champion"].intervals() if "champion" in measured else None,
        "compared_with": compared_with if spec.metric in differences.get("champion", {}) else None,
        "differences": differences,
        "slices": slices_document(slices),
        "worst_slice": asdict(slices[0]) if slices else None,
        "reliability": reliability(labels, values, draws.codes),
        "calibration": _calibration(spec, measured["model"], labels, values, draws.codes, trained),
        "threshold": _threshold(spec, labels, values, model.threshold),
        "curves": curves(
            spec, labels, {"model": values, **{who: of for who, (of, _) in others.items()}}
        ),
        "importance": summary.importance,
        "companions": check_companions(spec, model, train, test, matrix, draws),
        "resamples": resamples,
        "leads": int(draws.counts.shape[1]),
    }
    moments = test.get("moment")
    metrics = evaluate(spec, labels, values, moments, threshold=model.threshold)
    decision = decide(spec, evaluation, notes)
    return Examination(
        metrics=metrics,
        baseline=evaluate(spec, labels, others["heuristic"][0], moments, threshold=fair),
        evaluation=evaluation,
        decision=decision,
        card=make_card(_facts(trained, metrics), evaluation, decision, summary),
    )


def _differences(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        who: measured["model"].minus(other) for who, other in measured.items() if who != "model"
    }


_ALLOWED_SHARE = 0.7
"""Most that chances may be off by, as a share of the rarer class."""


def _calibration(
    spec: ModelSpec,
    measured: Measured,
    labels: Values,
    values: Values,
    leads: npt.NDArray[np.intp],
    trained: Trained,
) -> dict[str, float] | None:
    if spec.objective != "classification":
        return None
    rate = float(labels.mean())
    return {
        "error": measured.point["ece"],
        "by_chance": error_by_chance(labels, values, leads, seed=trained.seed),
        # Of a rare event 0.05 would be everything: a part of what there is of the rarer class.
        "allowed": min(spec.max_calibration_error, _ALLOWED_SHARE * min(rate, 1 - rate)),
    }


def _threshold(
    spec: ModelSpec, labels: Values, values: Values, threshold: float
) -> dict[str, float] | None:
    """What the threshold costs a row on the test rows, beside what else one might do."""
    if spec.objective != "classification":
        return None
    happened = labels > 0

    def cost(yes: npt.NDArray[np.bool_]) -> float:
        missed, alarmed = (happened & ~yes).mean(), (yes & ~happened).mean()
        return float(spec.cost.miss * missed + spec.cost.false_alarm * alarmed)

    nobody = np.zeros(len(labels), bool)
    return {
        "value": threshold,
        "share_of_yes": float((values >= threshold).mean()),
        "cost": cost(values >= threshold),
        "cost_at_half": cost(values >= 0.5),
        "cost_of_always": cost(~nobody),
        "cost_of_never": cost(nobody),
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
