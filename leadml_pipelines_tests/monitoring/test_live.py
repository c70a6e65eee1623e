"""Live performance: what came true of served predictions, beside the test."""

from __future__ import annotations

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
    standard_error,
)
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine, spec_for
from leadml_pipelines_tests.monitoring.predictions import add_predictions

TEST = {"accuracy": 0.85, "roc_auc": 0.9, "brier": 0.1, "rows": 5_000, "positives": 1_000}


def record(**metrics: Any) -> ModelRecord:
    known = {**TEST, **metrics}
    return cast(ModelRecord, SimpleNamespace(name="toy", model_id="toy_1", metrics=known))


def outcomes(rows: int, signal: float, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(float)
    value = 1 / (1 + np.exp(-(signal * (label - 0.5) + rng.normal(size=rows))))
    return pd.DataFrame(
        {
            "entity_id": [f"l{n}" for n in range(rows)],
            "value": value,
            "prediction": (value > 0.5).astype(float),
            "label": label,
        }
    )


def judged(known: pd.DataFrame, test: ModelRecord | None = None, **spec: Any) -> LivePerformance:
    found = live_performance(
        spec_for(**spec), test or record(), "champion", known, since=START, until=START, least=100
    )
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
    known = outcomes(120, 2.0)
    auc = judged(known).metrics["roc_auc"].live
    few = judged(known, record(roc_auc=auc * 1.07)).metrics["roc_auc"]
    assert few.drop is not None
    assert few.drop > 0.05
    assert not few.worse(0.05)
    many = pd.concat([known.assign(entity_id=known["entity_id"] + f"_{n}") for n in range(40)])
    assert judged(many, record(roc_auc=auc * 1.07)).metrics["roc_auc"].worse(0.05)


def test_the_noise_of_the_test_is_that_of_its_bootstrap_interval_where_there_is_one() -> None:
    known = outcomes(1_000, 2.0)
    closed = judged(known).metrics["roc_auc"].noise
    interval = {"model": {"roc_auc": {"value": 0.9, "low": 0.7, "high": 1.0}}}
    wide = cast(ModelRecord, SimpleNamespace(**vars(record()), evaluation=interval))
    noise = judged(known, wide).metrics["roc_auc"].noise
    assert closed is not None
    assert noise is not None
    assert noise > 0.15 / 0.9 > closed


def test_many_predictions_of_few_entities_are_no_more_evidence() -> None:
    known = outcomes(120, 2.0)
    once, often = judged(known), judged(pd.concat([known] * 40))
    assert often.predictions == 4_800
    assert often.metrics["roc_auc"].noise == pytest.approx(once.metrics["roc_auc"].noise)


def test_few_outcomes_are_not_enough_and_said_so() -> None:
    spec = spec_for()
    found = live_performance(
        spec, record(), "champion", outcomes(20, 2), since=START, until=START, least=100
    )
    assert isinstance(found, NotEnough)
    assert "outcomes are known of 20 entities" in str(found)
    one_sided = outcomes(200, 2).assign(label=0.0)
    found = live_performance(
        spec, record(), "champion", one_sided, since=START, until=START, least=100
    )
    assert isinstance(found, NotEnough)
    assert "0 of 200 entities" in str(found)


def test_values_are_judged_by_their_ranking() -> None:
    known = outcomes(500, 2.0).assign(label=lambda frame: frame["value"] * 100)
    test = cast(
        ModelRecord,
        SimpleNamespace(name="toy", model_id="toy_1", metrics={"spearman": 0.4, "rows": 900}),
    )
    found = judged(known, test, objective="regression").metrics
    assert found["spearman"].live == pytest.approx(1.0)
    assert not found["spearman"].worse(0.05)
    assert found["mae"].test is None
    reversed_ = judged(known.assign(value=-known["value"]), test, objective="regression").metrics
    assert reversed_["spearman"].worse(0.05)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_the_standard_error_is_the_spread_that_is_seen(metric: str) -> None:
    seen = [judged(outcomes(400, 1.5, seed)).metrics[metric].live for seed in range(200)]
    expected = standard_error(metric, float(np.mean(seen)), 120, 400)
    assert np.std(seen) == pytest.approx(expected, rel=0.3)


def test_predictions_are_joined_with_what_came_true_of_them(postgres_url: str) -> None:
    """Served predictions of one version and role, whose horizon is over; the first of a day."""
    engine = BareEngine()
    spec, made = SPECS["conversion"], START + 10 * DAY
    ids = [f"l{n}" for n in range(60)]
    for number, lead in enumerate(ids[:20]):
        engine.add("policies", (f"p{number}", lead, 100, made + 5 * DAY, None))
    sure = {lead: 0.9 if n < 20 else 0.1 for n, lead in enumerate(ids)}
    add = {"model_name": "conversion", "model_id": "conversion_1"}
    add_predictions(postgres_url, ids, made, values=sure, **add)
    add_predictions(postgres_url, ids, made + timedelta(hours=1), values=0.5, **add)
    # Not judged: another version, another role, one whose horizon is not over.
    add_predictions(postgres_url, ids, made, values=0.5, model_name="conversion", model_id="other")
    add_predictions(postgres_url, ids, made - DAY, values=0.5, role="challenger", **add)
    add_predictions(postgres_url, ids, made + 20 * DAY, values=0.5, **add)

    def read(data_end: datetime) -> LivePerformance | NotEnough:
        return read_live_performance(
            postgres_url,
            engine,
            spec,
            replace_id(record(), "conversion_1"),
            "champion",
            data_end=data_end,
            window=30 * DAY,
            least=50,
        )

    found = read(made + 31 * DAY)
    assert isinstance(found, LivePerformance)
    assert (found.predictions, found.entities) == (60, 60)
    assert found.metrics["roc_auc"].live == 1.0
    assert found.metrics["brier"].live == pytest.approx(0.01)
    early = read(made + 29 * DAY)
    assert isinstance(early, NotEnough)
    assert "its horizon is 30 days" in str(early)


def replace_id(known: ModelRecord, model_id: str) -> ModelRecord:
    return cast(ModelRecord, SimpleNamespace(**{**vars(known), "model_id": model_id}))


def test_the_window_is_counted_back_from_the_newest_known_outcome(postgres_url: str) -> None:
    engine = BareEngine()
    ids = [f"old{n}" for n in range(60)]
    add_predictions(postgres_url, ids, START, values=0.5, model_name="churn", model_id="churn_1")
    short = replace(SPECS["churn"], horizon=10 * DAY)
    found = read_live_performance(
        postgres_url,
        engine,
        short,
        replace_id(record(), "churn_1"),
        "champion",
        data_end=START + 50 * DAY,
        window=30 * DAY,
        least=50,
    )
    assert isinstance(found, NotEnough)
    assert "of 0 entities" in str(found)
