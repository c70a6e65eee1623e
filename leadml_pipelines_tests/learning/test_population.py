from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.population import Population, PopulationError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines_tests.learning.frames import spec_for

NAMES = {"is_open": 0, "inbound_count_30d": 1, "active_policy_count": 2}
NAN = float("nan")


def _holds(condition: str, *row: float) -> bool:
    return bool(Population(condition).holds(np.array([row]), NAMES)[0])


@given(
    st.lists(st.tuples(*[st.sampled_from([None, 0, 1, 2, 3])] * 3), min_size=1, max_size=12),
    st.sampled_from(["x != 3", "x > y or not z", "0 < x <= 2 and z", "not (x == y)", ""]),
)
def test_training_and_answers_score_the_same(rows: list[tuple[Any, ...]], condition: str) -> None:
    frame = pd.DataFrame(rows, columns=["x", "y", "z"], dtype="Int64")
    frame["z"] = (frame["z"] > 1).astype("boolean")
    values = frame.astype("Float64").to_numpy(float, na_value=NAN)
    online = Population(condition).holds(values, {"x": 0, "y": 1, "z": 2})
    assert spec_for(population=condition).in_population(frame).tolist() == online.tolist()


@pytest.mark.parametrize(
    ("row", "scored"),
    [
        ((1, 1, 0), True),
        ((1, 0, 0), False),
        ((0, 5, 0), False),
        ((0, 0, 1), True),
        ((NAN, 5, 0), False),
        ((1, NAN, 0), False),
        ((NAN, NAN, 2), True),
    ],
)
def test_population_of_churn_is_open_and_active_or_a_customer(
    row: tuple[float, ...], scored: bool
) -> None:
    assert _holds(SPECS["churn"].population, *row) is scored


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), min_size=3, max_size=3))
@settings(deadline=None, max_examples=60)
def test_every_declared_population_is_the_same_offline_and_online(row: list[float]) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "is_open": pd.array([None if np.isnan(row[0]) else row[0] > 0], "boolean"),
            "inbound_count_30d": pd.array([None if np.isnan(row[1]) else int(row[1])], "Int64"),
            "active_policy_count": pd.array([None if np.isnan(row[2]) else int(row[2])], "Int64"),
        }
    )
    for spec in SPECS.values():
        offline = bool(spec.in_population(frame).iloc[0])
        assert _holds(spec.population, *row) is offline


@pytest.mark.parametrize(
    ("condition", "scored"),
    [
        ("", True),
        ("not is_open", False),
        ("inbound_count_30d >= 2 and inbound_count_30d < 4", True),
        ("2 <= inbound_count_30d < 3", False),
        ("inbound_count_30d != 3", False),
        ("active_policy_count == -1", False),
        ("True", True),
    ],
)
def test_condition_means_what_it_says(condition: str, scored: bool) -> None:
    assert _holds(condition, 1, 3, 0) is scored


@pytest.mark.parametrize(
    "condition", ["len(is_open)", "stage == 'open'", "is_open +", "is_open in (1, 2)", "x.y > 1"]
)
def test_condition_with_anything_else_is_refused(condition: str) -> None:
    with pytest.raises(PopulationError, match="the population"):
        Population(condition)


def test_feature_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="age"):
        _holds("age > 3", 1, 1, 1)
