from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from leadml_pipelines.learning.encoding import Column, Encoder
from leadml_pipelines.learning.training.rows import Rows
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training.trees import (
    base_params,
    fit_trees,
    seeing_few_of_each,
    usable_device,
)
from leadml_pipelines_tests.learning.frames import figures, spec_for, toy_set

ENCODER = Encoder((Column("x", "double"),), {})


def rows_of(order: list[int], groups: list[int]) -> Rows:
    n = len(order)
    random = np.random.default_rng(0)
    values = random.normal(size=(n, 1))
    labels = (random.random(n) < 1 / (1 + np.exp(-2 * values[:, 0] + 2))).astype(float)
    return Rows(ENCODER, values, labels, np.array(order), np.array(groups, np.int64))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=10, max_size=80))
def test_rows_that_stop_a_fit_are_the_newest_and_of_entities_it_does_not_learn_from(
    pairs: list[tuple[int, int]],
) -> None:
    rows = rows_of([order for order, _ in pairs], [group for _, group in pairs])
    fits, stops = rows.early_stopping(np.arange(len(pairs)))
    assert not set(rows.groups[fits]) & set(rows.groups[stops])
    cut = np.quantile(rows.order, 0.8)
    assert (rows.order[stops] >= cut).all()


def test_leads_that_are_all_new_stop_the_fit_together() -> None:
    rows = rows_of(list(range(100)), list(range(100)))
    fits, stops = rows.early_stopping(np.arange(100))
    assert fits.tolist() == list(range(80))
    assert stops.tolist() == list(range(80, 100))


def test_a_fit_with_early_stopping_uses_fewer_rounds_than_it_may() -> None:
    spec = spec_for(rounds=2_000)
    rows = rows_of(list(range(3_000)), list(range(3_000)))
    base = base_params(spec, seed=1, threads=1, device="cpu")
    trees = fit_trees(spec, base, rows, np.arange(3_000))
    assert 1 < trees.rounds < 500


@pytest.mark.parametrize("weights", [0.0, 0.5, 1.0])
def test_raw_scores_are_log_odds_whatever_the_class_weights(weights: float) -> None:
    spec = spec_for()
    rows = rows_of(list(range(8_000)), list(range(8_000)))
    base = base_params(spec, seed=1, threads=1, device="cpu") | {"class_weights": weights}
    trees = fit_trees(spec, base, rows, np.arange(8_000), rounds=80)
    chances = 1 / (1 + np.exp(-trees.raw_scores(rows.values)))
    assert chances.mean() == pytest.approx(rows.labels.mean(), abs=0.02)


def test_a_tree_sees_two_rows_of_a_lead_and_never_more_than_it_was_told_to() -> None:
    told = {"subsample": 0.7, "rows_of_a_lead": 2.0}
    for each, share in ((1, 0.7), (2, 0.7), (4, 0.5), (10, 0.2)):
        rows = rows_of(list(range(1_000)), [at // each for at in range(1_000)])
        found = seeing_few_of_each(told, rows, np.arange(1_000))
        assert found["subsample"] == pytest.approx(share)
        unlimited = {**told, "rows_of_a_lead": None}
        assert seeing_few_of_each(unlimited, rows, np.arange(1_000)) == unlimited


def test_leads_with_many_rows_are_not_learned_by_heart() -> None:
    """A dozen rows for each of 300 leads: what tells the lead says nothing of another."""
    random = np.random.default_rng(5)
    groups = np.repeat(np.arange(600), 12)
    identity = random.normal(size=(600, 8))[groups]
    signal = random.normal(size=600)
    bought = (random.random(600) < 1 / (1 + np.exp(2 - signal))).astype(float)
    columns = tuple(Column(f"x{at}", "double") for at in range(9))
    rows = Rows(
        Encoder(columns, {}),
        np.column_stack([signal[groups], identity]),
        bought[groups],
        np.arange(len(groups)),
        groups.astype(np.int64),
    )
    known, new = np.flatnonzero(groups < 300), np.flatnonzero(groups >= 300)
    spec = spec_for(params={})
    base = base_params(spec, seed=1, threads=1, device="cpu")

    def auc_on_new_leads(rows_of_a_lead: float | None) -> float:
        params = {**base, "rows_of_a_lead": rows_of_a_lead}
        trees = fit_trees(spec, params, rows, known, rounds=100)
        return float(roc_auc_score(rows.labels[new], trees.raw_scores(rows.values[new])))

    assert auc_on_new_leads(2.0) > auc_on_new_leads(None) + 0.01


@pytest.mark.parametrize("unit", [1.0, 1_000.0])
def test_values_with_a_log_link_are_learned_alike_in_every_currency(unit: float) -> None:
    spec = spec_for("regression", params={"objective": "reg:tweedie"})
    rows = rows_of(list(range(4_000)), list(range(4_000)))
    priced = replace(rows, labels=rows.labels * unit)
    base = base_params(spec, seed=1, threads=1, device="cpu")
    plain, scaled = (
        fit_trees(spec, base, of, np.arange(4_000), rounds=60) for of in (rows, priced)
    )
    values = np.exp(scaled.raw_scores(rows.values))
    np.testing.assert_allclose(values / unit, np.exp(plain.raw_scores(rows.values)), rtol=1e-4)
    assert values.mean() == pytest.approx(priced.labels.mean(), rel=0.1)
    # A leaf of fewer rows than `min_child_weight` has no right to be.
    stump = fit_trees(spec, {**base, "min_child_weight": 5_000}, priced, np.arange(4_000), rounds=9)
    assert np.ptp(stump.raw_scores(rows.values)) == 0


def test_a_fit_by_tweedies_deviance_stops_by_the_deviance_that_it_learns_by() -> None:
    params = {"objective": "reg:tweedie", "tweedie_variance_power": 1.1}
    base = base_params(spec_for("regression", params=params), seed=1, threads=1, device="cpu")
    assert base["eval_metric"] == "tweedie-nloglik@1.1"


def test_without_a_gpu_cuda_falls_back_with_one_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    usable_device.cache_clear()
    caplog.set_level(logging.WARNING)
    device = usable_device("cuda")
    assert usable_device("cuda") == device
    said = capsys.readouterr().out + caplog.text
    assert device == "cuda" or said.count("no_gpu") == 1


def test_a_model_asked_for_cuda_is_the_one_of_the_cpu_where_there_is_no_gpu() -> None:
    spec = spec_for()
    asked = train(spec, toy_set(spec), seed=7, threads=1, device="cuda")
    plain = train(spec, toy_set(spec), seed=7, threads=1)
    if usable_device("cuda") == "cpu":
        assert asked.files == plain.files
    assert figures(asked)["roc_auc"] == pytest.approx(figures(plain)["roc_auc"], abs=0.03)
