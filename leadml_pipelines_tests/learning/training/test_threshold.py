from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.learning.spec import Cost
from leadml_pipelines.learning.training.threshold import best_threshold, ideal_threshold


def cost_of(threshold: float, chances: np.ndarray, labels: np.ndarray, cost: Cost) -> float:
    yes = chances >= threshold
    missed, alarms = (~yes & (labels == 1)).sum(), (yes & (labels == 0)).sum()
    return float((cost.miss * missed + cost.false_alarm * alarms) / len(labels))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.floats(0.1, 10),
)
def test_no_threshold_costs_less(rows: list[tuple[float, bool]], miss: float) -> None:
    chances = np.array([chance for chance, _ in rows])
    labels = np.array([float(label) for _, label in rows])
    cost = Cost(miss=miss, false_alarm=1.0)
    threshold, seen = best_threshold(chances, labels, cost)
    assert cost_of(threshold, chances, labels, cost) == pytest.approx(seen["cost_per_row"])
    others = [0.0, *chances, *np.nextafter(chances, 2.0)]
    best = min(cost_of(other, chances, labels, cost) for other in others)
    assert seen["cost_per_row"] <= best + 1e-9


def test_a_miss_that_costs_more_lowers_the_threshold() -> None:
    random = np.random.default_rng(0)
    chances = random.random(20_000)
    labels = (random.random(20_000) < chances).astype(float)
    even, _ = best_threshold(chances, labels, Cost())
    careful, _ = best_threshold(chances, labels, Cost(miss=4.0))
    assert even == pytest.approx(0.5, abs=0.05)
    assert careful == pytest.approx(0.2, abs=0.05)


def test_with_perfect_chances_the_threshold_is_the_ratio_of_the_costs() -> None:
    assert ideal_threshold(Cost(miss=3.0, false_alarm=1.0)) == 0.25


def test_what_all_or_nobody_would_cost_is_told() -> None:
    _, seen = best_threshold(np.array([0.2, 0.8]), np.array([0.0, 1.0]), Cost(miss=2.0))
    assert seen["cost_of_yes_to_all"] == 0.5
    assert seen["cost_of_no_to_all"] == 1.0
    assert seen["cost_per_row"] == 0.0
