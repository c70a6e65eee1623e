"""SHAP values of real boosters: those of XGBoost itself, whatever the trees ask."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.tree_shap import TreeShap
from leadml_pipelines_tests.learning.boosters import NUMBERS, WORDS, boosted, matrix, rows


def assert_as_xgboost(booster: xgboost.Booster, values: np.ndarray) -> None:
    wanted = booster.predict(matrix(values), pred_contribs=True)
    found = TreeShap.of(booster, NUMBERS + WORDS)(values)
    # Both are added up in float32, in another order.
    size = 1 + np.abs(wanted).sum(axis=1, keepdims=True)
    assert np.all(np.abs(found - wanted) <= 2e-6 * size)
    raw = booster.predict(matrix(values), output_margin=True)
    assert np.all(np.abs(found.sum(axis=1) - raw) <= 2e-6 * size[:, 0])


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 8])
def test_every_depth_gives_the_values_of_xgboost(depth: int) -> None:
    assert_as_xgboost(boosted(1, max_depth=depth), rows(60, 2))


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 7),
    weight=st.sampled_from([0, 1, 20]),
    onehot=st.sampled_from([1, 5, 100]),
    objective=st.sampled_from(["binary:logistic", "reg:squarederror", "reg:tweedie"]),
)
def test_any_booster_gives_the_values_of_xgboost(
    seed: int, depth: int, weight: int, onehot: int, objective: str
) -> None:
    booster = boosted(
        seed,
        8,
        max_depth=depth,
        min_child_weight=weight,
        max_cat_to_onehot=onehot,
        objective=objective,
    )
    assert_as_xgboost(booster, rows(30, seed + 1))


def test_a_code_that_no_tree_knows_goes_where_xgboost_sends_it() -> None:
    assert_as_xgboost(boosted(3), rows(60, 4, codes=40))


def test_a_row_of_which_nothing_is_known_and_one_of_extremes() -> None:
    values = np.full((3, NUMBERS + WORDS), np.nan)
    values[1:, :NUMBERS] = [[1e30], [-1e30]]
    assert_as_xgboost(boosted(5), values)


def test_trees_of_a_single_leaf_have_no_effect() -> None:
    booster = boosted(6, 3, min_child_weight=1e9)
    found = TreeShap.of(booster, NUMBERS + WORDS)(rows(4, 7))
    assert np.all(found[:, :-1] == 0)
    assert found[:, -1] == pytest.approx(booster.predict(matrix(rows(4, 7)), output_margin=True))


def test_a_row_has_the_same_values_alone_and_among_others() -> None:
    shap, values = TreeShap.of(boosted(8), NUMBERS + WORDS), rows(20, 9)
    assert np.array_equal(shap(values)[7:8], shap(values[7:8]))
