"""Whom a model is asked about today: what was really served, and what was really answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.monitoring.drift import DriftLimits, column_drifts
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.populations import (
    DAY,
    SCORE,
    Learned,
    Populations,
    answers_population,
    read_learned,
    served_population,
)
from leadml_pipelines.monitoring.served_sample import read_served_sample
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Rows
from leadml_pipelines.online.values import check, schema_for
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.served_log import ServedLog
from leadml_pipelines.times import to_micros, utc_now
from leadml_pipelines_tests.learning.frames import spec_for
from leadml_pipelines_tests.monitoring.predictions import add_predictions
from leadml_pipelines_tests.monitoring.watched import LEARNED, add_champion, leads

SPEC = spec_for(name="churn")
SERVED = utc_now() - timedelta(minutes=1)
# What is logged is dated by the clock, and these tests may run long after this line.
NOW = SERVED + timedelta(hours=6)
"""A moment after everything that a test serves."""
FEATURES = [catalogue().feature(column.name) for column in LEARNED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def registry(postgres_url: str, folder: Path) -> Registry:
    return Registry(postgres_url, folder / "artifacts", SigningKey("k" * 32))


@pytest.fixture(scope="module")
def champion(registry: Registry, folder: Path) -> ModelRecord:
    """A champion named churn, and its training set."""
    return add_champion(registry, folder / "training_sets")


@pytest.fixture(scope="module")
def learned(registry: Registry, champion: ModelRecord, folder: Path) -> Learned:
    """What it learned from."""
    found = read_learned(registry, folder / "training_sets", "churn", None, 200)
    assert isinstance(found, Learned)
    return found


@pytest.fixture(autouse=True)
def _nothing_served(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute(
            "TRUNCATE leadml.served_features, leadml.served_schemas, leadml.predictions"
        )


def serve(
    url: str, frame: pd.DataFrame, *, share: float = 1.0, times: int = 1, first: int = 0
) -> list[str]:
    """Answer by these features, as the HTTP app does: each so many times, and logged by lot."""
    schema = schema_for("lead", FEATURES, frame)
    values = check(schema, FEATURES, frame).values
    ids = [f"lead_{first + n}" for n in range(len(frame))]
    moments = np.full(len(ids), to_micros(SERVED))
    batch = Batch(tuple(ids), (Rows(schema, np.arange(len(ids)), moments, moments, values),))
    log = ServedLog(url, share, Metrics())
    for _ in range(times):
        log.note(batch, ["cache"] * len(ids))
        add_predictions(url, ids, SERVED)
    log.close()
    return ids


def served(url: str, learned: Learned) -> Populations | NotEnough:
    return served_population(url, learned, SPEC, NOW, 200, 7)


def drifted(both: Populations) -> list[str]:
    found = column_drifts(both.reference, both.current, both.columns, DriftLimits(), both.days)
    return [one.name for one in found if one.drifted]


def test_what_was_served_is_compared_as_it_was_served(postgres_url: str, learned: Learned) -> None:
    """The snapshot may be in order, and Redis or the computation on demand not."""
    broken = leads(400, 2)
    broken["state"] = "??"
    broken["is_open"] = pd.Series([pd.NA] * 400, dtype="boolean")
    serve(postgres_url, broken)
    both = served(postgres_url, learned)
    assert isinstance(both, Populations)
    assert (both.population, len(both.current), both.as_of) == ("served", 400, NOW)
    assert sorted(drifted(both)) == ["is_open", "state"]
    pd.testing.assert_series_equal(
        both.current["lead_age_days"].sort_values(ignore_index=True),
        broken["lead_age_days"].sort_values(ignore_index=True),
    )


def test_what_was_served_like_what_was_learned_has_not_drifted(
    postgres_url: str, learned: Learned
) -> None:
    serve(postgres_url, leads(500, 2))
    both = served(postgres_url, learned)
    assert isinstance(both, Populations)
    assert drifted(both) == []


def test_too_few_served_are_not_compared_and_that_is_said(
    postgres_url: str, learned: Learned
) -> None:
    serve(postgres_url, leads(199, 2))
    found = served(postgres_url, learned)
    assert isinstance(found, NotEnough)
    assert "too few served" in str(found)
    assert "199 vectors can be told (LEADML_AUDIT_SAMPLE" in str(found)


def test_vectors_that_the_model_did_not_answer_by_do_not_count(
    postgres_url: str, learned: Learned
) -> None:
    serve(postgres_url, leads(300, 2))
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.predictions SET model_name = 'conversion'")
    assert isinstance(served(postgres_url, learned), NotEnough)


def test_those_who_are_asked_about_often_count_for_no_more_than_others(postgres_url: str) -> None:
    """Of 4,000 young leads asked about once and 400 old ones asked about ten times, a tenth."""
    young, old = leads(4_000, 2), leads(400, 3)
    young["lead_age_days"], old["lead_age_days"] = 1.0, 99.0
    serve(postgres_url, young, share=0.1)
    serve(postgres_url, old, share=0.1, times=10, first=4_000)
    sample = read_served_sample(postgres_url, "churn", "lead", NOW - DAY, NOW, 7)
    # Without thinning some 260 of the 400 would be in it: two fifths instead of a tenth nearly.
    share = float((sample["lead_age_days"] == 99.0).mean())
    assert 0.05 < share < 0.15


def test_a_share_that_changed_during_the_day_distorts_nothing(postgres_url: str) -> None:
    before, after = leads(4_000, 2), leads(4_000, 3)
    before["lead_age_days"], after["lead_age_days"] = 1.0, 99.0
    serve(postgres_url, before, share=0.1)
    serve(postgres_url, after, share=1.0, first=4_000)
    sample = read_served_sample(postgres_url, "churn", "lead", NOW - DAY, NOW, 7)
    assert 0.43 < float((sample["lead_age_days"] == 99.0).mean()) < 0.57


def answers(
    url: str, learned: Learned, registry: Registry, folder: Path
) -> Populations | NotEnough:
    sets = folder / "training_sets"
    return answers_population(url, learned, registry, sets, "churn", NOW, 200, 7)


def answer(url: str, learned: Learned, shift: float = 0.0, **made: str) -> None:
    """Answers about three hundred, by what the champion says of such leads."""
    frame = leads(300, 4)
    said = learned.model.predict(learned.model.encoder.encode(frame)).values + shift
    ids = [f"lead_{n}" for n in range(len(said))]
    add_predictions(url, ids, SERVED, values=dict(zip(ids, said.tolist(), strict=True)), **made)


def test_answers_are_those_of_the_log_and_not_computed_again(
    postgres_url: str, learned: Learned, registry: Registry, folder: Path
) -> None:
    answer(postgres_url, learned, model_id=learned.model_id)
    right = answers(postgres_url, learned, registry, folder)
    assert isinstance(right, Populations)
    assert (right.population, len(right.current)) == ("answers", 300)
    assert drifted(right) == []
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.predictions SET value = value + 0.3")
    wrong = answers(postgres_url, learned, registry, folder)
    assert isinstance(wrong, Populations)
    assert drifted(wrong) == [SCORE]


def test_a_champion_of_a_few_hours_is_judged_with_the_one_before(
    postgres_url: str, learned: Learned, registry: Registry, folder: Path
) -> None:
    young = add_champion(registry, folder / "training_sets", rows=1_000)
    answer(postgres_url, learned, model_id=learned.model_id)
    newer = read_learned(registry, folder / "training_sets", "churn", young.model_id, 200)
    assert isinstance(newer, Learned)
    both = answers(postgres_url, newer, registry, folder)
    assert isinstance(both, Populations)
    assert both.model_id == young.model_id
    # All answers are the older one's, and so is what they are held against.
    assert len(both.reference) == 2_000
    assert drifted(both) == []


def test_answers_of_a_challenger_do_not_count(
    postgres_url: str, learned: Learned, registry: Registry, folder: Path
) -> None:
    answer(postgres_url, learned, model_id=learned.model_id, role="challenger")
    assert "answered about 0 entities" in str(answers(postgres_url, learned, registry, folder))
