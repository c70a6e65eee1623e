from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.learning.encoding import Column, Encoder
from leadml_pipelines.learning.training.rows import Rows
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training.trees import (
    base_params,
    fit_trees,
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


@pytest.mark.parametrize(
    ("objective", "params"),
    [
        ("classification", {}),
        ("classification", {"class_weights": 1.0}),
        ("regression", {"objective": "reg:tweedie"}),
    ],
)
def test_on_the_rows_of_the_fit_the_mean_answer_is_the_mean_label(
    objective: str, params: dict[str, Any]
) -> None:
    spec = spec_for(objective, params=params)
    rows = rows_of(list(range(4_000)), list(range(4_000)))
    prices = np.exp(1.5 * rows.values[:, 0])
    if objective == "regression":
        rows = replace(rows, labels=rows.labels * prices)
    base = base_params(spec, seed=1, threads=1, device="cpu")
    trees = fit_trees(spec, base, rows, np.arange(4_000), rounds=40)
    raw = trees.raw_scores(rows.values)
    said = np.exp(raw) if objective == "regression" else 1 / (1 + np.exp(-raw))
    assert said.mean() == pytest.approx(rows.labels.mean(), rel=1e-5)


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


# Fits of one tree, so that most of the time rows are handed to XGBoost, which calls back for them.
INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import pandas as pd
from leadml_pipelines.learning.training.trees import base_params, fit_trees
from leadml_pipelines.signals import signals_interrupt
from leadml_pipelines_tests.learning.frames import spec_for
from leadml_pipelines_tests.learning.training.test_trees import wide_rows

rows, spec = wide_rows(20_000, 120), spec_for()
base = base_params(spec, seed=1, threads=2, device="cpu")
everything = np.arange(20_000)
fit_trees(spec, base, rows, everything, rounds=1)

def interrupt(after):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGINT)

for attempt in range(10):
    try:
        with signals_interrupt():
            threading.Thread(target=interrupt, args=(0.05 + 0.013 * attempt,)).start()
            while True:
                fit_trees(spec, base, rows, everything, rounds=1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_an_interruption_while_rows_are_handed_over_ends_a_fit_cleanly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("interrupted")) == (0, 10), done.stderr[-2_000:]


def wide_rows(rows: int, columns: int) -> Rows:
    rng = np.random.default_rng(0)
    names = [f"f{number}" for number in range(columns)]
    frame = pd.DataFrame(rng.random((rows, columns)), columns=names)
    encoder = Encoder.fit(tuple(Column(name, "double", "fit") for name in names), frame)
    labels = (rng.random(rows) < 0.1).astype(np.float64)
    return Rows(encoder, encoder.encode(frame), labels, np.arange(rows), np.arange(rows))
