"""What an experiment says of two models whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning import experiment as room
from leadml_pipelines.learning.experiment import (
    Experiment,
    ExperimentError,
    challenger_of,
    compare,
    examine_experiment,
)
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.experiments import experiment_rows
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine

CHURN = replace(SPECS["churn"], metric="roc_auc")


def report(rows: pd.DataFrame, **changes: Any) -> Experiment:
    spec = replace(CHURN, **changes) if changes else CHURN
    return compare(spec, rows, {}, START + 100 * DAY, {}, {})


def chance(rows: pd.DataFrame, **changes: Any) -> float:
    found = report(rows, **changes).chance_better
    assert found is not None
    return found


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


def test_a_metric_whose_small_values_are_good_is_read_so() -> None:
    rows = experiment_rows(4000, seed=3, champion_noise=3.0, challenger_noise=0.5)
    assert chance(rows, metric="log_loss") > 0.99


def test_a_regression_is_compared_by_its_ranks() -> None:
    rows = experiment_rows(2000, seed=4, champion_noise=2.0, challenger_noise=0.5, regression=True)
    spec = replace(SPECS["lead_score"], metric="spearman")
    told = compare(spec, rows, {}, START + 100 * DAY, {}, {})
    assert told.chance_better is not None
    assert told.chance_better > 0.99
    assert told.champion is not None
    assert {"spearman", "mae", "r2", "outcome"} <= set(told.champion.figures)


def test_between_equal_models_chance_and_intervals_are_as_true_as_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scipy.stats import kstest

    monkeypatch.setattr(room, "DRAWS", 300)
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


def test_outcomes_that_are_not_known_are_counted_and_not_used() -> None:
    rows = experiment_rows(1000, seed=11, known=0.5)
    told = report(rows)
    assert told.champion is not None
    assert told.challenger is not None
    arms = (told.champion, told.challenger)
    assert sum(arm.known_entities for arm in arms) == rows["label"].notna().sum()
    assert sum(arm.entities for arm in arms) == 1000


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


def nightly(entities: int = 4000, days: int = 90, **noise: Any) -> pd.DataFrame:
    """An experiment with a new champion every night; outcomes of the first third are known."""
    rows = experiment_rows(entities, seed=14, **noise)
    day = np.random.default_rng(14).integers(0, days, len(rows))
    rows["predicted_at"] += pd.to_timedelta(day, unit="D")
    champion = rows["role"] == "champion"
    rows.loc[champion, "model_id"] = [f"churn_c{of:02d}" for of in day[champion]]
    rows.loc[day > days // 3, "label"] = np.nan
    return rows


def test_with_a_new_champion_every_night_the_challenger_is_held_against_all_of_them() -> None:
    rows = nightly(champion_noise=3.0, challenger_noise=0.3)
    told = report(rows)
    assert told.champion is not None
    assert told.champion.rows == ((rows["role"] == "champion") & rows["label"].notna()).sum()
    assert told.champion.model_id == "churn_c89"
    assert len(told.champion.versions) == 90
    assert told.champion.versions[0].model_id == "churn_c00"
    assert told.champion.versions[0].first_at == START
    assert told.chance_better is not None
    assert told.chance_better > 0.99
    assert (
        "of the champion (90 versions, churn_c00 (from 2024-01-01) to churn_c89 (to 2024-03-30))"
        in told.verdict
    )


def test_between_equal_models_of_unequal_share_none_is_ahead_by_its_calibration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "DRAWS", 200)
    noise: dict[str, Any] = {"champion_noise": 0.0, "challenger_noise": 0.0, "share": 0.1}
    found = [report(experiment_rows(3000, seed=s, **noise), metric="ece") for s in range(20)]
    chances = [told.chance_better for told in found if told.chance_better is not None]
    # The mean of 20 uniform numbers is 0.5 +- 0.065.
    assert np.mean(chances) == pytest.approx(0.5, abs=0.2)
    assert {told.metric for told in found} == {"brier"}
    assert all("ece" not in told.differences for told in found)


def test_versions_of_another_question_do_not_count_nor_does_anybody_at_their_time() -> None:
    rows = nightly(champion_noise=3.0, challenger_noise=0.3)
    early = rows["predicted_at"] < pd.Timestamp(START) + 5 * DAY
    old = {f"churn_c{day:02d}": "its horizon is 30d, now it is 60d" for day in range(5)}
    told = compare(CHURN, rows, {}, START + 100 * DAY, {}, old)
    for arm in (told.champion, told.challenger):
        assert arm is not None
        known = (rows["role"] == arm.role) & rows["label"].notna()
        assert arm.rows == (known & ~early).sum()
        assert arm.entities == (rows["role"] == arm.role).sum()
    assert (told.not_comparable, told.left_out) == (old, early.sum())
    assert "churn_c00 (its horizon is 30d, now it is 60d) and 4 more" in told.verdict


def test_a_challenger_of_another_question_is_not_compared_and_this_is_said() -> None:
    why = {"churn_2": "its label was declared otherwise", "churn_0": "it never answered"}
    told = compare(CHURN, experiment_rows(600, seed=1), {}, START + 100 * DAY, {}, why)
    assert told.chance_better is None
    assert told.verdict.startswith("not enough outcomes yet: 0 of about 200 needed")
    assert "churn_2 (its label was declared otherwise)" in told.verdict
    assert "churn_0" not in told.verdict


def test_the_accuracy_is_that_of_each_models_own_threshold() -> None:
    rows = experiment_rows(600, seed=16)
    told = compare(CHURN, rows, {}, START + 100 * DAY, {"churn_1": 2.0}, {})
    assert told.champion is not None
    its = rows[rows["role"] == "champion"]
    # Nobody reaches such a threshold: right are the negatives.
    assert told.champion.figures["accuracy"]["value"] == pytest.approx((its["label"] == 0).mean())


def test_the_same_seed_tells_the_same_and_it_is_json() -> None:
    rows = experiment_rows(600, seed=17)
    documents = [json.dumps(report(rows).document(), allow_nan=False) for _ in range(2)]
    assert documents[0] == documents[1]


class _Registry:
    """What `challenger_of` asks of a registry."""

    def __init__(self, challenger: str | None) -> None:
        self._challenger = challenger

    def alias(self, name: str, alias: str) -> Any:
        return None if self._challenger is None else _Record(self._challenger)

    def models(self, name: str | None = None) -> list[Any]:
        return [_Record("churn_0")]


class _Record:
    threshold = 0.5

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id


def test_the_challenger_of_now_or_an_earlier_one_is_asked_for() -> None:
    assert challenger_of(_Registry("churn_2"), SPECS, "churn")[1] == "churn_2"
    assert challenger_of(_Registry(None), SPECS, "churn", "churn_0")[1] == "churn_0"
    with pytest.raises(ExperimentError, match="challenge MODEL_ID"):
        challenger_of(_Registry(None), SPECS, "churn")
    with pytest.raises(ExperimentError, match="no registered version"):
        challenger_of(_Registry(None), SPECS, "churn", "churn_9")
    with pytest.raises(ExperimentError, match="the models are churn"):
        challenger_of(_Registry(None), SPECS, "chrun")


def test_the_log_and_the_outcomes_that_came_in_since_make_the_report(postgres_url: str) -> None:
    engine = BareEngine()
    rows = []
    for at in range(40):
        drawn = at % 2 == 0
        # An event within the horizon: it does not churn.
        if at % 4 < 2:
            engine.add("lead_events", (f"lead_{at}", "inbound", START + DAY, START + DAY))
        rows += [
            (f"p{at}_{n}", "churn_2" if drawn else "churn_1", "challenger" if drawn else "champion",
             f"lead_{at}", START + n * timedelta(hours=5), START + n * timedelta(hours=5), 0.4)
            for n in range(3)
        ]  # fmt: skip
    with connect(postgres_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO leadml.predictions (prediction_id, model_name, model_id, role,"
            " entity_type, entity_id, features_as_of, predicted_at, value, source, stale, degraded,"
            " experiment, traffic_share) VALUES (%s, 'churn', %s, %s, 'lead', %s, %s, %s, %s,"
            " 'cache', false, false, 'churn_2', 0.5)",
            rows,
        )
    told = examine_experiment(
        postgres_url, CHURN, "churn_2", engine, START + 61 * DAY, {"churn_1": 0.3}, {}
    )
    for arm in (told.champion, told.challenger):
        assert arm is not None
        assert (arm.predictions, arm.entities, arm.rows, arm.known_entities) == (60, 20, 20, 20)
        assert arm.positives == 10
        assert arm.figures["roc_auc"]["value"] == 0.5
