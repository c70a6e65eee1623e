"""Whom candidates are held to besides the champion: through a real registry, night after night."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leadml_pipelines.learning.evaluation.examination import Examination
from leadml_pipelines.learning.evaluation.gate import Decision, decide
from leadml_pipelines.learning.evaluation.intervals import Measured, draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.registry.anchor import anchor_of
from leadml_pipelines.learning.registry.promotion_rules import PROGRAM
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines_tests.learning.frames import spec_for, toy_set

NIGHTS = 8
MARGIN = 0.02


class Funnel:
    """Models of any quality on the same rows: what is known of a lead, and noise on top."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(3)
        leads = np.repeat(np.arange(400), 9)
        self._known = self._rng.normal(size=400)[leads]
        chance = 1 / (1 + np.exp(3.2 - 1.2 * self._known))
        self._happened = (self._rng.random(400) < chance[::9])[leads].astype(float)
        self._draws = draw(leads, seed=1, resamples=100)
        self._leads = leads

    def model(self, noise: float) -> Measured:
        """A model that knows the less, the more noise."""
        raw = self._known + noise * self._rng.normal(size=400)[self._leads]
        scored = Scored("classification", self._happened, 1 / (1 + np.exp(-raw)), 0.1)
        return measure(scored, self._draws, ("roc_auc",))


def evaluation_of(
    model: Measured, champion: Measured, compared_with: str, anchor: Measured, held_to: str
) -> dict[str, Any]:
    """The parts of an examination that tell of champion and anchor."""
    with_anchor = held_to != compared_with
    differences = {"champion": model.minus(champion)}
    if with_anchor:
        differences["anchor"] = model.minus(anchor)
    return {
        "model": model.intervals(),
        "heuristic": {},
        "champion": champion.intervals(),
        "anchor": anchor.intervals() if with_anchor else None,
        "compared_with": compared_with,
        "held_to": {
            "model_id": held_to,
            "metric": "roc_auc",
            **(model.minus(anchor) if with_anchor else differences["champion"])["roc_auc"],
        },
        "differences": differences,
        "calibration": {"error": 0.0, "low": 0.0, "high": 0.0, "allowed": 0.05, "total": None},
        "threshold": None,
        "slices": {},
    }


def night(
    spec: ModelSpec,
    funnel: Funnel,
    known: Mapping[str, Measured],
    champion: str,
    held_to: str,
) -> tuple[Measured, dict[str, Any], Decision] | None:
    """The worst candidate that passes its gate tonight; None if only better ones do."""
    present = known[champion].point["roc_auc"]
    for noise in np.arange(2.0, 0.0, -0.05):
        model = funnel.model(float(noise))
        found = evaluation_of(model, known[champion], champion, known[held_to], held_to)
        decision = decide(spec, found)
        if decision.passed and model.point["roc_auc"] < present:
            return model, found, decision
    return None


def descend(registry: Registry, trained: TrainedModel, examined: Examination, *, held: bool) -> int:
    """Thousandths of ROC AUC that are lost in some nights of ever worse candidates."""
    spec = spec_for(floor=0.5, champion_margin=MARGIN)
    funnel = Funnel()
    start = funnel.model(0.0)
    passed = replace(examined, decision=Decision(True, ("better",)))
    record = registry.store(trained, replace(passed, evaluation={}), None)
    registry.promote(record.model_id, by=PROGRAM, automatic=True)
    known = {record.model_id: start}
    for _ in range(NIGHTS):
        champion = registry.champion("toy")
        assert champion is not None
        held_to = anchor_of(champion) if held else champion.model_id
        found = night(spec, funnel, known, champion.model_id, held_to)
        if found is None:
            break
        model, evaluation, decision = found
        new = replace(examined, decision=decision, evaluation=evaluation)
        record = registry.store(trained, new, champion.model_id)
        registry.promote(record.model_id, by=PROGRAM, automatic=True)
        known[record.model_id] = model
    last = registry.champion("toy")
    assert last is not None
    return round(1_000 * (start.point["roc_auc"] - known[last.model_id].point["roc_auc"]))


def test_many_small_steps_lead_down_by_one_margin_at_most(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> None:
    assert descend(registry, trained, examined, held=True) <= 1_000 * MARGIN


def test_without_an_anchor_they_would_lead_further(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> None:
    assert descend(registry, trained, examined, held=False) > 3 * 1_000 * MARGIN


def _succeeded_by_a_worse_one(registry: Registry, best: TrainedModel) -> tuple[str, ModelRecord]:
    """A champion, and the worse one that a program promoted after it."""
    first = registry.register(best).model_id
    registry.promote(first, by=PROGRAM, automatic=True)
    blind = spec_for(exclude=("source",))
    trained = train(blind, toy_set(blind), seed=7, threads=1)
    examined, compared_with = registry.examine(trained)
    let_pass = replace(examined, decision=Decision(True, ("for this very test",)))
    second = registry.store(trained, let_pass, compared_with)
    return first, registry.promote(second.model_id, by=PROGRAM, automatic=True)


def test_a_candidate_is_held_to_the_best_champion_until_a_person_promotes(
    registry: Registry, trained: TrainedModel
) -> None:
    best, worse = _succeeded_by_a_worse_one(registry, trained)
    found = registry.examine(trained)[0].evaluation
    assert (found["compared_with"], found["held_to"]["model_id"]) == (worse.model_id, best)
    assert found["anchor"] == found["model"]
    registry.rollback("toy", by="anna")
    registry.rollback("toy", by="anna", reason="a person wants the worse one")
    found = registry.examine(trained)[0].evaluation
    assert found["held_to"]["model_id"] == found["compared_with"] == worse.model_id
    assert found["anchor"] is None


def test_an_anchor_that_can_not_be_loaded_is_said_and_keeps_nobody_out(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    best, worse = _succeeded_by_a_worse_one(registry, trained)
    path = tmp_path / "artifacts" / best / "model.ubj"
    path.write_bytes(path.read_bytes() + b" ")
    examined, compared_with = registry.examine(trained)
    assert examined.decision.passed
    assert f"not compared with the anchor {best}" in examined.decision.reasons[-1]
    assert compared_with == examined.evaluation["held_to"]["model_id"] == worse.model_id
