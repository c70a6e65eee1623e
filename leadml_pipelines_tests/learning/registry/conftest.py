"""A registry on the session's PostgreSQL, and a small model to register in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leadml_pipelines.learning.evaluation.examination import Examination, examine
from leadml_pipelines.learning.evaluation.gate import Decision
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.frames import spec_for, toy_set
from leadml_pipelines_tests.tables import empty_registry

KEY = "the signing key of the tests"
Stored = Callable[..., ModelRecord]


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    spec = spec_for(rounds=40)
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture(scope="module")
def examined(trained: TrainedModel) -> Examination:
    return examine(trained, resamples=50)


@pytest.fixture
def registry(postgres_url: str, tmp_path: Path) -> Registry:
    with connect(postgres_url) as connection:
        empty_registry(connection)
    return Registry(postgres_url, tmp_path / "artifacts", SigningKey(KEY))


@pytest.fixture
def stored(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> Callable[..., ModelRecord]:
    """Stores the model once more, as one that passed its gate or that was rejected.

    Unless it is said, it was compared with the one that was stored before it.
    """
    before: list[str] = []

    def store(*, passed: bool = True, compared_with: str | None = None) -> ModelRecord:
        reasons = ("roc_auc 0.8 is better",) if passed else ("roc_auc 0.8 is worse than the floor",)
        found = replace(examined, decision=Decision(passed, reasons))
        compared_with = compared_with or (before[-1] if before else None)
        record = registry.store(trained, found, compared_with)
        before.append(record.model_id)
        return record

    return store
