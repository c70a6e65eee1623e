from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leadml_pipelines.learning.labels import companion_words
from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.learning.spec import SpecError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines_tests.learning.companions import (
    COLOUR,
    WHEN,
    by_lot,
    coloured,
    train_with,
)
from leadml_pipelines_tests.learning.frames import (
    DAY,
    START,
    BareEngine,
    rows_frame,
)

LEAD_SCORE = SPECS["lead_score"]
TIMING, PRODUCT = LEAD_SCORE.companions

COLUMNS = 5


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return rows_frame(1_500, objective="regression")


@pytest.fixture(scope="module")
def trained(frame: pd.DataFrame) -> TrainedModel:
    return train_with(frame, {COLOUR: coloured(frame), WHEN: by_lot(frame)})


@pytest.fixture(scope="module")
def model(trained: TrainedModel) -> LoadedModel:
    return trained.load()


def test_a_chance_is_that_anything_occurs_times_that_of_the_word_if_it_does(
    trained: TrainedModel, model: LoadedModel
) -> None:
    test = trained.test
    values = model.encoder.encode(test)
    given_occurs = model.chances(values)["colour"] / model.occurs(values)[:, None]
    assert model.companions[0].words == ("blue", "red")
    of = {
        source: given_occurs[test["source"] == source].mean(axis=0) for source in ("partner", "web")
    }
    assert of["partner"] == pytest.approx([0.0, 1.0], abs=0.06)
    assert of["web"] == pytest.approx([0.75, 0.0], abs=0.06)


def test_the_chance_that_anything_occurs_means_what_it_says(
    trained: TrainedModel, model: LoadedModel
) -> None:
    said = model.occurs(model.encoder.encode(trained.test))
    came = trained.test["label"].to_numpy(float) > 0
    assert said.mean() == pytest.approx(came.mean(), rel=0.1)
    # Of 450 rows each, two standard errors are 0.04; as much again for a fit on 3,000 rows.
    for half in (said < np.median(said), said >= np.median(said)):
        assert said[half].mean() == pytest.approx(came[half].mean(), abs=0.08)


@given(arrays(np.float64, (12, COLUMNS), elements=st.floats(-1e3, 1e3) | st.just(np.nan)))
def test_no_word_and_no_sum_of_words_is_more_probable_than_that_anything_occurs(
    model: LoadedModel, values: np.ndarray
) -> None:
    most = model.occurs(values) * (1 + 1e-9)
    chances = model.chances(values)
    soon, late, end = chances["when"].T
    assert ((soon > 0) & (soon <= soon + late)).all()
    assert (soon + late <= soon + late + end).all()
    assert soon + late + end == pytest.approx(model.occurs(values))
    assert (chances["colour"].sum(axis=1) <= most).all()


def test_of_a_classifier_its_own_chance_is_that_anything_occurs() -> None:
    frame = rows_frame()
    model = train_with(frame, {COLOUR: coloured(frame)}, "classification").load()
    values = model.encoder.encode(frame)
    assert "occurs.ubj" not in model._files
    assert (model.occurs(values) == model.predict(values).values).all()
    assert (model.chances(values)["colour"].sum(axis=1) < model.predict(values).values).all()


def test_where_nothing_can_be_learned_the_shares_are_the_answer_and_the_figures_say_why(
    trained: TrainedModel, model: LoadedModel
) -> None:
    record = trained.validation["companions"]["when"]
    assert record["by"] == "shares"
    assert record["gain"]["low"] < 0
    assert "when.ubj" not in trained.files
    values = model.encoder.encode(trained.test)
    given_occurs = model.chances(values)["when"] / model.occurs(values)[:, None]
    assert given_occurs == pytest.approx(np.tile([0.2, 0.3, 0.5], (len(values), 1)), abs=0.04)
    assert np.ptp(given_occurs, axis=0) == pytest.approx([0, 0, 0])


def test_where_the_word_can_be_told_a_model_is_the_answer(trained: TrainedModel) -> None:
    record = trained.validation["companions"]["colour"]
    assert record["by"] == "model"
    assert record["gain"]["low"] > 0
    assert record["log_loss"]["model"] < record["log_loss"]["shares"]


def test_of_one_word_alone_the_chance_is_that_anything_occurs(frame: pd.DataFrame) -> None:
    words = pd.Series("red", index=frame.index, dtype="str").mask(frame["label"] == 0, "")
    trained = train_with(frame, {COLOUR: words})
    model = trained.load()
    values = model.encoder.encode(trained.test)
    assert trained.validation["companions"]["colour"]["by"] == "shares"
    assert (model.chances(values)["colour"][:, 0] == model.occurs(values)).all()


def test_a_word_that_hardly_ever_came_true_is_not_spoken_of(frame: pd.DataFrame) -> None:
    words = coloured(frame)
    words[frame.index[frame["label"] > 0][:3]] = "green"
    model = train_with(frame, {COLOUR: words}).load()
    assert model.companions[0].words == ("blue", "red")


def test_a_companion_of_too_few_rows_is_absent_and_says_why(frame: pd.DataFrame) -> None:
    words = by_lot(frame).replace("soon", "late")
    # Where nothing came true, a word says nothing.
    words[frame["label"] == 0] = "soon"
    words[frame.index[frame["label"] > 0][:19]] = "soon"
    trained = train_with(frame, {WHEN: words})
    assert trained.load().companions == ()
    assert trained.load().chances(trained.load().encoder.encode(trained.test)) == {}
    assert "occurs.ubj" not in trained.files
    assert "'soon' came true in fewer than 20" in trained.validation["companions_absent"]["when"]


def test_the_near_chance_is_ranked_in_the_training_population(
    trained: TrainedModel, model: LoadedModel
) -> None:
    when = model.companions[1]
    near = model.chances(model.encoder.encode(trained.train))["when"][:, 0]
    ranks = model.near_ranks(when, near)
    assert (ranks >= 90).mean() == pytest.approx(0.1, abs=0.02)
    assert (np.diff(ranks[np.argsort(near)]) >= 0).all()


def test_what_came_true_in_the_test_period_teaches_no_companion(frame: pd.DataFrame) -> None:
    words = coloured(frame)
    before = train_with(frame, {COLOUR: words})
    late = frame["as_of"] + timedelta(days=20) > before.test["created_at"].min()
    after = train_with(frame, {COLOUR: words.mask(late, "red")})
    for name in ("colour.ubj", "occurs.ubj"):
        assert before.files[name] == after.files[name]


def test_no_rows_have_no_chances(model: LoadedModel) -> None:
    chances = model.chances(np.empty((0, len(model.features))))
    assert chances["colour"].shape == (0, 2)
    assert chances["when"].shape == (0, 3)


@pytest.mark.parametrize(
    ("days", "word"),
    [
        (3, "within a week"),
        (7, "within a week"),
        (20, "within a month"),
        (40, "later"),
        (91, ""),
    ],
)
def test_timing_tells_when_the_first_policy_is_bound(days: int, word: str) -> None:
    engine = BareEngine()
    engine.connection.execute("ALTER TABLE policies ADD COLUMN product VARCHAR")
    engine.add("leads", ("a", START))
    engine.add("policies", ("p", "a", 100, START + days * DAY, None, "auto"))
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    timing = companion_words(LEAD_SCORE, TIMING, spine, engine, START + 99 * DAY)
    assert timing.tolist() == [word]
    product = companion_words(LEAD_SCORE, PRODUCT, spine, engine, START + 99 * DAY)
    assert product.tolist() == ["auto" if word else ""]


def test_what_is_not_known_yet_is_missing() -> None:
    engine = BareEngine()
    engine.connection.execute("ALTER TABLE policies ADD COLUMN product VARCHAR")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    words = companion_words(LEAD_SCORE, TIMING, spine, engine, START + 89 * DAY)
    assert words.isna().all()


def test_a_label_that_answers_twice_is_refused_by_name() -> None:
    twice = replace(TIMING, label="SELECT row_id, 'x' AS label FROM moments, range(2)")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    with pytest.raises(SpecError, match="timing answered 2 rows for 1 moments"):
        companion_words(LEAD_SCORE, twice, spine, BareEngine(), START + 99 * DAY)
