"""Trees written anew: the very raw scores of XGBoost, whatever the trees ask."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.plain_trees import PlainTrees
from leadml_pipelines.learning.tree_documents import document_of, trees_of
from leadml_pipelines_tests.learning.boosters import NUMBERS, WORDS, boosted, rows


def assert_as_xgboost(booster: xgboost.Booster, values: np.ndarray) -> None:
    wanted = booster.inplace_predict(values, predict_type="margin", validate_features=False)
    np.testing.assert_array_equal(PlainTrees.of(booster).raw_scores(values), wanted)


@pytest.mark.parametrize("depth", [1, 2, 4, 6, 7, 9])
def test_every_depth_gives_the_bits_of_xgboost(depth: int) -> None:
    assert_as_xgboost(boosted(1, max_depth=depth, min_child_weight=0), rows(300, 2))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 7),
    weight=st.sampled_from([0, 1, 20]),
    onehot=st.sampled_from([1, 5, 100]),
    objective=st.sampled_from(["binary:logistic", "reg:squarederror", "reg:tweedie"]),
    count=st.sampled_from([1, 2, 63, 64, 65, 200]),
)
def test_any_booster_gives_the_bits_of_xgboost(
    seed: int, depth: int, weight: int, onehot: int, objective: str, count: int
) -> None:
    booster = boosted(
        seed,
        8,
        max_depth=depth,
        min_child_weight=weight,
        max_cat_to_onehot=onehot,
        objective=objective,
    )
    assert_as_xgboost(booster, rows(count, seed + 1))


def test_a_code_that_no_tree_knows_goes_where_xgboost_sends_it() -> None:
    assert_as_xgboost(boosted(3), rows(200, 4, codes=40))


def test_a_value_on_a_bound_goes_where_xgboost_sends_it() -> None:
    booster = boosted(4)
    bounds = booster.trees_to_dataframe().dropna(subset=["Split"])
    values = rows(len(bounds), 5)
    for at, (name, bound) in enumerate(zip(bounds["Feature"], bounds["Split"], strict=True)):
        feature = int(name.removeprefix("f"))
        if feature < NUMBERS:
            values[at, feature] = bound
    assert_as_xgboost(booster, values)


def test_a_row_of_which_nothing_is_known_and_those_of_extremes() -> None:
    greatest = float(np.finfo(np.float32).max)
    values = np.full((5, NUMBERS + WORDS), np.nan)
    values[1:, :NUMBERS] = [[greatest], [-greatest], [0.0], [-0.0]]
    assert_as_xgboost(boosted(5), values)


def test_trees_of_a_single_leaf_ask_nothing() -> None:
    assert_as_xgboost(boosted(6, 3, min_child_weight=1e9), rows(4, 7))


def test_no_tree_asks_about_a_word_or_gets_a_missing_value() -> None:
    booster = boosted(8)
    assert any(tree["categories_nodes"] for tree in trees_of(document_of(booster)))
    plain = PlainTrees.of(booster)
    assert not any(tree["categories_nodes"] for tree in trees_of(document_of(plain.booster)))
    assert not np.isnan(plain.columns(rows(200, 9))).any()


def test_a_row_has_the_same_raw_score_alone_and_among_others() -> None:
    plain, values = PlainTrees.of(boosted(10)), rows(200, 11)
    together = plain.raw_scores(values)
    assert [plain.raw_scores(row[None, :])[0] for row in values] == together.tolist()
