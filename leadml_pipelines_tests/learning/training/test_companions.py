from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.labels import companion_words
from leadml_pipelines.learning.spec import Companion, SpecError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.learning.training_set import companion_column
from leadml_pipelines_tests.learning.frames import (
    DAY,
    START,
    BareEngine,
    rows_frame,
    spec_for,
    toy_set,
)

TIMING, PRODUCT = SPECS["lead_score"].companions

COLOUR = Companion(name="colour", label="unused", horizon=timedelta(days=9), answer="cross_sell")


def train_with(companion: Companion, words: pd.Series, frame: pd.DataFrame) -> TrainedModel:
    spec = spec_for("regression", companions=(companion,))
    frame = frame.assign(**{companion_column(companion): words})
    return train(spec, toy_set(spec, frame), seed=7, threads=1)


def coloured(frame: pd.DataFrame) -> pd.Series:
    """Red for partners, else nothing or rarely blue; the newest rows are not known yet."""
    words = pd.Series("", index=frame.index, dtype="str")
    words[frame["source"] == "partner"] = "red"
    words[(frame["source"] == "web") & (np.arange(len(frame)) % 4 == 0)] = "blue"
    words[frame["as_of"] > frame["as_of"].quantile(0.9)] = pd.NA
    return words


def test_a_companion_gives_the_chance_of_each_of_its_words() -> None:
    frame = rows_frame(objective="regression")
    model = train_with(COLOUR, coloured(frame), frame).load()
    (companion,) = model.companions
    assert companion.words == ("blue", "red")
    chances = model.chances(model.encoder.encode(frame))["colour"]
    assert chances.shape == (len(frame), 2)
    assert (chances.sum(axis=1) <= 1 + 1e-6).all()
    of = {source: chances[frame["source"] == source].mean(axis=0) for source in ("partner", "web")}
    assert of["partner"][1] > 0.9
    assert of["web"] == pytest.approx([0.25, 0.0], abs=0.05)


def test_a_word_that_hardly_ever_came_true_is_not_spoken_of() -> None:
    frame = rows_frame(objective="regression")
    words = coloured(frame)
    words.iloc[:3] = "green"
    model = train_with(COLOUR, words, frame).load()
    assert model.companions[0].words == ("blue", "red")


def test_without_its_words_a_companion_is_absent_and_says_why() -> None:
    frame = rows_frame(objective="regression")
    timing = replace(COLOUR, answer="urgency", words=("red", "violet"))
    trained = train_with(timing, coloured(frame), frame)
    assert trained.load().companions == ()
    assert (
        "'violet' came true in fewer than 20" in trained.validation["companions_absent"]["colour"]
    )


def test_a_companion_that_knows_no_more_than_the_shares_is_absent() -> None:
    frame = rows_frame(objective="regression")
    words = pd.Series(np.random.default_rng(0).choice(["red", ""], len(frame)), dtype="str")
    trained = train_with(COLOUR, words, frame)
    assert trained.load().companions == ()
    why = trained.validation["companions_absent"]["colour"]
    assert "no better than the words' shares" in why


def test_a_companion_that_looks_further_does_not_learn_from_the_test_period() -> None:
    frame = rows_frame(objective="regression")
    longer = replace(COLOUR, horizon=timedelta(days=60))
    words = coloured(frame)
    before = train_with(longer, words, frame)
    test_start = before.test["created_at"].min()
    late = frame["as_of"] + longer.horizon > test_start
    changed = words.mask(late & words.notna(), "red")
    after = train_with(longer, changed, frame)
    assert before.files["colour.ubj"] == after.files["colour.ubj"]


def test_no_rows_have_no_chances() -> None:
    frame = rows_frame(objective="regression")
    model = train_with(COLOUR, coloured(frame), frame).load()
    assert model.chances(np.empty((0, len(model.features))))["colour"].shape == (0, 2)


@pytest.mark.parametrize(
    ("days", "word"), [(3, "within a week"), (7, "within a week"), (20, "within a month"), (40, "")]
)
def test_timing_tells_when_the_first_policy_is_bound(days: int, word: str) -> None:
    engine = BareEngine()
    engine.connection.execute("ALTER TABLE policies ADD COLUMN product VARCHAR")
    engine.add("leads", ("a", START))
    engine.add("policies", ("p", "a", 100, START + days * DAY, None, "auto"))
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    assert companion_words(TIMING, spine, engine, START + 99 * DAY).tolist() == [word]
    product = companion_words(PRODUCT, spine, engine, START + 99 * DAY)
    assert product.tolist() == ["auto"]


def test_what_is_not_known_yet_is_missing() -> None:
    engine = BareEngine()
    engine.connection.execute("ALTER TABLE policies ADD COLUMN product VARCHAR")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    assert companion_words(TIMING, spine, engine, START + 29 * DAY).isna().all()


def test_a_label_that_answers_twice_is_refused_by_name() -> None:
    twice = replace(TIMING, label="SELECT row_id, 'x' AS label FROM moments, range(2)")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": pd.to_datetime([START], utc=True)})
    with pytest.raises(SpecError, match="timing answered 2 rows for 1 moments"):
        companion_words(twice, spine, BareEngine(), START + 99 * DAY)
