from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.labels import label_rows
from leadml_pipelines.learning.spec import SpecError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine, spec_for

END = START + 365 * DAY
MICRO = timedelta(microseconds=1)


@pytest.fixture
def engine() -> BareEngine:
    return BareEngine()


def _label(engine: BareEngine, model: str, lead: str = "a") -> float:
    """The label of one lead as of START."""
    spine = pd.DataFrame({"entity_id": [lead], "as_of": [pd.Timestamp(START)]})
    return float(label_rows(SPECS[model], spine, engine, END).iloc[0])


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (START, 0.0),
        (START + MICRO, 1.0),
        (START + 30 * DAY, 1.0),
        (START + 30 * DAY + MICRO, 0.0),
    ],
)
def test_conversion_looks_just_after_the_moment_up_to_and_including_the_horizon(
    engine: BareEngine, bound: object, expected: float
) -> None:
    engine.add("policies", ("p", "a", 100, bound, None))
    assert _label(engine, "conversion") == expected


def test_two_policies_are_one_conversion(engine: BareEngine) -> None:
    engine.add("policies", ("p", "a", 1, START + DAY, None), ("q", "a", 1, START + DAY, None))
    assert _label(engine, "conversion") == 1.0


def test_a_policy_of_another_lead_is_no_conversion(engine: BareEngine) -> None:
    engine.add("policies", ("p", "b", 100, START + DAY, None))
    assert _label(engine, "conversion") == 0.0


def test_lead_score_is_the_premium_bound_in_the_horizon_and_nothing_else(
    engine: BareEngine,
) -> None:
    engine.add(
        "policies",
        ("p", "a", 100.25, START + DAY, None),
        ("q", "a", 50, START + 90 * DAY, START + 91 * DAY),
        ("r", "a", 9, START + 90 * DAY + MICRO, None),
        ("s", "a", 9, START - DAY, None),
    )
    assert _label(engine, "lead_score") == 150.25
    assert _label(engine, "lead_score", "b") == 0.0


def test_an_open_lead_that_stays_silent_churns(engine: BareEngine) -> None:
    engine.add("lead_events", ("a", "outbound", START + DAY, START + DAY))
    assert _label(engine, "churn") == 1.0


def test_an_open_lead_that_writes_within_the_horizon_does_not_churn(engine: BareEngine) -> None:
    at = START + 60 * DAY
    engine.add("lead_events", ("a", "inbound", at, at))
    assert _label(engine, "churn") == 0.0


def test_an_event_at_the_moment_itself_is_no_sign_of_life_afterwards(engine: BareEngine) -> None:
    engine.add("lead_events", ("a", "inbound", START, START))
    assert _label(engine, "churn") == 1.0


def test_a_sign_of_life_counts_by_when_it_happened_not_by_when_it_arrived(
    engine: BareEngine,
) -> None:
    engine.add("lead_events", ("a", "inbound", START + DAY, START + 70 * DAY))
    assert _label(engine, "churn") == 0.0


def test_a_lead_closed_as_lost_churns_even_if_it_wrote(engine: BareEngine) -> None:
    engine.add("lead_events", ("a", "inbound", START + DAY, START + DAY))
    engine.add("closures", ("a", START + 2 * DAY, "lost"))
    assert _label(engine, "churn") == 1.0


@pytest.mark.parametrize("reason", ["declined", "duplicate"])
def test_a_silent_lead_closed_for_another_reason_does_not_churn(
    engine: BareEngine, reason: str
) -> None:
    engine.add("closures", ("a", START + 2 * DAY, reason))
    assert _label(engine, "churn") == 0.0


def test_a_silent_lead_that_binds_does_not_churn(engine: BareEngine) -> None:
    engine.add("policies", ("p", "a", 100, START + DAY, None))
    assert _label(engine, "churn") == 0.0


def test_a_customer_churns_by_cancelling_and_not_by_silence(engine: BareEngine) -> None:
    engine.add(
        "policies",
        ("p", "loyal", 100, START - DAY, None),
        ("q", "leaving", 100, START - DAY, START + 60 * DAY),
        ("r", "later", 100, START - DAY, START + 60 * DAY + MICRO),
    )
    assert _label(engine, "churn", "loyal") == 0.0
    assert _label(engine, "churn", "leaving") == 1.0
    assert _label(engine, "churn", "later") == 0.0


def test_a_policy_bound_and_cancelled_inside_the_horizon_is_no_customers_churn(
    engine: BareEngine,
) -> None:
    engine.add(
        "policies",
        ("p", "a", 100, START - DAY, None),
        ("q", "a", 100, START + DAY, START + 2 * DAY),
    )
    assert _label(engine, "churn") == 0.0


def test_a_label_is_unknown_while_its_horizon_passes_the_end_of_the_data(
    engine: BareEngine,
) -> None:
    engine.add("policies", ("p", "a", 100, START + DAY, None))
    spine = pd.DataFrame(
        {"entity_id": ["a", "a"], "as_of": [pd.Timestamp(START), pd.Timestamp(START) + MICRO]},
        index=[5, 3],
    )
    labels = label_rows(SPECS["conversion"], spine, engine, START + 30 * DAY)
    assert labels.loc[5] == 1.0
    assert np.isnan(labels.loc[3])


def test_rows_keep_their_order_and_index(engine: BareEngine) -> None:
    engine.add("policies", ("p", "b", 100, START + DAY, None))
    spine = pd.DataFrame(
        {"entity_id": ["c", "b", "a", "b"], "as_of": [pd.Timestamp(START)] * 4},
        index=[9, 2, 5, 7],
    )
    labels = label_rows(SPECS["conversion"], spine, engine, END)
    assert labels.to_dict() == {9: 0.0, 2: 1.0, 5: 0.0, 7: 1.0}


def test_an_empty_spine_has_no_labels(engine: BareEngine) -> None:
    spine = pd.DataFrame({"entity_id": [], "as_of": pd.to_datetime([], utc=True)})
    assert label_rows(SPECS["churn"], spine, engine, END).empty


def test_a_naive_time_is_refused(engine: BareEngine) -> None:
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": [START.replace(tzinfo=None)]})
    with pytest.raises(NaiveTimeError, match="as_of"):
        label_rows(SPECS["churn"], spine, engine, END)


def test_a_label_that_repeats_rows_is_refused(engine: BareEngine) -> None:
    spec = spec_for(label="SELECT row_id, 1 AS label FROM moments, (VALUES (1), (2))")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": [pd.Timestamp(START)]})
    with pytest.raises(SpecError, match="2 rows for 1 moments"):
        label_rows(spec, spine, engine, END)


def test_a_label_that_is_null_for_a_known_row_is_refused(engine: BareEngine) -> None:
    spec = spec_for(label="SELECT row_id, NULL AS label FROM moments")
    spine = pd.DataFrame({"entity_id": ["a"], "as_of": [pd.Timestamp(START)]})
    with pytest.raises(SpecError, match="is NULL"):
        label_rows(spec, spine, engine, END)


@settings(max_examples=25, deadline=None)
@given(bound=st.integers(-40, 100), at=st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_conversion_agrees_with_the_definition_at_any_moment(bound: int, at: list[int]) -> None:
    engine = BareEngine()
    engine.add("policies", ("p", "a", 100, START + bound * DAY, None))
    spine = pd.DataFrame(
        {"entity_id": ["a"] * len(at), "as_of": [pd.Timestamp(START + n * DAY) for n in at]}
    )
    labels = label_rows(SPECS["conversion"], spine, engine, START + 100 * DAY)
    for n, label in zip(at, labels, strict=True):
        if n + 30 > 100:
            assert np.isnan(label)
        else:
            assert label == float(n < bound <= n + 30)
