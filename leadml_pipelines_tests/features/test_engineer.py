"""Functions computed now: what is refused, and that values are those of the functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.catalogue import UnknownFeatureError
from leadml_pipelines.features.engineer import (
    MAX_FUNCTIONS,
    ad_hoc,
    compute_now,
    unknown_entities,
)
from leadml_pipelines.features.functions import FUNCTIONS, FunctionSpecError
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, World

T = TypeVar("T")

OPENS = {"function": "count", "event_type": "email_open", "window": "14d"}


def _over(url: str) -> Callable[[Callable[[psycopg.Connection[Any]], T]], T]:
    """Does work over a connection of its own."""

    def run(work: Callable[[psycopg.Connection[Any]], T]) -> T:
        with connect(url, autocommit=True) as connection:
            return work(connection)

    return run


def test_a_spec_becomes_a_feature_with_a_definition_to_paste() -> None:
    made = ad_hoc([OPENS, {"function": "recency", "direction": "inbound"}], "lead")
    names = [feature.name for feature in made.view.features]
    assert names == ["email_open_count_14d", "inbound_recency"]
    scope: dict[str, Any] = {}
    exec(made.text, scope)  # noqa: S102 - the text is ours
    assert [feature.name for feature in scope["my_view"].features] == names


def test_the_text_of_a_score_can_be_pasted_too() -> None:
    parts = [
        {"weight": 60, "feature": "inbound_count_7d", "shape": "saturating", "size": 2},
        {"weight": 40, "feature": "quality_score", "shape": "linear", "size": 100},
    ]
    made = ad_hoc([{"function": "weighted_score", "name": "my_score", "parts": parts}], "lead")
    assert set(made.view.views) == {"engagement", "engineered"}
    scope: dict[str, Any] = {}
    exec(made.text, scope)  # noqa: S102 - the text is ours
    assert scope["my_view"].features == made.view.features


def test_events_may_be_chosen_by_an_object() -> None:
    spec = {"function": "ratio", "of": {"direction": "inbound"}, "per": {"channel": ["email"]}}
    made = ad_hoc([{**spec, "window": "30d", "weight": 5}], "lead")
    scope: dict[str, Any] = {}
    exec(made.text, scope)  # noqa: S102 - the text is ours
    assert scope["my_view"].features == made.view.features


def test_words_in_a_description_are_not_taken_for_classes() -> None:
    made = ad_hoc([{**OPENS, "description": "As Total(x) and Opened() are."}], "lead")
    assert made.text.startswith(
        "from leadml_pipelines.features.functions import Count, function_view\n\nmy_view = "
    )


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"function": "cuont"}, r"functions\.0: there is no feature function 'cuont'.*count"),
        ({}, r"functions\.0: there is no feature function None"),
        ({**OPENS, "windw": "1d"}, r"count has no argument windw; did you mean window"),
        ({**OPENS, "window": "2 fortnights"}, "is not a duration"),
        ({**OPENS, "window": 14}, "window is 14; it must be text"),
        ({**OPENS, "window": "9999999999d"}, "count: '9999999999d' is too long a duration"),
        ({"function": "trend", "windows": ["9999999999d", "7d"]}, "is too long a duration"),
        ({**OPENS, "event_type": {"a": "b"}}, "event_type is {'a': 'b'}; it must be a text or"),
        ({**OPENS, "event_type": "a\x00b"}, "control characters"),
        ({**OPENS, "event_type": ["x"] * 51}, "51 entries; 50 is the limit"),
        ({**OPENS, "description": 5}, "description is 5; it must be text"),
        ({**OPENS, "dimension": "luck"}, "dimension 'luck'"),
        ({**OPENS, "name": "Ünfit name"}, "feature name"),
        ({"function": "ratio", "of": "a", "per": "b", "weight": 10**400}, "beyond 1e"),
        ({"function": "ratio", "of": "a"}, "ratio needs per"),
        ({"function": "ratio", "of": {"channel": 5}, "per": "a"}, "must be event types, or an obj"),
        ({"function": "diversity", "kinds": 5}, "kinds is 5; it must be a list of texts"),
        ({"function": "ratio", "of": "a", "per": "b", "prior": "x"}, "must be a number"),
        ({"function": "weighted_score", "parts": None}, "parts is None; it must be a list"),
        ({"function": "weighted_score", "parts": [{"worth": 1}]}, "worth is 1; it must be an obj"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_with_what_might_be_meant(
    spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(FunctionSpecError, match=sentence):
        ad_hoc([spec], "lead")


def test_the_wrong_one_of_several_is_told() -> None:
    with pytest.raises(FunctionSpecError, match=r"functions\.1: there is a function named email"):
        ad_hoc([OPENS, OPENS], "lead")
    with pytest.raises(FunctionSpecError, match="ask for 1 to 50"):
        ad_hoc([OPENS] * (MAX_FUNCTIONS + 1), "lead")


def test_a_score_of_an_unknown_feature_is_refused_with_its_like() -> None:
    parts = [{"weight": 100, "feature": "quality_scor"}]
    with pytest.raises(UnknownFeatureError, match="did you mean quality_score"):
        ad_hoc([{"function": "weighted_score", "name": "x", "parts": parts}], "lead")


_TEXT = st.text(max_size=6) | st.sampled_from(["30d", "email_open", "channel", "inbound"])
_FLAT = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_JSON = _FLAT | st.lists(_FLAT, max_size=3) | st.dictionaries(_TEXT, _FLAT, max_size=2)
_PART = st.dictionaries(
    st.sampled_from(["weight", "feature", "shape", "size", "worth", "missing"]),
    _JSON | st.sampled_from([100, "stage", "points", "linear", {"open": 1}]),
)
_ARGUMENTS = st.sampled_from(
    ["event_type", "channel", "direction", "window", "windows", "of", "per", "prior", "weight",
     "over", "kinds", "answer", "parts", "views", "when", "name", "description", "dimension"]
)  # fmt: skip


@given(
    function=st.sampled_from(sorted(FUNCTIONS)),
    rest=st.dictionaries(_ARGUMENTS, _JSON | st.lists(_PART, max_size=2), max_size=4),
)
def test_whatever_a_spec_holds_it_makes_a_view_or_a_sentence(
    function: str, rest: dict[str, Any]
) -> None:
    with suppress(UserError):
        made = ad_hoc([{"function": function, **rest}], "lead")
        assert len(made.view.features) == 1


def test_values_are_those_known_at_the_moment(postgres_url: str) -> None:
    world = World().lead("a", NOW - timedelta(days=90)).lead("b", NOW - timedelta(days=1))
    day = timedelta(days=1)
    world.event("a", NOW - 13 * day, event_type="email_open")
    world.event("a", NOW - 14 * day, event_type="email_open")  # the open end of the window
    world.event("a", NOW, event_type="email_open")
    world.event("a", NOW + MICROSECOND, event_type="email_open")
    world.event("a", NOW - day, event_type="email_open", ingested_at=NOW + day)
    world.load(postgres_url)
    made = ad_hoc([OPENS, {"function": "recency", "direction": "inbound"}], "lead")
    found = compute_now(_over(postgres_url), made, ["b", "a"], NOW)
    assert found == {
        "a": {"email_open_count_14d": 2, "inbound_recency": 0.0},
        "b": {"email_open_count_14d": 0, "inbound_recency": None},
    }


def test_words_are_only_words_to_the_database(postgres_url: str) -> None:
    kind = "x' OR 'a' = 'a\\"
    world = World().lead("a", NOW - timedelta(days=90))
    world.event("a", NOW, event_type=kind).event("a", NOW, event_type="other")
    world.load(postgres_url)
    spec = {"function": "count", "event_type": kind, "window": "1d", "name": "odd_count"}
    assert compute_now(_over(postgres_url), ad_hoc([spec], "lead"), ["a"], NOW) == {
        "a": {"odd_count": 1}
    }


def test_no_statement_begins_after_the_deadline(postgres_url: str) -> None:
    World().lead("a", NOW).load(postgres_url)
    made = ad_hoc([OPENS], "lead")
    with pytest.raises(TimeoutError, match="0 of 1 entities"):
        compute_now(_over(postgres_url), made, ["a"], NOW, deadline=time.monotonic() - 1)


def test_unknown_entities_are_told_in_their_order(postgres_url: str) -> None:
    World().lead("a", NOW).load(postgres_url)
    with connect(postgres_url) as connection:
        assert unknown_entities(connection, "lead", ["z", "a", "y", "z"]) == ["z", "y"]
