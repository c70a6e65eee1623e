"""Live performance: what came true of served predictions, beside the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from leadml_pipelines.learning.registry.registry import ModelRecord
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.live import (
    LivePerformance,
    live_performance,
    read_live_performance,
)
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine, spec_for
from leadml_pipelines_tests.monitoring.predictions import add_predictions

TEST = {"accuracy": 0.85, "roc_auc": 0.9, "brier": 0.1, "rows": 5_000, "positives": 1_000}


def record(model_id: str = "toy_1", error: float = 0.005, **metrics: Any) -> ModelRecord:
    """A version with the figures of its test, and an interval of so much to either side."""
    known = {**TEST, **metrics}
    intervals = {
        name: {"value": value, "low": value - error, "high": value + error}
        for name, value in known.items()
    }
    made = {"model_id": model_id, "metrics": known, "evaluation": {"model": intervals}}
    return cast(ModelRecord, SimpleNamespace(name="toy", **made))


def outcomes(rows: int, signal: float, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(float)
    value = 1 / (1 + np.exp(-(signal * (label - 0.5) + rng.normal(size=rows))))
    return pd.DataFrame(
        {
            "entity_id": [f"l{n}" for n in range(rows)],
            "model_id": "toy_1",
            "predicted_at": pd.Timestamp(START),
            "value": value,
            "prediction": (value > 0.5).astype(float),
            "label": label,
        }
    )


def found_of(
    known: pd.DataFrame,
    *tests: ModelRecord,
    not_comparable: Mapping[str, str] | None = None,
    **spec: Any,
) -> LivePerformance | NotEnough:
    return live_performance(
        spec_for(**spec),
        tests or [record()],
        "champion",
        known,
        not_comparable or {},
        since=START,
        until=START,
        least=100,
        seed=7,
    )


def judged(known: pd.DataFrame, *tests: ModelRecord, **options: Any) -> LivePerformance:
    found = found_of(known, *tests, **options)
    assert isinstance(found, LivePerformance)
    return found


def test_the_metrics_are_the_well_known_ones() -> None:
    known = outcomes(500, 2.0)
    found = judged(known).metrics
    assert found["roc_auc"].live == pytest.approx(roc_auc_score(known["label"], known["value"]))
    assert found["accuracy"].live == pytest.approx((known["prediction"] == known["label"]).mean())
    assert found["brier"].live == pytest.approx(((known["value"] - known["label"]) ** 2).mean())


def test_a_model_that_is_as_good_as_in_its_test_is_not_worse() -> None:
    known = outcomes(3_000, 2.0)
    auc = judged(known).metrics["roc_auc"].live
    found = judged(known, record(roc_auc=auc + 0.01)).metrics["roc_auc"]
    assert not found.worse(0.05)


def test_a_model_that_lost_its_signal_is_worse() -> None:
    found = judged(outcomes(1_000, 0.2)).metrics
    assert found["roc_auc"].worse(0.05)
    assert found["accuracy"].worse(0.05)
    assert found["roc_auc"].drop == pytest.approx((0.9 - found["roc_auc"].live) / 0.9)


def test_a_drop_over_the_limit_that_may_be_chance_is_not_worse() -> None:
    known = outcomes(120, 1.0)
    auc = judged(known).metrics["roc_auc"].live
    few = judged(known, record(roc_auc=auc * 1.07)).metrics["roc_auc"]
    assert few.drop is not None
    assert few.drop > 0.05
    assert not few.worse(0.05)
    many = pd.concat([known.assign(entity_id=known["entity_id"] + f"_{n}") for n in range(40)])
    assert judged(many, record(roc_auc=auc * 1.07)).metrics["roc_auc"].worse(0.05)


def test_the_noise_of_the_test_is_that_of_its_bootstrap_interval() -> None:
    known = outcomes(1_000, 2.0)
    sure = judged(known, record(error=0.0)).metrics["roc_auc"].noise
    wide = judged(known, record(error=0.15)).metrics["roc_auc"].noise
    assert sure is not None
    assert wide == pytest.approx(np.hypot(sure, 0.15 / 0.9))
    without = cast(ModelRecord, SimpleNamespace(**{**vars(record()), "evaluation": {}}))
    unknown = judged(known, without).metrics["roc_auc"]
    assert unknown.noise is None
    assert not unknown.worse(0.0)


def test_many_predictions_of_few_entities_are_no_more_evidence() -> None:
    known = outcomes(120, 2.0)
    once, often = judged(known), judged(pd.concat([known] * 40))
    assert often.predictions == 4_800
    assert often.metrics["roc_auc"].noise == pytest.approx(once.metrics["roc_auc"].noise)


@pytest.mark.parametrize("each", [1, 90])
@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_the_noise_is_the_spread_that_is_seen_also_where_few_are_asked_about_daily(
    metric: str, each: int
) -> None:
    times = np.where(np.arange(300) < 25, each, 1)
    found = []
    for seed in range(60):
        known = outcomes(300, 1.5, seed)
        found.append(judged(known.loc[known.index.repeat(times)], record(error=0.0)))
    test = TEST[metric]
    spread = np.std([one.metrics[metric].live for one in found])
    told = [one.metrics[metric].noise or 0.0 for one in found]
    assert float(np.mean(told)) * test / 1.96 == pytest.approx(spread, rel=0.3)


def test_few_outcomes_are_not_enough_and_said_so() -> None:
    found = found_of(outcomes(20, 2))
    assert isinstance(found, NotEnough)
    assert "outcomes are known of 20 entities" in str(found)
    found = found_of(outcomes(200, 2).assign(label=0.0))
    assert isinstance(found, NotEnough)
    assert "0 of 200 entities" in str(found)
    found = found_of(outcomes(200, 2).assign(label=3.0), objective="regression")
    assert isinstance(found, NotEnough)
    assert "the same came true of all" in str(found)


def test_values_are_judged_by_their_ranking() -> None:
    known = outcomes(500, 2.0).assign(label=lambda frame: frame["value"] * 100)
    test = record(spearman=0.4)
    found = judged(known, test, objective="regression").metrics
    assert set(found) == {"spearman", "mae"}
    assert found["spearman"].live == pytest.approx(1.0)
    assert not found["spearman"].worse(0.05)
    assert found["mae"].test is None
    reversed_ = judged(known.assign(value=-known["value"]), test, objective="regression").metrics
    assert reversed_["spearman"].worse(0.05)


def nightly(signal: float = 2.0, days: int = 30) -> pd.DataFrame:
    """Outcomes of predictions of a month, with a new champion every night."""
    known = outcomes(900, signal)
    day = np.arange(len(known)) % days
    return known.assign(
        model_id=[f"toy_{of:02d}" for of in day],
        predicted_at=pd.Timestamp(START) + pd.to_timedelta(day, unit="D"),
    )


def test_all_who_were_champion_are_judged_each_by_the_test_of_its_own() -> None:
    tests = [record(f"toy_{day:02d}", roc_auc=0.8 if day < 10 else 0.95) for day in range(30)]
    found = judged(nightly(), *tests)
    assert (found.predictions, found.entities, len(found.versions)) == (900, 900, 30)
    assert found.who == "30 versions, toy_00 (from 2024-01-01) to toy_29 (to 2024-01-30)"
    assert found.metrics["roc_auc"].test == pytest.approx((0.8 + 2 * 0.95) / 3)
    assert judged(nightly(0.2), *tests).metrics["roc_auc"].worse(0.05)


def test_versions_of_another_question_are_left_out_and_this_is_said() -> None:
    tests = [record(f"toy_{day:02d}") for day in range(30)]
    old = {"toy_00": "its horizon is 30d, now it is 20d", "toy_01": "its horizon is 30d"}
    found = judged(nightly(), *tests, not_comparable=old)
    assert (found.predictions, found.left_out, dict(found.not_comparable)) == (840, 60, old)
    assert found.versions[0].model_id == "toy_02"
    assert found.remark == (
        "; 60 predictions are not comparable, of toy_00 (its horizon is 30d, now it is 20d) "
        "and 1 more"
    )
    nobody = found_of(nightly(), not_comparable={})
    assert isinstance(nobody, NotEnough)
    assert "900 predictions are not comparable, of toy_00 (it is not registered)" in str(nobody)


def test_predictions_are_joined_with_what_came_true_of_them(postgres_url: str) -> None:
    """Served predictions of a role, whose horizon is over; the first of a day."""
    engine = BareEngine()
    spec, made = SPECS["conversion"], START + 10 * DAY
    ids = [f"l{n}" for n in range(60)]
    for number, lead in enumerate(ids[:20]):
        engine.add("policies", (f"p{number}", lead, 100, made + 5 * DAY, None))
    sure = {lead: 0.9 if n < 20 else 0.1 for n, lead in enumerate(ids)}
    add = {"model_name": "conversion", "model_id": "conversion_1"}
    add_predictions(postgres_url, ids, made, values=sure, **add)
    add_predictions(postgres_url, ids, made + timedelta(hours=1), values=0.5, **add)
    # Not judged: another model, another role, one whose horizon is not over.
    add_predictions(postgres_url, ids, made, values=0.5, model_name="lead_score")
    add_predictions(postgres_url, ids, made - DAY, values=0.5, role="challenger", **add)
    add_predictions(postgres_url, ids, made + 20 * DAY, values=0.5, **add)

    def read(data_end: datetime) -> LivePerformance | NotEnough:
        return read_live_performance(
            postgres_url,
            engine,
            spec,
            [record("conversion_1")],
            "champion",
            {},
            data_end=data_end,
            window=30 * DAY,
            least=50,
            seed=7,
        )

    found = read(made + 31 * DAY)
    assert isinstance(found, LivePerformance)
    assert (found.predictions, found.entities) == (60, 60)
    assert found.metrics["roc_auc"].live == 1.0
    assert found.metrics["brier"].live == pytest.approx(0.01)
    early = read(made + 29 * DAY)
    assert isinstance(early, NotEnough)
    assert "the horizon is 30 days" in str(early)


def test_the_window_is_counted_back_from_the_newest_known_outcome(postgres_url: str) -> None:
    engine = BareEngine()
    ids = [f"old{n}" for n in range(60)]
    add_predictions(postgres_url, ids, START, values=0.5, model_name="churn", model_id="churn_1")
    short = replace(SPECS["churn"], horizon=10 * DAY)
    found = read_live_performance(
        postgres_url,
        engine,
        short,
        [record("churn_1")],
        "champion",
        {},
        data_end=START + 50 * DAY,
        window=30 * DAY,
        least=50,
        seed=7,
    )
    assert isinstance(found, NotEnough)
    assert "of 0 entities" in str(found)
