"""The feature functions: their values by plain Python, their names, their specs, their errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines.features.functions import (
    FUNCTIONS,
    Count,
    Delay,
    Diversity,
    EventFunction,
    FeatureFunction,
    FunctionSpecError,
    LastKind,
    Part,
    Ratio,
    Recency,
    ResponseTime,
    Total,
    Trend,
    WeightedScore,
    feature_function,
    from_spec,
    function_view,
)
from leadml_pipelines.features.functions.events import Events
from leadml_pipelines.features.view import FeatureDefinitionError
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import (
    MICROSECOND,
    NOW,
    World,
    known_at,
    random_world,
    spine,
)

BORN = NOW - timedelta(days=100)
Row = dict[str, Any]
PROPERTY = settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Oracle:
    """What an entity's value is, by plain Python over the events that were known."""

    function: EventFunction
    value: Callable[[list[Row], datetime], float | str | None]


def within(events: list[Row], as_of: datetime, **window: float) -> list[Row]:
    return [e for e in events if e["occurred_at"] > as_of - timedelta(**window)]


def is_(events: list[Row], **what: str) -> list[Row]:
    return [e for e in events if all(e[name] == value for name, value in what.items())]


def ratio(events: list[Row], as_of: datetime) -> float:
    month = within(events, as_of, days=30)
    opened, sent = (len(is_(month, event_type=t)) for t in ("email_open", "email_sent"))
    return (min(opened, sent) + 0.2 * 5) / (sent + 5)


def recency(events: list[Row], as_of: datetime) -> float | None:
    asked = is_(events, event_type="quote_request")
    last = max((e["occurred_at"] for e in asked), default=None)
    return None if last is None else (as_of - last) // MICROSECOND / 86_400_000_000


def response(events: list[Row], as_of: datetime) -> float | None:
    answers = sorted(e["occurred_at"] for e in is_(events, direction="inbound"))
    took = []
    for touch in is_(within(events, as_of, days=30), direction="outbound"):
        later = [a for a in within_90(answers, as_of) if a > touch["occurred_at"]]
        if later:
            took.append((later[0] - touch["occurred_at"]) // timedelta(milliseconds=1))
    return sum(took) / len(took) / 3_600_000 if took else None


def within_90(times: list[datetime], as_of: datetime) -> list[datetime]:
    return [t for t in times if t > as_of - timedelta(days=90)]


def trend(events: list[Row], as_of: datetime) -> float:
    counts = [len(within(events, as_of, days=days)) for days in (0, 7, 30, 90)]
    rates = [
        (b - a) / length
        for (a, b), length in zip(pairwise([0, *counts[1:]]), (7, 23, 60), strict=True)
    ]
    middles = [-3.5, -18.5, -60.0]
    mean = sum(middles) / 3
    slope = sum((m - mean) * r for m, r in zip(middles, rates, strict=True))
    return 30 * slope / sum((m - mean) ** 2 for m in middles)


def diversity(events: list[Row], as_of: datetime) -> float | None:
    quarter = within(events, as_of, days=90)
    kinds = [e["channel"] if e["channel"] in ("email", "phone") else "other" for e in quarter]
    if not kinds:
        return None
    shares = [kinds.count(kind) / len(kinds) for kind in ("email", "phone", "other")]
    return (1 - sum(s * s for s in shares)) * 3 / 2


def delay(events: list[Row], as_of: datetime) -> float | None:
    asked = [e["occurred_at"] for e in is_(events, event_type="quote_request")]
    seen = [e["occurred_at"] for e in is_(events, event_type="page_view")]
    if not asked or not seen or min(asked) < min(seen):
        return None
    return (min(asked) - min(seen)) // MICROSECOND / 3_600_000_000


def last_kind(events: list[Row], as_of: datetime) -> str | None:
    kinds = ("note", "email_open", "email_click")
    known = [e for e in within(events, as_of, days=30) if e["event_type"] in kinds]
    newest = max((e["occurred_at"] for e in known), default=None)
    last = {e["event_type"] for e in known if e["occurred_at"] == newest}
    return min(last, key=kinds.index, default=None)


def complaints(events: list[Row], as_of: datetime) -> int:
    month = is_(within(events, as_of, days=30), direction="inbound")
    topics = [json.loads(e["properties"]).get("topic") for e in month]
    return sum(topic in ("complaint", "bill") for topic in topics)


ORACLES = (
    Oracle(Count(topic=("complaint", "bill"), direction="inbound", window="30d"), complaints),
    Oracle(
        Count(event_type=("page_view", "form_submit"), window="36h"),
        lambda e, t: sum(
            x["event_type"] in ("page_view", "form_submit") for x in within(e, t, hours=36)
        ),
    ),
    Oracle(Ratio(of="email_open", per="email_sent", window="30d", prior=0.2, weight=5), ratio),
    Oracle(Recency(event_type="quote_request"), recency),
    Oracle(ResponseTime(window="30d"), response),
    Oracle(Trend(), trend),
    Oracle(Diversity(window="90d", kinds=("email", "phone")), diversity),
    Oracle(Delay(event_type="quote_request", after="page_view"), delay),
    Oracle(LastKind(window="30d", kinds=("note", "email_open", "email_click")), last_kind),
)


@PROPERTY
@given(seed=st.integers(0, 10_000), oracle=st.sampled_from(ORACLES))
def test_a_function_gives_what_plain_python_gives_over_the_known_events(
    seed: int, oracle: Oracle, bulk: Bulk
) -> None:
    # Recency looks at all of history, so that it gets a view of its own.
    view = function_view("probe", "lead", [oracle.function])
    world = random_world(seed, leads=4, events=150)
    moments = [NOW, NOW - timedelta(days=13, microseconds=1)]
    frame = spine(*((f"lead_{i}", m) for m in moments for i in range(4)))
    rows = bulk(world).compute([view], frame)
    for row in rows.itertuples(index=False):
        entity, as_of, value = row
        known = [
            e
            for e in world.tables["lead_events"]
            if e["lead_id"] == entity and e["occurred_at"] <= as_of and known_at(e) <= as_of
        ]
        expected = oracle.value(known, as_of.to_pydatetime())
        if expected is None:
            assert pd.isna(value)
        elif isinstance(expected, str):
            assert value == expected
        else:
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@PROPERTY
@given(seed=st.integers(0, 10_000))
def test_functions_in_one_view_have_the_same_bits_on_both_engines(
    seed: int, postgres_url: str, bulk: Bulk
) -> None:
    functions = [oracle.function for oracle in ORACLES] + [Total(window="90d")]
    view = function_view("probe", "lead", functions)
    own = Catalogue([view])
    world = random_world(seed, leads=5)
    world.load(postgres_url)
    ids = [f"lead_{i}" for i in range(6)]
    with PostgresEngine(postgres_url, catalogue=own) as engine:
        alone = engine.compute([view], ids, NOW)
    in_bulk = bulk(world).compute([view], spine(*((i, NOW) for i in ids)))
    pd.testing.assert_frame_equal(in_bulk, alone, check_exact=True)


def test_what_an_event_was_about_is_told_in_a_sentence() -> None:
    function = Count(event_type="call_inbound", topic="late_bill", window="7d")
    assert "of type call_inbound about late_bill" in function.feature.description
    assert function.derived_phrase.text.endswith("about late bill in the last 7 days")


def test_a_total_is_exact_to_the_cent_and_leaves_out_other_events(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    for cents in range(10):
        world.event("a", NOW, value=Decimal("0.10"), channel="phone" if cents else "web")
    view = function_view("probe", "lead", [Total(channel="phone", window="1d")])
    assert bulk(world).compute([view], spine(("a", NOW)))["phone_value_sum_1d"].tolist() == [0.9]


def test_an_answer_at_the_moment_of_the_touch_answers_nothing(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    touch = NOW - timedelta(hours=9)
    world.event("a", touch, direction="outbound").event("a", touch)
    view = function_view("probe", "lead", [ResponseTime(window="30d")])
    name = "outbound_response_hours_30d"
    assert bulk(world).compute([view], spine(("a", NOW)))[name].isna().tolist() == [True]
    world.event("a", touch + timedelta(hours=2))
    assert bulk(world).compute([view], spine(("a", NOW)))[name].tolist() == [2.0]


def test_a_delay_is_counted_from_the_first_event_and_missing_until_it_is_over(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    world.event("a", NOW - timedelta(hours=30)).event("a", NOW - timedelta(hours=3))
    world.event("a", NOW - timedelta(hours=2), event_type="quote_sent")
    world.event("a", NOW - timedelta(hours=1), event_type="quote_sent")
    view = function_view("probe", "lead", [Delay(event_type="quote_sent")])
    early = NOW - timedelta(hours=2, microseconds=1)
    rows = bulk(world).compute([view], spine(("a", NOW), ("a", early)))
    values = rows.set_index("as_of")["quote_sent_delay_hours"]
    assert values[NOW] == 28
    assert pd.isna(values[early])


def test_of_kinds_that_came_at_one_moment_the_first_listed_came_last(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    for kind in ("email_open", "note"):
        world.event("a", NOW - timedelta(days=1), event_type=kind)
    view = function_view("probe", "lead", [LastKind(kinds=("note", "email_open"))])
    assert bulk(world).compute([view], spine(("a", NOW)))["event_type_last"].tolist() == ["note"]


def test_two_response_times_of_one_view_have_answers_of_their_own(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    touch = NOW - timedelta(hours=20)
    world.event("a", touch, direction="outbound")
    world.event("a", touch + timedelta(hours=2), event_type="email_reply")
    world.event("a", touch + timedelta(hours=10), event_type="call_inbound")
    view = function_view(
        "probe",
        "lead",
        [
            ResponseTime(name="reply", window="30d", answer="email_reply"),
            ResponseTime(name="call", window="30d", answer="call_inbound"),
        ],
    )
    row = bulk(world).compute([view], spine(("a", NOW))).iloc[0]
    assert (row["reply"], row["call"]) == (2.0, 10.0)


def test_how_events_follow_each_other_is_asked_of_leads_alone() -> None:
    with pytest.raises(FeatureDefinitionError, match="response_time follows the events of one"):
        function_view("v", "agent", [ResponseTime(window="30d")])


def test_a_score_is_read_off_its_parts(tmp_path: Path) -> None:
    counts = function_view("counts", "lead", [Count(window="30d"), Count(window="7d", name="week")])
    score = WeightedScore(
        name="heat_score",
        views=("counts", "profile"),
        when="event_count_30d",
        parts=(
            Part(40, "event_count_30d", "saturating", 3),
            Part(20, "week", "linear", 2),
            Part(15, "age", "fading", 40, missing=0.5),
            Part(15, "source", "points", worth=(("web", 0.5),), missing=0.1),
            Part(10, "has_current_insurer", "flag", 0.25, missing=0.0),
        ),
    )
    view = function_view("heat", "lead", [score])
    world = World().lead(
        "a", BORN, source="web", attributes='{"age": 40, "has_current_insurer": false}'
    )
    for days in (1, 10, 20):
        world.event("a", NOW - timedelta(days=days))
    own = Catalogue([catalogue().view("profile"), counts, view])
    with DuckDBEngine(world.parquet(tmp_path), catalogue=own) as engine:
        value = engine.compute([view], spine(("a", NOW)))["heat_score"][0]
    assert value == 40 * 0.5 + 20 * 0.5 + 15 * 0.5 + 15 * 0.5 + 10 * 0.25


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Count(event_type="email_open", window="30d"), "email_open_count_30d"),
        (Count(direction="inbound", channel="phone", window="12h"), "phone_inbound_count_12h"),
        (Count(event_type="W_Afhandelen leads"), "w_afhandelen_leads_count"),
        (Count(event_type="call_inbound", topic="complaint"), "call_inbound_complaint_count"),
        (Total(window="90d"), "event_value_sum_90d"),
        (Ratio(of="email_open", per="email_sent", window="30d"), "email_open_ratio_30d"),
        (Recency(direction="inbound"), "inbound_recency"),
        (ResponseTime(window="7d"), "outbound_response_hours_7d"),
        (Trend(direction="inbound"), "inbound_trend_90d"),
        (Diversity(window="30d"), "event_channel_diversity_30d"),
        (Delay(event_type="quote_sent"), "quote_sent_delay_hours"),
        (LastKind(), "event_type_last"),
        (
            LastKind(direction="inbound", over="channel", kinds=("web",), window="7d"),
            "inbound_channel_last_7d",
        ),
        (WeightedScore(parts=(Part(100, "stage_age_days"),)), "stage_age_days_score"),
    ],
)
def test_names_say_what_how_and_how_far_back(function: FeatureFunction, name: str) -> None:
    assert function.feature.name == name
    assert function.feature.description.endswith(".")


@pytest.mark.parametrize(
    "function",
    [
        *(oracle.function for oracle in ORACLES),
        Total(channel=("phone", "email"), window="7d", name="talk_value"),
        Ratio(of=Events(direction="inbound"), per=Events(channel=("phone", "web"))),
        WeightedScore(
            name="s", parts=(Part(60, "a", "points", worth=(("x", 1.0),)), Part(40, "b"))
        ),
    ],
)
def test_a_function_survives_the_way_through_json_and_through_its_definition(
    function: FeatureFunction,
) -> None:
    assert from_spec(json.loads(json.dumps(function.spec()))) == function
    names = {cls.__name__: cls for cls in FUNCTIONS.values()} | {"Part": Part, "Events": Events}
    assert eval(function.definition(), names) == function  # noqa: S307 - our own text


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"function": "cuont"}, "no feature function 'cuont'; did you mean count"),
        ({"window": "7d"}, "no feature function None"),
        ({"function": "count", "windw": "7d"}, "count has no argument windw; did you mean window"),
        ({"function": "count", "window": "7"}, "'7' is not a duration"),
        ({"function": "count", "window": "90m"}, "must be whole hours"),
        ({"function": "count", "window": 7}, "write it as text"),
        ({"function": "count", "event_type": 7}, "event_type"),
        ({"function": "ratio", "window": "7d"}, "ratio needs of, per"),
        ({"function": "ratio", "of": "a", "per": "b", "prior": 2}, "prior lies in 0 to 1"),
        ({"function": "count", "topic": 7}, "topic is 7"),
        ({"function": "ratio", "of": "a", "per": "b", "topic": "c"}, "no other choice of events"),
        ({"function": "ratio", "of": {"kind": "x"}, "per": "b"}, "of of ratio has kind"),
        ({"function": "trend", "windows": ["30d", "7d"]}, "each longer than the last"),
        ({"function": "trend", "window": "30d"}, "a trend takes `windows`"),
        ({"function": "diversity", "over": "agent_id"}, "it is channel or event_type"),
        ({"function": "last_kind", "over": "agent_id"}, "it is channel or event_type"),
        ({"function": "last_kind", "kinds": ["web", "web"]}, "each only once"),
        ({"function": "delay", "after": {"kind": "x"}}, "after of delay has kind"),
        ({"function": "weighted_score", "parts": [{"weight": 9, "feature": "a"}]}, "must make 100"),
        ({"function": "diversity", "kinds": ["email", "email"]}, "each only once"),
        ({"function": "diversity", "kinds": ["email", ""]}, "each only once"),
        ({"function": "weighted_score", "parts": [{"wait": 9}]}, "a part of weighted_score"),
        ({"function": "weighted_score", "parts": 7}, "parts of weighted_score is no list"),
        (
            {"function": "weighted_score", "parts": [{"weight": 100, "feature": "a", "worth": 3}]},
            "weighted_score",
        ),
        ({"function": "count", "dimension": "luck"}, "dimension 'luck'"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_with_the_way_out(spec: Row, message: str) -> None:
    with pytest.raises(FunctionSpecError, match=message):
        from_spec(spec)


def test_what_two_functions_need_is_computed_once() -> None:
    from leadml_pipelines.features.compiler import compile_views

    opens = Count(event_type="email_open", window="30d")
    rate = Ratio(of="email_open", per="email_sent", window="30d")
    view = function_view("probe", "lead", [opens, rate])
    sql = compile_views([view], "duckdb", catalogue=Catalogue([view]))
    assert sql.count("COUNT(") == 2


def test_windows_within_ninety_days_read_the_recent_events_alone() -> None:
    assert function_view("v", "lead", [Count(window="90d")]).reads == ("spine", "recent_events")
    assert function_view("v", "lead", [Count(window="91d")]).reads == ("spine", "known_events")
    assert function_view("v", "lead", [Count()]).reads == ("spine", "known_events")
    with pytest.raises(FeatureDefinitionError, match="agent go back 90 days"):
        function_view("v", "agent", [Count(window="91d")])
    with pytest.raises(FeatureDefinitionError, match="no events of house"):
        function_view("v", "house", [Count(window="9d")])


def test_two_functions_with_one_name_are_refused() -> None:
    with pytest.raises(FeatureDefinitionError, match="two feature functions named count"):

        @feature_function("count")
        class Other(Count):
            """Counts otherwise."""

    assert FUNCTIONS["count"] is Count


def test_a_function_without_a_docstring_is_refused() -> None:
    with pytest.raises(FeatureDefinitionError, match="mute has no docstring"):

        @feature_function("mute")
        class Mute(Count):
            pass

    assert "mute" not in FUNCTIONS


def test_every_function_says_its_unit_and_its_range() -> None:
    assert set(FUNCTIONS) >= {
        "count", "total", "ratio", "recency", "delay", "response_time", "trend", "diversity",
        "last_kind", "weighted_score",
    }  # fmt: skip
    for function in FUNCTIONS.values():
        if function.type == "category":
            continue
        assert function.unit
        assert function.low is not None or function is Trend
        assert math.isfinite(function.low or 0)
