"""A figure over two populations flatters; those of each do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.evaluation.groups import groups_text, measure_groups
from leadml_pipelines.learning.evaluation.intervals import draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import Cost, Group
from leadml_pipelines_tests.learning.frames import spec_for

SPEC = spec_for(
    groups=(Group(word="customer", cost=Cost(miss=10.0), risk_levels=(0.02, 0.05, 0.5)),),
    group_by="stage",
    slices=("stage",),
    risk_levels=(0.25, 0.5, 0.75),
)


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    """A model that knows who is a customer, and of customers nothing else."""
    rng = np.random.default_rng(2)
    customer = np.arange(4_000) % 2 == 0
    truth = np.where(customer, 0.04, rng.uniform(0.3, 0.9, 4_000))
    values = np.where(customer, rng.uniform(0.01, 0.07, 4_000), truth)
    labels = (rng.random(4_000) < truth).astype(float)
    frame = pd.DataFrame(
        {
            "entity_id": [f"lead_{at}" for at in range(4_000)],
            "stage": np.where(customer, "customer", "open"),
        }
    )
    draws = draw(frame["entity_id"].to_numpy(), seed=1, resamples=200)
    thresholds = np.where(customer, 0.05, 0.5)
    whole = measure(Scored("classification", labels, values, thresholds), draws).intervals()
    return {
        "model": whole,
        "groups": measure_groups(SPEC, frame, labels, values, thresholds, draws),
    }


def test_the_groups_are_measured_apart_by_their_own_costs(evaluation: dict[str, Any]) -> None:
    assert evaluation["model"]["roc_auc"]["value"] > 0.85
    customer, open_ = (evaluation["groups"][word] for word in ("customer", "open"))
    assert customer["metric"]["low"] < 0.5 < customer["metric"]["high"]
    assert customer["rows"] == customer["leads"] == 2_000
    assert customer["cost_of_never"] == pytest.approx(10 * customer["came"])
    assert open_["cost_of_never"] == pytest.approx(open_["came"])
    assert customer["risk"]["low"] == pytest.approx(1 / 6, abs=0.03)
    assert customer["risk"]["high"] == pytest.approx(1 / 3, abs=0.03)
    assert sum(open_["risk"].values()) == pytest.approx(1)


def test_the_card_says_that_customers_are_not_told_apart(evaluation: dict[str, Any]) -> None:
    text = groups_text(SPEC, evaluation)
    assert "part of it only tells the groups from each other" in text
    assert "Where stage is customer it tells nobody from anybody beyond noise." in text
    assert "Where stage is open it tells" not in text
    assert "Where stage is customer, always no would have cost less than its answers." in text


def test_a_model_without_groups_has_no_such_part() -> None:
    empty = np.zeros(0)
    draws = draw([], seed=1, resamples=2)
    assert measure_groups(spec_for(), pd.DataFrame(), empty, empty, empty, draws) is None
    assert groups_text(spec_for(), {"groups": None}) == ""
