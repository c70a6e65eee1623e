"""Reasons: exact SHAP values of real trained models, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from leadml_pipelines.learning.encoding import Column, Encoder
from leadml_pipelines.learning.explain import (
    Explainer,
    dimension_answers,
    opportunities,
    outcome,
    risk_level,
    urgency,
)
from leadml_pipelines.learning.model import ROWS_OF_A_THREAD, LoadedModel
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.tree_shap import TreeShap
from leadml_pipelines_tests.learning.frames import rows_frame, spec_for, toy_set

FLOAT32 = 2e-6
"""XGBoost adds up in float32: sums agree up to this share of all that is added."""

KINDS = ("classification", "regression", "stack")


@pytest.fixture(scope="module")
def models() -> Mapping[str, LoadedModel]:
    made = {}
    for kind in KINDS:
        objective = "regression" if kind == "regression" else "classification"
        learner: Any = "stack" if kind == "stack" else "xgboost"
        spec = spec_for(objective, learner=learner)
        frame = rows_frame(objective=objective)
        made[kind] = train(spec, toy_set(spec, frame), seed=7, threads=1).load()
    return made


def some_rows(model: LoadedModel, count: int = 200) -> np.ndarray:
    return model.encoder.encode(rows_frame(seed=9).head(count))


def assert_sums_to_raw(model: LoadedModel, rows: np.ndarray) -> None:
    found = model.contributions(rows)
    added = np.abs(found.base) + np.abs(found.values).sum(axis=1)
    total = found.base + found.values.sum(axis=1)
    assert np.all(np.abs(total - found.raw) <= 1e-12 * (1 + added))
    assert np.all(np.abs(total - model.raw_scores(rows)) <= FLOAT32 * (1 + added))


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_and_base_sum_to_the_raw_score(
    models: Mapping[str, LoadedModel], kind: str
) -> None:
    rows = some_rows(models[kind])
    assert np.isnan(rows).any()
    assert_sums_to_raw(models[kind], rows)
    assert_sums_to_raw(models[kind], np.full((1, rows.shape[1]), np.nan))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_they_do_for_any_row(
    models: Mapping[str, LoadedModel], kind: str, data: st.DataObject
) -> None:
    model = models[kind]
    numbers = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
    rows = data.draw(arrays(np.float64, (3, len(model.features)), elements=numbers))
    for at, column in enumerate(model.encoder.columns):
        if column.type == "category":
            words = len(model.encoder.vocabularies[column.name])
            codes = st.sampled_from([*map(float, range(words)), np.nan])
            rows[:, at] = data.draw(arrays(np.float64, 3, elements=codes))
    assert_sums_to_raw(model, rows)


def expectation(
    tree: pd.DataFrame, row: np.ndarray, known: frozenset[str], names: list[str]
) -> Any:
    """What a tree gives on average when only some features of a row are known."""
    nodes: Any = tree.set_index("ID")

    def at(node: str) -> float:
        one = nodes.loc[node]
        if one["Feature"] == "Leaf":
            return float(one["Gain"])
        if one["Feature"] in known:
            value = np.float32(row[names.index(one["Feature"])])
            if np.isnan(value):
                return at(one["Missing"])
            if isinstance(one["Category"], list):
                goes_yes: Any = int(value) in [int(c) for c in one["Category"]]
            else:
                goes_yes = value < np.float32(one["Split"])
            return at(one["Yes"] if goes_yes else one["No"])
        yes, no = nodes.loc[one["Yes"], "Cover"], nodes.loc[one["No"], "Cover"]
        return float((yes * at(one["Yes"]) + no * at(one["No"])) / (yes + no))

    return at(f"{tree['Tree'].iloc[0]}-0")


def test_they_are_shapley_values_by_their_definition(models: Mapping[str, LoadedModel]) -> None:
    """Every coalition of features is asked, which takes no part of tree SHAP."""
    model = models["classification"]
    names = list(model.features)
    trees = [tree for _, tree in model.booster[:6].trees_to_dataframe().groupby("Tree")]
    sets = [frozenset(c) for n in range(len(names) + 1) for c in combinations(names, n)]
    for row in some_rows(model, 60)[::20]:
        game = {s: sum(expectation(tree, row, s, names) for tree in trees) for s in sets}
        wanted = [
            sum(
                (game[s | {name}] - game[s]) / (comb(len(names) - 1, len(s)) * len(names))
                for s in sets
                if name not in s
            )
            for name in names
        ]
        found = TreeShap.of(model.booster[:6], len(names))(row[None, :])[0, :-1]
        assert found == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_dimensions_and_base_add_up_to_the_raw_score(
    models: Mapping[str, LoadedModel], kind: str
) -> None:
    model = models[kind]
    found = model.contributions(some_rows(model))
    scores = model.dimension_scores(found)
    for at in range(len(found.raw)):
        row = {name: (float(sums[at]), float(ranks[at])) for name, (sums, ranks) in scores.items()}
        dimensions, raw = dimension_answers(float(found.base[at]), row)
        total = float(found.base[at])
        for dimension in dimensions.values():
            total += dimension.contribution
            assert 0 <= dimension.score <= 100
        assert total == raw
        assert raw == pytest.approx(found.raw[at], rel=1e-12, abs=1e-12)


ENCODER = Encoder(
    (
        Column("days_since_last_inbound", "double"),
        Column("quote_request_count_30d", "integer"),
        Column("is_open", "boolean"),
        Column("source", "category"),
        Column("gone_from_the_catalogue", "double"),
    ),
    {"source": ("phone", "referral")},
)
EXPLAINER = Explainer(ENCODER, "the risk")


def test_factors_are_the_greatest_with_value_direction_and_sentence() -> None:
    values = np.array([23.4, 3.0, 1.0, 1.0, np.nan])
    first, second, third = EXPLAINER.factors(values, np.array([0.5, -0.7, 0.0, 0.1, -0.05]), 3)
    assert (first.feature, first.value, first.direction, first.shap_value) == (
        "quote_request_count_30d",
        3,
        "lowers",
        -0.7,
    )
    assert isinstance(first.value, int)
    assert first.sentence == "3 quote requests in the last 30 days lower the risk."
    assert second.sentence == "No sign of life for 23 days raises the risk."
    assert (third.value, third.sentence) == (
        "referral",
        "The lead came through a referral, which raises the risk.",
    )


def test_a_feature_without_effect_is_no_factor() -> None:
    assert EXPLAINER.factors(np.zeros(5), np.zeros(5), 5) == []
    assert EXPLAINER.importance(np.zeros(5), 5) == []


@pytest.mark.parametrize(
    ("at", "number", "value"),
    [
        (0, 1.0, 1.0),
        (1, 2.0, 2),
        (2, 0.0, False),
        (3, 0.0, "phone"),
        (3, 7.0, None),
        (0, np.nan, None),
    ],
)
def test_a_value_is_in_its_own_type(at: int, number: float, value: Any) -> None:
    found = EXPLAINER.value(at, number)
    assert found == value
    assert type(found) is type(value)


def test_a_feature_that_the_catalogue_lost_is_spoken_of_by_its_name() -> None:
    (factor,) = EXPLAINER.factors(np.full(5, np.nan), np.array([0, 0, 0, 0, 1.0]), 5)
    assert factor.sentence == "The gone from the catalogue is not known, which raises the risk."


@given(arrays(np.float64, 5, elements=st.floats(-1e3, 1e3)))
def test_shares_of_all_features_add_up_to_one(contributions: np.ndarray) -> None:
    shares = [found.share for found in EXPLAINER.importance(contributions, 5)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0 if np.any(contributions) else 0.0)


@pytest.mark.parametrize(
    ("chance", "level"),
    [(0.0, "low"), (0.2, "medium"), (0.39, "medium"), (0.4, "high"), (0.8, "critical")],
)
def test_the_risk_level_begins_at_its_limit(chance: float, level: str) -> None:
    assert risk_level(chance, (0.2, 0.4, 0.8)) == level


@pytest.mark.parametrize(
    ("chances", "ratio"), [((0.1, 0.3), 0.25), ((0.2, 0.2, 0.1), 0.5), ((0.0, 0.0, 0.3), 0.0)]
)
def test_urgency_is_the_near_chance_over_the_far_one_whatever_comes_later(
    chances: tuple[float, ...], ratio: float
) -> None:
    found = urgency(np.array(chances), 50.0, (0.6, 0.9))
    assert found.ratio == pytest.approx(ratio)
    assert found.near_chance == chances[0]
    assert found.far_chance == pytest.approx(chances[0] + chances[1])


@pytest.mark.parametrize(
    ("rank", "level"), [(0.0, "low"), (59.9, "low"), (60.0, "medium"), (90.0, "high")]
)
def test_the_level_of_urgency_is_by_the_rank_of_the_near_chance(rank: float, level: str) -> None:
    found = urgency(np.array([0.1, 0.3]), rank, (0.6, 0.9))
    assert (found.level, found.rank) == (level, rank)


def test_opportunities_begin_with_the_most_probable() -> None:
    found = opportunities(("auto", "home", "life"), np.array([0.1, 0.3, 0.1]))
    assert [(one.product, one.chance) for one in found] == [
        ("home", 0.3),
        ("auto", 0.1),
        ("life", 0.1),
    ]


@pytest.mark.parametrize(
    ("objective", "is_risk", "text"),
    [
        ("regression", False, "the score"),
        ("classification", False, "the chance"),
        ("classification", True, "the risk"),
    ],
)
def test_sentences_name_what_is_predicted(objective: str, is_risk: bool, text: str) -> None:
    assert outcome(objective, is_risk=is_risk) == text


def test_of_a_new_lead_nobody_says_what_it_did_in_90_days() -> None:
    columns = (
        Column("lead_age_days", "double"),
        Column("inbound_daily_rate_90d", "double"),
        Column("silence_share", "double"),
    )
    explainer = Explainer(Encoder(columns, {}), "the chance")

    def said(age_days: float, rate: float, share: float) -> list[str]:
        values = np.array([age_days, rate, share])
        return [f.sentence for f in explainer.factors(values, np.array([0.0, -0.4, 0.2]), 5)]

    assert said(5 / 1440, 0.0, 1.0) == [
        "No sign of life since the lead came lowers the chance.",
        "No sign of life in the 5 minutes since the lead came raises the chance.",
    ]
    assert said(200.0, 3 / 90, 0.087) == [
        "An average of 3 events in 90 days from the lead lowers the chance.",
        "No sign of life for 17 days of the 200 days since the lead came raises the chance.",
    ]
    assert said(np.nan, 0.0, 0.5) == [
        "No sign of life in the last 90 days lowers the chance.",
        "Silence over the last 50% of the time since the lead came raises the chance.",
    ]


def test_many_rows_get_the_same_raw_scores_as_each_alone(
    models: Mapping[str, LoadedModel],
) -> None:
    """Many are shared out between threads."""
    model = models["classification"]
    rows = np.resize(some_rows(model), (4 * ROWS_OF_A_THREAD + 1, len(model.features)))
    together = model.raw_scores(rows)
    assert np.array_equal(together, [model.raw_scores(row[None, :])[0] for row in rows])
