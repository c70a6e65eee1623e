"""Who is compared with whom, and which rows count."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.experiments import posterior
from leadml_pipelines.learning.experiments.comparison import compare
from leadml_pipelines_tests.learning.experiments.reports import CHURN, report
from leadml_pipelines_tests.learning.experiments.rows import experiment_rows
from leadml_pipelines_tests.learning.frames import DAY, START


def test_outcomes_that_are_not_known_are_counted_and_not_used() -> None:
    rows = experiment_rows(1000, seed=11, known=0.5)
    told = report(rows)
    assert told.champion is not None
    assert told.challenger is not None
    arms = (told.champion, told.challenger)
    assert sum(arm.known_entities for arm in arms) == rows["label"].notna().sum()
    assert sum(arm.entities for arm in arms) == 1000


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
    monkeypatch.setattr(posterior, "DRAWS", 200)
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
    told = compare(CHURN, rows, {}, START + 100 * DAY, old)
    for arm in (told.champion, told.challenger):
        assert arm is not None
        known = (rows["role"] == arm.role) & rows["label"].notna()
        assert arm.rows == (known & ~early).sum()
        assert arm.entities == (rows["role"] == arm.role).sum()
    assert (told.not_comparable, told.left_out) == (old, early.sum())
    assert "churn_c00 (its horizon is 30d, now it is 60d) and 4 more" in told.verdict


def test_a_challenger_of_another_question_is_not_compared_and_this_is_said() -> None:
    why = {"churn_2": "its label was declared otherwise", "churn_0": "it never answered"}
    told = compare(CHURN, experiment_rows(600, seed=1), {}, START + 100 * DAY, why)
    assert told.chance_better is None
    assert told.verdict.startswith("not enough outcomes yet: 0 of about 200 needed")
    assert "churn_2 (its label was declared otherwise)" in told.verdict
    assert "churn_0" not in told.verdict


def test_the_same_seed_tells_the_same_and_it_is_json() -> None:
    rows = experiment_rows(600, seed=17)
    documents = [json.dumps(report(rows).document(), allow_nan=False) for _ in range(2)]
    assert documents[0] == documents[1]
