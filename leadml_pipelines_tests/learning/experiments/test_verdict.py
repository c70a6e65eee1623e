"""What is concluded, and when it is too early."""

from __future__ import annotations

import numpy as np

from leadml_pipelines_tests.learning.experiments.reports import report
from leadml_pipelines_tests.learning.experiments.rows import experiment_rows


def test_too_few_outcomes_conclude_nothing_and_say_how_many_are_missing() -> None:
    rows = experiment_rows(400, seed=9, champion_noise=3, challenger_noise=0.1, share=0.1)
    told = report(rows)
    assert told.challenger is not None
    assert told.verdict == (
        f"not enough outcomes yet: {told.challenger.known_entities} of about 200 needed, of the "
        "challenger; an outcome is known 60d after the prediction"
    )


def test_a_rare_outcome_needs_more_entities() -> None:
    rows = experiment_rows(1000, seed=10)
    rows["label"] = (np.arange(len(rows)) % 100 == 0).astype(float)
    told = report(rows)
    assert told.needed == 1000
    assert told.verdict.startswith("not enough outcomes yet")


def test_before_any_outcome_there_are_no_figures() -> None:
    told = report(experiment_rows(300, seed=12, known=0.0))
    assert told.champion is not None
    assert (told.champion.figures, told.differences, told.chance_better) == ({}, {}, None)
    assert "0 of about 200" in told.verdict


def test_without_predictions_of_one_side_nothing_is_compared() -> None:
    rows = experiment_rows(300, seed=13)
    told = report(rows[rows["role"] == "champion"])
    assert told.challenger is None
    assert "the challenger has made no prediction" in told.verdict
    nothing = report(rows[:0])
    assert (nothing.champion, nothing.first_at) == (None, None)


def test_a_challenger_that_is_truly_better_is_found_to_be() -> None:
    told = report(experiment_rows(4000, seed=1, champion_noise=3.0, challenger_noise=0.5))
    assert told.chance_better is not None
    assert told.chance_better > 0.99
    assert told.differences["roc_auc"]["low"] > 0
    assert "the challenger is better with a chance of over 99 %: ROC AUC" in told.verdict
    assert "leadml models promote churn_2" in told.verdict


def test_a_challenger_that_is_truly_worse_is_found_to_be() -> None:
    told = report(experiment_rows(4000, seed=2, champion_noise=0.5, challenger_noise=3.0))
    assert told.chance_better is not None
    assert told.chance_better < 0.01
    assert "the challenger is worse with a chance of over 99 %" in told.verdict
