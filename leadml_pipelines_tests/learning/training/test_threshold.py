from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.learning.spec import Cost, Group
from leadml_pipelines.learning.training.threshold import (
    best_threshold,
    group_thresholds,
    ideal_threshold,
    row_costs,
)
from leadml_pipelines_tests.learning.frames import spec_for


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


GROUPS = (Group(word="web"), Group(word="phone", cost=Cost(miss=9.0)))


def test_each_group_has_the_threshold_that_costs_least_among_its_own_rows() -> None:
    random = np.random.default_rng(1)
    codes = random.integers(-1, 2, 30_000)
    truth = random.random(30_000)
    labels = (random.random(30_000) < truth).astype(float)
    # All chances are half of what comes true: the ideal thresholds are too high by far.
    chances, leads = truth / 2, np.arange(30_000)
    (web, phone), seen = group_thresholds(GROUPS, codes, chances, labels, leads, Cost())
    assert web == best_threshold(chances[codes == 0], labels[codes == 0], Cost())[0]
    assert web == pytest.approx(0.25, abs=0.03)
    assert phone == best_threshold(chances[codes == 1], labels[codes == 1], Cost(miss=9.0))[0]
    assert phone == pytest.approx(0.05, abs=0.03)
    assert seen["phone"]["value"] == phone
    assert seen["phone"]["rows"] == (codes == 1).sum()


def test_what_suits_a_few_leads_best_is_no_threshold() -> None:
    chances = np.tile([0.05, 0.2], 200)
    labels = np.zeros(400)
    labels[:80:2] = 1.0
    codes = np.ones(400, np.intp)
    few, many = np.repeat(np.arange(4), 100), np.arange(400)
    # All positives are rows of one lead: whether it is called or not says nothing of others.
    (_, phone), seen = group_thresholds(GROUPS, codes, chances, labels, few, Cost())
    assert seen["phone"]["cheapest"] != 0.1
    assert phone == 0.1
    (_, phone), seen = group_thresholds(GROUPS, codes, chances, labels, many, Cost())
    assert phone == seen["phone"]["cheapest"] != 0.1


def test_a_group_without_rows_has_the_threshold_of_perfect_chances() -> None:
    codes = np.full(10, -1, np.intp)
    (_, phone), seen = group_thresholds(
        GROUPS, codes, np.ones(10), np.ones(10), np.arange(10), Cost()
    )
    assert phone == 0.1
    assert seen["phone"]["rows"] == 0


def test_a_row_costs_what_its_group_does() -> None:
    spec = spec_for(
        groups=GROUPS, group_by="source", slices=("source",), cost=Cost(false_alarm=2.0)
    )
    frame = pd.DataFrame({"source": ["web", "phone", None, "other"]})
    miss, false_alarm = row_costs(spec, frame)
    assert miss.tolist() == [1.0, 9.0, 1.0, 1.0]
    assert false_alarm.tolist() == [2.0, 1.0, 2.0, 2.0]
