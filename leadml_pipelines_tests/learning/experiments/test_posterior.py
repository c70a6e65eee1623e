"""What is said of two models whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.experiments import posterior
from leadml_pipelines.learning.experiments.comparison import compare
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines_tests.learning.experiments.reports import chance, report
from leadml_pipelines_tests.learning.experiments.rows import experiment_rows
from leadml_pipelines_tests.learning.frames import DAY, START


def test_between_equal_models_chance_and_intervals_are_as_true_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scipy.stats import kstest

    monkeypatch.setattr(posterior, "DRAWS", 300)
    found = [report(experiment_rows(600, seed=seed)) for seed in range(100)]
    chances = [told.chance_better for told in found]
    assert kstest(chances, "uniform").pvalue > 0.01
    gaps = [told.differences["roc_auc"] for told in found]
    # Binomial with 0.95: fewer than 88 of 100 happen twice in a thousand times.
    assert sum(gap["low"] <= 0 <= gap["high"] for gap in gaps) >= 88


def test_repeated_predictions_of_an_entity_make_nothing_surer() -> None:
    once = report(experiment_rows(500, seed=5))
    often = report(experiment_rows(500, seed=5, rows_each=20))
    assert often.champion is not None
    assert once.champion is not None
    assert often.champion.rows == 20 * once.champion.rows
    for metric in ("roc_auc", "brier"):
        wide, narrow = once.differences[metric], often.differences[metric]
        assert narrow["high"] - narrow["low"] == pytest.approx(wide["high"] - wide["low"], rel=0.1)


def test_a_share_that_was_raised_in_better_times_favours_nobody() -> None:
    # The outcome is frequent while the share is small, and rare after it was raised: the plain
    # means of the two sides would be far apart.
    early = experiment_rows(4000, seed=6, share=0.1)
    late = experiment_rows(4000, seed=7, share=0.9).assign(
        entity_id=lambda frame: "late_" + frame["entity_id"]
    )
    rng = np.random.default_rng(8)
    early["label"] = (rng.random(len(early)) < 0.8).astype(float)
    late["label"] = (rng.random(len(late)) < 0.2).astype(float)
    told = report(pd.concat([early, late], ignore_index=True))
    assert told.champion is not None
    assert told.challenger is not None
    for arm in (told.champion, told.challenger):
        assert arm.figures["outcome"]["value"] == pytest.approx(0.5, abs=0.05)


def test_a_metric_whose_small_values_are_good_is_read_so() -> None:
    rows = experiment_rows(4000, seed=3, champion_noise=3.0, challenger_noise=0.5)
    assert chance(rows, metric="log_loss") > 0.99


def test_a_regression_is_compared_by_its_ranks() -> None:
    rows = experiment_rows(2000, seed=4, champion_noise=2.0, challenger_noise=0.5, regression=True)
    spec = replace(SPECS["lead_score"], metric="spearman")
    told = compare(spec, rows, {}, START + 100 * DAY, {})
    assert told.chance_better is not None
    assert told.chance_better > 0.99
    assert told.champion is not None
    assert {"spearman", "mae", "r2", "outcome"} <= set(told.champion.figures)


def test_the_accuracy_is_that_of_the_answers_that_were_given() -> None:
    rows = experiment_rows(600, seed=16)
    rows.loc[rows["role"] == "champion", "prediction"] = 0.0
    told = report(rows)
    assert told.champion is not None
    its = rows[rows["role"] == "champion"]
    # It said no to everybody, whatever the chance: right are the negatives.
    assert told.champion.figures["accuracy"]["value"] == pytest.approx((its["label"] == 0).mean())
