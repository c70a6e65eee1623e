"""Point-in-time correctness, from the outside: what a row of a training set may and may not see.

Of the usual cases of a point-in-time join these have no meaning here: time to live (a view says its
windows itself), composite or renamed keys and integer keys (an entity is one text id), full names
(names are unique in the catalogue), spines given as SQL (`engine.sql` makes one).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.training_set import training_set
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import (
    MICROSECOND,
    NOW,
    World,
    known_at,
    random_world,
    spine,
)

VIEWS = catalogue().views("lead")
ENGAGEMENT = [catalogue().view("engagement")]
PROFILE = [catalogue().view("profile"), catalogue().view("lifecycle")]
GRAPH = [catalogue().view("graph")]
BORN = NOW - timedelta(days=100)


def one_event(occurred_at: datetime, **more: object) -> World:
    return World().lead("a", BORN).event("a", occurred_at, **more)


@pytest.mark.parametrize("days", [1, 7, 30, 90])
def test_an_event_at_the_far_edge_of_a_window_is_out_and_a_microsecond_later_in(
    bulk: Bulk, days: int
) -> None:
    edge = NOW - timedelta(days=days)
    column = f"inbound_count_{days}d"
    out = training_set(spine(("a", NOW)), ENGAGEMENT, bulk(one_event(edge)))
    in_ = training_set(spine(("a", NOW)), ENGAGEMENT, bulk(one_event(edge + MICROSECOND)))
    assert (out[column][0], in_[column][0]) == (0, 1)


def test_an_event_at_the_moment_itself_is_seen_and_a_microsecond_later_is_not(bulk: Bulk) -> None:
    at = training_set(spine(("a", NOW)), ENGAGEMENT, bulk(one_event(NOW)))
    after = training_set(spine(("a", NOW)), ENGAGEMENT, bulk(one_event(NOW + MICROSECOND)))
    assert (at["inbound_count_1d"][0], after["inbound_count_1d"][0]) == (1, 0)


def test_an_event_that_came_in_late_is_not_seen_before_it_came_in(bulk: Bulk) -> None:
    late = one_event(NOW - timedelta(days=2), ingested_at=NOW + MICROSECOND)
    rows = training_set(spine(("a", NOW), ("a", NOW + MICROSECOND)), VIEWS, bulk(late))
    assert rows["inbound_count_7d"].tolist() == [0, 1]
    assert rows["days_since_last_inbound"].isna().tolist() == [True, False]


def test_a_window_of_days_has_24_hours_each_when_the_clocks_change(bulk: Bulk) -> None:
    # In New York 2026-03-08 had 23 hours.
    new_york = ZoneInfo("America/New_York")
    moment = datetime(2026, 3, 8, 12, tzinfo=new_york)
    day_before = moment.astimezone(UTC) - timedelta(hours=24)
    world = World().lead("a", day_before - timedelta(days=1))
    world.event("a", day_before).event("a", day_before + MICROSECOND)
    frame = pd.DataFrame({"entity_id": ["a"], "as_of": pd.Series([moment], dtype=object)})
    assert training_set(frame, ENGAGEMENT, bulk(world))["inbound_count_1d"][0] == 1


def test_a_change_of_a_lead_is_seen_from_its_moment_on(bulk: Bulk) -> None:
    world = World().lead("a", BORN, source="web", attributes='{"age": 40}')
    changed = NOW - timedelta(days=3)
    world.add("lead_versions", lead_id="a", valid_from=changed, source="referral", attributes="{}")
    rows = training_set(spine(("a", changed - MICROSECOND), ("a", changed)), PROFILE, bulk(world))
    assert rows["source"].tolist() == ["web", "referral"]
    assert rows["age"].tolist() == [40, pd.NA]


def test_the_end_of_a_policy_counts_only_once_it_is_known(bulk: Bulk) -> None:
    bound, cancelled = NOW - timedelta(days=30), NOW - timedelta(days=10)
    world = World().lead("a", BORN)
    world.add("policies", lead_id="a", bound_at=bound, cancelled_at=cancelled)
    world.add("closures", lead_id="a", closed_at=NOW)
    times = [bound - MICROSECOND, bound, cancelled - MICROSECOND, cancelled, NOW]
    rows = training_set(spine(*(("a", t) for t in times)), PROFILE, bulk(world))
    assert rows["stage"].tolist() == ["open", "customer", "customer", "open", "closed"]
    assert rows["is_open"].tolist() == [True, False, False, True, False]
    assert rows["active_policy_count"].tolist() == [0, 1, 1, 0, 0]
    assert rows["stage_age_days"].tolist()[1:4:2] == [0.0, 0.0]


def test_the_end_of_an_assignment_counts_only_once_it_is_known(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    world.add("assignments", lead_id="a", agent_id="x", assigned_at=BORN, ended_at=NOW)
    rows = training_set(spine(("a", NOW - MICROSECOND), ("a", NOW)), GRAPH, bulk(world))
    assert rows["agent_assigned"].tolist() == [True, False]


def test_graph_metrics_are_those_of_the_latest_moment_that_is_not_after(bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    weeks = [NOW - timedelta(days=7 * k) for k in (2, 1, 0)]
    for i, week in enumerate(weeks):
        world.add("graph_metrics", entity_id="a", as_of=week, degree=i + 1)
        world.add("graph_metrics", entity_type="agent", entity_id="a", as_of=week, degree=50)
    times = [weeks[0] - MICROSECOND, weeks[0], weeks[2] - MICROSECOND, weeks[2]]
    rows = training_set(spine(*(("a", t) for t in times)), GRAPH, bulk(world))
    assert rows["degree"].tolist() == [0, 1, 2, 3]
    assert rows["graph_age_days"].isna().tolist() == [True, False, False, False]


def test_index_order_and_other_columns_of_the_spine_are_kept(bulk: Bulk) -> None:
    frame = spine(("b", NOW), ("a", NOW), ("b", BORN), ("b", NOW))
    frame["label"] = [1, 0, 1, 0]
    frame.index = pd.Index([7, 7, 3, 1], name="row")
    before = frame.copy(deep=True)
    world = World().lead("a", BORN).lead("b", BORN).event("b", NOW)
    rows = training_set(frame, ENGAGEMENT, bulk(world))
    pd.testing.assert_frame_equal(rows[frame.columns], before)
    pd.testing.assert_frame_equal(frame, before)
    assert rows["inbound_count_1d"].tolist() == [1, 0, 0, 1]


def test_an_unknown_entity_and_a_missing_one_keep_their_rows(bulk: Bulk) -> None:
    world = World().lead("a", BORN).event("a", NOW)
    rows = training_set(spine(("nobody", NOW), (None, NOW), ("a", NOW)), VIEWS, bulk(world))
    assert rows["inbound_count_1d"].tolist() == [0, 0, 1]
    assert rows["quality_score"].isna().tolist() == [True, True, False]
    assert rows["stage"].tolist() == [None, None, "open"]
    assert rows["email_open_ratio_30d"].tolist() == [0.2, 0.2, 0.2]


def test_a_lead_is_unknown_before_it_was_created(bulk: Bulk) -> None:
    rows = training_set(spine(("a", BORN - MICROSECOND)), VIEWS, bulk(World().lead("a", BORN)))
    assert rows["stage"].tolist() == [None]
    assert rows["is_open"].tolist() == [False]


@pytest.mark.parametrize("typed", [True, False])
def test_an_empty_spine_gives_an_empty_training_set(bulk: Bulk, typed: bool) -> None:
    empty = spine() if typed else pd.DataFrame({"entity_id": [], "as_of": [], "label": []})
    rows = training_set(empty, VIEWS, bulk(World().lead("a", BORN)))
    assert len(rows) == 0
    assert rows["age"].dtype == "Int64"
    assert rows["quality_score"].dtype == "float64"


def test_types_are_kept_where_values_are_missing(bulk: Bulk) -> None:
    rows = training_set(spine(("nobody", NOW)), VIEWS, bulk(World()))
    for feature in (f for view in VIEWS for f in view.features):
        expected = {"double": "float64", "integer": "Int64", "boolean": "boolean"}
        assert rows[feature.name].dtype == expected.get(feature.type, "object"), feature.name


def test_a_time_without_a_zone_is_refused_by_the_name_of_its_column(bulk: Bulk) -> None:
    frame = spine(("a", NOW))
    frame["as_of"] = frame["as_of"].dt.tz_localize(None)
    with pytest.raises(NaiveTimeError, match="as_of"):
        training_set(frame, PROFILE, bulk(World()))


def test_times_of_several_zones_are_the_moments_they_mean(bulk: Bulk) -> None:
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    frame = pd.DataFrame(
        {
            "entity_id": ["a", "a"],
            "as_of": pd.Series([NOW.astimezone(elsewhere), NOW - MICROSECOND], dtype=object),
        }
    )
    rows = training_set(frame, ENGAGEMENT, bulk(one_event(NOW)))
    assert rows["inbound_count_1d"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (spine(("a", NOW)).assign(stage="open"), "column named stage, as a feature is"),
        (spine(("a", NOW)).drop(columns="as_of"), "exactly one column as_of"),
        (spine(("a", NOW)).assign(entity_id=17), "17, a int; ids are text"),
        (spine(("a", NOW)).assign(as_of=pd.Series([pd.NaT], dtype="datetime64[us, UTC]")),
         "as_of is missing in some rows"),
    ],
)  # fmt: skip
def test_a_spine_that_can_not_be_meant_is_refused(
    bulk: Bulk, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(SpineError, match=message):
        training_set(frame, PROFILE, bulk(World()))


def test_rows_computed_one_by_one_equal_rows_computed_at_once(bulk: Bulk) -> None:
    world = random_world(11, leads=5)
    frame = spine(*((f"lead_{i % 6}", NOW - timedelta(days=i * 3)) for i in range(12)))
    with bulk(world) as engine:
        at_once = training_set(frame, VIEWS, engine)
        one_by_one = pd.concat(
            training_set(frame.iloc[[i]], VIEWS, engine) for i in range(len(frame))
        )
    pd.testing.assert_frame_equal(at_once, one_by_one, check_exact=True)


PROPERTY = settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@PROPERTY
@given(seed=st.integers(0, 10_000), days=st.sampled_from([0, 1, 7, 30]))
def test_deleting_everything_after_the_moment_changes_no_bit_of_any_feature(
    seed: int, days: int, bulk: Bulk
) -> None:
    moment = NOW - timedelta(days=days)
    world = random_world(seed)
    past = world.before(moment)
    assert sum(map(len, past.tables.values())) < sum(map(len, world.tables.values()))
    whole, rest = bulk(world), bulk(past)
    for entity in catalogue().entities:
        kind = entity_type(entity)
        ids = [*(row[kind.key] for row in world.tables[kind.table]), "nobody"]
        frame = spine(*((i, moment) for i in ids))
        views = catalogue().views(entity)
        pd.testing.assert_frame_equal(
            training_set(frame, views, whole), training_set(frame, views, rest), check_exact=True
        )


@PROPERTY
@given(seed=st.integers(0, 10_000))
def test_windows_and_recency_equal_a_brute_force_count_over_the_rows(seed: int, bulk: Bulk) -> None:
    world = random_world(seed, leads=4, events=150)
    moments = [NOW, NOW - timedelta(days=1), NOW - timedelta(days=29, microseconds=1)]
    frame = spine(*((f"lead_{i}", m) for m in moments for i in range(4)))
    rows = training_set(frame, VIEWS, bulk(world))
    for row in rows.itertuples():
        seen = [
            e
            for e in world.tables["lead_events"]
            if e["lead_id"] == row.entity_id
            and e["occurred_at"] <= row.as_of
            and known_at(e) <= row.as_of
        ]

        def within(days: int, as_of: datetime = row.as_of, seen: list = seen) -> list[dict]:
            return [e for e in seen if as_of - timedelta(days=days) < e["occurred_at"]]

        for days in (1, 7, 30, 90):
            inbound = sum(e["direction"] == "inbound" for e in within(days))
            assert getattr(row, f"inbound_count_{days}d") == inbound
        quotes = sum(e["event_type"] == "quote_request" for e in within(30))
        assert row.quote_request_count_30d == quotes
        values = [e["value"] for e in within(90) if e["value"] is not None]
        assert row.event_value_sum_90d == (
            float(max(min(sum(values), 900_000_000_000), -900_000_000_000)) if values else 0.0
        )
        last = max((e["occurred_at"] for e in seen if e["direction"] == "inbound"), default=None)
        if last is None:
            assert np.isnan(row.days_since_last_inbound)
        else:
            micros = (row.as_of.to_pydatetime() - last) // MICROSECOND
            assert row.days_since_last_inbound == micros / 86_400_000_000
        used = {
            e["channel"] if e["channel"] in ("email", "phone", "web") else "other"
            for e in within(30)
            if e["direction"] == "inbound"
        }
        assert row.inbound_channel_count_30d == len(used)
        assert row.event_count_total == len(seen)
