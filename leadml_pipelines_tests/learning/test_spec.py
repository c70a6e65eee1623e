from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.explain import risk_level
from leadml_pipelines.learning.spec import Companion, Cost, Group, SpecError, age_text
from leadml_pipelines.learning.specs import SPECS, specs
from leadml_pipelines.learning.training_set import assemble
from leadml_pipelines.settings import ModelOverrides, Settings
from leadml_pipelines.times import duration_text
from leadml_pipelines_tests.learning.frames import DAY, START, rows_frame, spec_for


def test_the_three_models_are_declared() -> None:
    assert list(SPECS) == ["churn", "conversion", "lead_score"]


def test_settings_change_a_declaration(home: Path) -> None:
    settings = Settings(
        home=home, models={"churn": ModelOverrides(horizon="14d", ages=["1h", "24h"])}
    )
    changed = specs(settings)["churn"]
    assert changed.horizon == timedelta(days=14)
    assert changed.ages == (timedelta(hours=1), timedelta(hours=24))
    assert changed.every == SPECS["churn"].every


def test_a_changed_declaration_has_another_hash(home: Path) -> None:
    settings = Settings(home=home, models={"churn": ModelOverrides(horizon="14d")})
    assert specs(settings)["churn"].hash != SPECS["churn"].hash
    assert specs(settings)["conversion"].hash == SPECS["conversion"].hash


def test_settings_for_an_unknown_model_name_it_and_the_known_ones(home: Path) -> None:
    settings = Settings(home=home, models={"renewal": ModelOverrides()})
    with pytest.raises(SpecError, match=r"models\.renewal.*churn, conversion, lead_score"):
        specs(settings)


def test_the_population_of_churn_is_active_open_leads_and_customers() -> None:
    frame = pd.DataFrame(
        {
            "is_open": pd.array([True, True, False, False, None], dtype="boolean"),
            "inbound_count_30d": pd.array([2, 0, 5, 0, 3], dtype="Int64"),
            "active_policy_count": pd.array([0, 0, 0, 1, None], dtype="Int64"),
        },
        index=[7, 8, 9, 10, 11],
    )
    chosen = SPECS["churn"].in_population(frame)
    assert chosen.tolist() == [True, False, False, True, False]
    assert chosen.index.tolist() == [7, 8, 9, 10, 11]


def test_the_population_of_an_empty_frame_is_empty() -> None:
    frame = pd.DataFrame({"is_open": pd.array([], dtype="boolean")})
    assert SPECS["conversion"].in_population(frame).empty


def test_a_frame_without_a_population_feature_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="is_open"):
        SPECS["conversion"].in_population(pd.DataFrame({"source": ["web"]}))


def test_a_spec_without_any_moment_is_refused() -> None:
    with pytest.raises(SpecError, match="neither `every` nor `ages`"):
        spec_for(every=None, ages=())


def test_a_spec_with_an_unknown_metric_is_refused() -> None:
    with pytest.raises(SpecError, match="'f1' is no metric"):
        spec_for(metric="f1")


COMPANION = Companion(name="b", label="x", answer="cross_sell")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cost": Cost(miss=0)}, "cost is not over 0"),
        ({"risk_levels": (0.5, 0.2, 0.9)}, "must rise between 0 and 1"),
        ({"tuning_space": {"max_depth": (2, 6, "whole")}}, "max_depth is 'whole'"),
        ({"tuning_space": {"reg_lambda": (0.0, 6, "log")}}, "reg_lambda can't lie between 0"),
        ({"companions": (COMPANION, COMPANION)}, "'b' can't name one companion"),
        ({"companions": (replace(COMPANION, answer="urgency"),)}, "needs two words"),
        ({"companions": (replace(COMPANION, levels=(0.6, 0.3)),)}, "levels of b must rise"),
        ({"companions": (replace(COMPANION, levels=(0.6, 1.0)),)}, "levels of b must rise"),
        ({"companions": (replace(COMPANION, name="occurs"),)}, "can be called occurs"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused_with_its_place(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=f"toy: .*{sentence}"):
        spec_for(**changes)


def test_features_can_be_chosen_by_dimension() -> None:
    columns = [Column("a", "double", "fit"), Column("b", "double", "intent")]
    frame = rows_frame().assign(a=1.0, b=2.0)
    span = {"data_start": START, "data_end": START + 200 * DAY}
    spec = spec_for(dimensions=("intent",))
    assert assemble(spec, frame, columns, **span).features == (columns[1],)
    with pytest.raises(SpecError, match="no feature is left"):
        assemble(spec_for(dimensions=("value",)), frame, columns, **span)


def test_a_horizon_is_told_in_days_and_an_age_in_hours() -> None:
    assert duration_text(timedelta(hours=168)) == "7d"
    assert age_text(timedelta(days=7)) == "168h"
    assert age_text(timedelta(minutes=90)) == "90m"


def test_a_group_takes_from_the_model_what_it_does_not_say() -> None:
    spec = spec_for(
        cost=Cost(miss=3.0),
        risk_levels=(0.2, 0.4, 0.6),
        slice_floor=0.55,
        group_by="source",
        slices=("source",),
        groups=(Group(word="web", cost=Cost(miss=9.0), slice_floor=0.0),),
    )
    web, other = spec.group_of("web"), spec.group_of("partner")
    assert (web.cost, web.risk_levels, web.slice_floor) == (Cost(miss=9.0), (0.2, 0.4, 0.6), 0.0)
    assert (other.cost, other.slice_floor) == (Cost(miss=3.0), 0.55)


def test_a_customer_with_three_times_the_usual_chance_to_cancel_is_not_at_low_risk() -> None:
    levels = SPECS["churn"].group_of("customer").risk_levels
    assert levels is not None
    # Of 100 customers 5 cancel in 60 days (docs/measurements.md).
    assert risk_level(0.15, levels) == "high"
    assert risk_level(0.15, SPECS["churn"].group_of("open").risk_levels or ()) == "low"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"group_by": ""}, "groups and group_by go together"),
        ({"groups": ()}, "groups and group_by go together"),
        ({"slices": ("state",)}, "source is not among the slices"),
        ({"groups": (Group(word="web"), Group(word="web"))}, "two groups have the same word"),
        ({"groups": (Group(word="web", cost=Cost(miss=0.0)),)}, "a cost is not over 0"),
        ({"groups": (Group(word="web", risk_levels=(0.5, 0.4, 0.6)),)}, "they must rise"),
        ({"objective": "regression", "metric": "gini"}, "only a classification has"),
    ],
)
def test_groups_that_contradict_themselves_are_refused(changes: Any, said: str) -> None:
    given = {"groups": (Group(word="web"),), "group_by": "source", "slices": ("source",)}
    with pytest.raises(SpecError, match=said):
        replace(spec_for(), **{**given, **changes})
