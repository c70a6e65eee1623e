from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from leadml_pipelines.learning.encoding import Encoder
from leadml_pipelines.learning.training.blend import choose_weights
from leadml_pipelines.learning.training.linear import LinearMember, fit_linear
from leadml_pipelines.learning.training.train import train
from leadml_pipelines_tests.learning.frames import FEATURES, figures, rows_frame, spec_for, toy_set


def auc(labels: np.ndarray, raw: np.ndarray) -> float:
    return float(roc_auc_score(labels, raw))


def test_two_members_that_see_different_halves_of_the_truth_are_blended() -> None:
    random = np.random.default_rng(0)
    left, right = random.normal(size=(2, 8_000))
    labels = (random.random(8_000) < 1 / (1 + np.exp(-left - right))).astype(float)
    weights, seen = choose_weights({"a": left, "b": right}, labels, np.arange(8_000), auc)
    assert seen["won"]
    assert weights == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.11)


def test_a_member_that_knows_nothing_gets_no_weight() -> None:
    random = np.random.default_rng(1)
    left, noise = random.normal(size=(2, 8_000))
    labels = (random.random(8_000) < 1 / (1 + np.exp(-2 * left))).astype(float)
    weights, _ = choose_weights({"a": left, "noise": noise}, labels, np.arange(8_000), auc)
    assert weights["a"] >= 0.9


def test_a_blend_that_does_not_win_on_the_other_half_is_not_used() -> None:
    raw = np.random.default_rng(2).normal(size=500)
    labels = (raw > 0).astype(float)
    weights, seen = choose_weights({"a": raw, "b": -raw}, labels, np.arange(500), auc)
    assert weights == {"a": 1.0}
    assert not seen["won"]


@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_the_terms_of_a_linear_member_are_centred_and_sum_to_its_score(objective: str) -> None:
    frame = rows_frame(objective=objective)
    encoder = Encoder.fit(FEATURES, frame)
    values = encoder.encode(frame)
    labels = frame["label"].to_numpy(float)
    member = fit_linear(encoder, values, labels, objective=objective, seed=0)
    terms = member.contributions(values)
    np.testing.assert_allclose(terms.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(member.base + terms.sum(axis=1), member.raw_scores(values))
    if objective == "regression":
        assert member.base == pytest.approx(labels.mean())
    again = LinearMember.from_arrays(member.to_arrays())
    np.testing.assert_array_equal(again.raw_scores(values), member.raw_scores(values))


def test_expected_values_are_never_less_than_nothing() -> None:
    spec = spec_for("regression", learner="stack")
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    model = trained.load()
    values = model.encoder.encode(trained.test)
    assert model.raw_scores(values).min() < 0 <= model.predict(values).values.min()


def test_a_stack_is_the_same_on_any_number_of_threads() -> None:
    spec = spec_for(learner="stack")
    one, two = (train(spec, toy_set(spec), seed=7, threads=n) for n in (1, 2))
    assert one.files == two.files


def test_a_stack_that_wins_has_several_members_and_is_explained_exactly() -> None:
    spec = spec_for(learner="stack")
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    assert trained.validation["blend"]["won"]
    assert len(trained.manifest["members"]) > 1
    model = trained.load()
    values = model.encoder.encode(trained.test)
    told = model.contributions(values)
    np.testing.assert_allclose(told.raw, model.raw_scores(values), atol=1e-4)
    alone = train(spec_for(), toy_set(spec_for()), seed=7, threads=1)
    assert figures(trained)["roc_auc"] > figures(alone)["roc_auc"] - 0.02
