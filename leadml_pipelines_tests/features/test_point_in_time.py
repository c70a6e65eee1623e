"""The cases that a point-in-time join over histories must get right, each by a test of its own.

The cases, by the numbers of the usual list (1 to 39), are all here except:

* 31 (features from request data) and 34 (saved sets): `test_request_features.py`, `test_store.py`
  and `test_saved_sets.py`; 32 (no spine) is here for histories, for entity types in
  `test_store.py`.
* 37 and 38 (online = offline, an older online write loses): their online halves are in
  `serving/test_online_equals_offline.py` and `serving/test_read_through.py`. Here, a correction
  wins offline; in `test_store.py`, a training set as of a snapshot equals what is published.

Of the cases none is without meaning for a history.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.histories import History, HistoryColumn, HistoryError
from leadml_pipelines.features.point_in_time import (
    bounded_connection,
    entities_between,
    join_histories,
    join_within,
)
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, spine

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Row = tuple[Any, ...]


def table(*rows: Row) -> pd.DataFrame:
    """A history: entity, event time, created time, value."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return pd.DataFrame(
        {
            "entity_id": pd.Series(columns[0], dtype=object),
            "at": pd.Series(columns[1], dtype="datetime64[us, UTC]"),
            "known": pd.Series(columns[2], dtype="datetime64[us, UTC]"),
            "value": pd.Series(columns[3], dtype="Int64"),
        }
    )


def history(*rows: Row, **more: Any) -> History:
    return History(
        **{
            "name": "h",
            "source": table(*rows),
            "keys": "entity_id",
            "event_time": "at",
            "created_time": "known",
            **more,
        }
    )


def values(frame: pd.DataFrame, *histories: History, **more: Any) -> list[Any]:
    column = join_histories(frame, histories, threads=1, **more)["value"]
    return [None if pd.isna(v) else v for v in column]


def at_once(at: datetime, value: int, entity: str = "a") -> Row:
    return (entity, at, at, value)


def test_1_a_row_at_the_very_moment_is_seen_and_a_microsecond_later_is_not() -> None:
    frame = spine(("a", NOW))
    assert values(frame, history(at_once(NOW, 1))) == [1]
    assert values(frame, history(at_once(NOW + MICROSECOND, 1))) == [None]


def test_2_a_row_exactly_as_old_as_its_time_to_live_is_out_and_a_microsecond_younger_in() -> None:
    frame = spine(("a", NOW))
    assert values(frame, history(at_once(NOW - DAY, 1), ttl=DAY)) == [None]
    assert values(frame, history(at_once(NOW - DAY + MICROSECOND, 1), ttl=DAY)) == [1]


def test_3_without_a_time_to_live_a_row_of_any_age_counts() -> None:
    ancient = datetime(1802, 3, 4, tzinfo=UTC)
    assert values(spine(("a", NOW)), history(at_once(ancient, 1))) == [1]


def test_4_the_time_to_live_counts_from_each_rows_own_time() -> None:
    frame = spine(*(("a", NOW + k * HOUR) for k in (0, 1, 2)))
    assert values(frame, history(at_once(NOW, 1), ttl=2 * HOUR)) == [1, 1, None]


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_5_of_rows_with_one_event_time_the_last_created_wins_in_any_physical_order(
    copies: int,
) -> None:
    rows = [("a", NOW - DAY, NOW - DAY + k * HOUR, k) for k in range(copies)]
    for turn in range(copies):
        for order in (rows[turn:] + rows[:turn], (rows[turn:] + rows[:turn])[::-1]):
            assert values(spine(("a", NOW)), history(*order)) == [copies - 1]


def test_5_rows_that_share_created_time_too_are_told_apart_by_content_not_by_place() -> None:
    rows = [("a", NOW - DAY, NOW - DAY, k) for k in (2, None, 3, 1)]
    found = {
        tuple(values(spine(("a", NOW), ("a", NOW + DAY)), history(*rows[k:], *rows[:k])))
        for k in range(4)
    }
    assert found == {(3, 3)}


def test_5_all_features_of_tied_rows_come_from_one_row_whichever_are_asked_for() -> None:
    source = pd.DataFrame(
        {"entity_id": ["a", "a"], "at": [NOW, NOW], "x": [1, 2], "y": [20, 10], "w": [5, 4]}
    )
    h = history(source=source, created_time=None)
    both = join_histories(spine(("a", NOW)), [h])
    assert both[["w", "x", "y"]].to_numpy().tolist() == [[5, 1, 20]]
    for name, value in (("x", 1), ("y", 20)):
        assert join_histories(spine(("a", NOW)), [h], features=[name])[name].tolist() == [value]


def test_6_a_row_created_later_about_an_older_event_loses() -> None:
    rows = [("a", NOW - HOUR, NOW - HOUR, 1), ("a", NOW - DAY, NOW - MICROSECOND, 2)]
    assert values(spine(("a", NOW)), history(*rows)) == [1]
    assert values(spine(("a", NOW)), history(*rows[::-1])) == [1]


def test_7_a_row_created_after_the_moment_is_not_seen_but_the_one_before_it_is() -> None:
    late = [at_once(NOW - DAY, 1), ("a", NOW - HOUR, NOW + MICROSECOND, 2)]
    frame = spine(("a", NOW), ("a", NOW + MICROSECOND))
    assert values(frame, history(*late)) == [1, 2]


def test_7_a_row_without_a_created_time_counts_as_known_when_it_happened() -> None:
    rows = [("a", NOW - HOUR, None, 1), ("a", NOW - HOUR, NOW, 2)]
    frame = spine(("a", NOW - HOUR), ("a", NOW - MICROSECOND), ("a", NOW))
    assert values(frame, history(*rows)) == [1, 1, 2]


def test_7_a_created_time_that_only_breaks_ties_hides_nothing() -> None:
    rows = [("a", NOW - DAY, NOW + DAY, 1), ("a", NOW - DAY, NOW + 2 * DAY, 2)]
    assert values(spine(("a", NOW)), history(*rows, created_filters=False)) == [2]
    assert values(spine(("a", NOW)), history(*rows)) == [None]


def test_an_older_fact_that_arrives_later_changes_nothing_then_or_afterwards() -> None:
    rows = [
        ("a", NOW - 3 * HOUR, NOW, 1),
        ("a", NOW - HOUR, NOW - HOUR, 2),
        ("a", NOW - 2 * HOUR, NOW + HOUR, 3),
    ]
    frame = spine(*(("a", NOW + k * HOUR) for k in (-2, -1, 0, 1, 5)))
    assert values(frame, history(*rows)) == [None, 2, 2, 2, 2]


def test_8_what_the_cut_offs_leave_nothing_of_stays_missing_and_borrows_from_nobody() -> None:
    rows = [at_once(NOW - 2 * DAY, 1), ("a", NOW, NOW + DAY, 2), at_once(NOW, 3, "b")]
    assert values(spine(("a", NOW), ("b", NOW)), history(*rows, ttl=DAY)) == [None, 3]


def test_9_an_entity_with_nothing_but_future_rows_keeps_its_row() -> None:
    assert values(spine(("a", NOW)), history(at_once(NOW + DAY, 1))) == [None]


def test_10_an_entity_with_nothing_but_expired_rows_keeps_its_row() -> None:
    assert values(spine(("a", NOW)), history(at_once(NOW - 9 * DAY, 1), ttl=DAY)) == [None]


def test_11_an_unknown_entity_keeps_its_row() -> None:
    assert values(spine(("nobody", NOW)), history(at_once(NOW, 1))) == [None]


def test_12_a_row_that_no_history_matches_is_kept() -> None:
    other = history(at_once(NOW, 1), name="other", features=[HistoryColumn("value", "more")])
    rows = join_histories(spine(("x", NOW), ("y", NOW)), [history(at_once(NOW, 1)), other])
    assert rows[["value", "more"]].isna().all(axis=None)
    assert rows["entity_id"].tolist() == ["x", "y"]


def test_13_the_same_row_twice_is_kept_twice_each_with_its_own_label() -> None:
    frame = spine(("a", NOW), ("a", NOW)).assign(label=[0, 1])
    rows = join_histories(frame, [history(at_once(NOW, 5))])
    assert rows[["label", "value"]].to_numpy().tolist() == [[0, 5], [1, 5]]


def test_14_one_entity_at_several_times_gets_the_value_of_each() -> None:
    h = history(*(at_once(NOW - k * DAY, k) for k in range(4)))
    frame = spine(*(("a", NOW - k * DAY) for k in (2, 0, 3, 1, 9)))
    assert values(frame, h) == [2, 0, 3, 1, None]


def test_15_rows_order_and_index_are_kept() -> None:
    frame = spine(("b", NOW), ("a", NOW), ("zz", NOW), ("a", NOW - DAY))
    frame.index = pd.Index([7, 7, -1, 3], name="row")
    rows = join_histories(frame, [history(at_once(NOW, 1), at_once(NOW, 2, "b"))])
    pd.testing.assert_frame_equal(rows[list(frame.columns)], frame)
    assert rows["value"].tolist() == [2, 1, pd.NA, pd.NA]


def test_16_other_columns_pass_through_with_their_types_and_are_no_part_of_the_key() -> None:
    frame = spine(("a", NOW), ("a", NOW)).assign(
        label=pd.array([1, None], dtype="Int8"),
        kind=pd.Categorical(["x", "y"]),
        seen=pd.Series([NOW, None], dtype="datetime64[us, Europe/Berlin]"),
        words=[["p"], []],
        what=[1, "two"],
    )
    rows = join_histories(frame, [history(at_once(NOW, 5))])
    pd.testing.assert_frame_equal(rows[list(frame.columns)], frame)
    assert rows["value"].tolist() == [5, 5]


def test_17_the_spine_is_not_changed() -> None:
    frame = spine(("b", NOW), ("a", NOW))
    before = frame.copy(deep=True)
    rows = join_histories(frame, [history(at_once(NOW, 1))])
    rows.loc[:, "entity_id"] = "changed"
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("typed", [True, False])
def test_17_an_empty_spine_gives_an_empty_set_with_all_columns(typed: bool) -> None:
    empty = spine() if typed else pd.DataFrame({"entity_id": [], "as_of": []})
    rows = join_histories(empty, [history(at_once(NOW, 1))])
    assert list(rows.columns) == ["entity_id", "as_of", "value"]
    assert (len(rows), str(rows["value"].dtype)) == (0, "Int64")


def test_17_an_empty_history_leaves_every_value_missing() -> None:
    assert values(spine(("a", NOW)), history()) == [None]


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "moment",
    [
        NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
        NOW.astimezone(BERLIN),
        pd.Timestamp(NOW).tz_convert("America/New_York"),
    ],
)
def test_18_a_time_in_any_zone_is_the_moment_that_it_is(moment: datetime) -> None:
    h = history(at_once(NOW, 1), at_once(NOW + MICROSECOND, 2))
    frame = pd.DataFrame({"entity_id": ["a"], "as_of": pd.Series([moment], dtype=object)})
    assert values(frame, h) == [1]
    assert values(frame.assign(as_of=pd.Series([moment])), h) == [1]


def test_18_zones_may_be_mixed_in_one_column() -> None:
    times = [NOW, NOW.astimezone(BERLIN), (NOW - DAY).astimezone(timezone(-5 * HOUR))]
    frame = pd.DataFrame({"entity_id": "a", "as_of": pd.Series(times, dtype=object)})
    assert values(frame, history(at_once(NOW, 1), at_once(NOW - DAY, 2))) == [1, 1, 2]


def test_18_both_hours_of_the_night_when_the_clocks_go_back_are_told_apart() -> None:
    # In Berlin 02:30 came twice on 2025-10-26, first as 00:30 UTC, then as 01:30 UTC.
    twice = [datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (0, 1)]
    h = history(*(at_once(moment.astimezone(UTC), k) for k, moment in enumerate(twice)))
    frame = pd.DataFrame({"entity_id": "a", "as_of": pd.Series(twice, dtype=object)})
    assert values(frame, h) == [0, 1]


def test_18_a_time_to_live_of_a_day_has_24_hours_when_the_clocks_change() -> None:
    # In New York 2026-03-08 had 23 hours.
    moment = datetime(2026, 3, 8, 12, tzinfo=ZoneInfo("America/New_York"))
    edge = moment.astimezone(UTC) - timedelta(hours=24)
    frame = pd.DataFrame({"entity_id": ["a"], "as_of": pd.Series([moment], dtype=object)})
    assert values(frame, history(at_once(edge, 1), ttl=DAY)) == [None]
    assert values(frame, history(at_once(edge + MICROSECOND, 1), ttl=DAY)) == [1]


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", date(2026, 1, 1)])
def test_18_naive_times_texts_and_dates_in_a_spine_are_refused_by_name(moment: Any) -> None:
    frame = pd.DataFrame({"entity_id": ["a"], "as_of": [moment]})
    with pytest.raises(NaiveTimeError, match="as_of"):
        join_histories(frame, [history(at_once(NOW, 1))])
    arrow = pa.table({"entity_id": ["a"], "as_of": [moment]})
    with pytest.raises(NaiveTimeError, match="as_of"):
        join_histories(arrow, [history(at_once(NOW, 1))])


@pytest.mark.parametrize("column", ["at", "known"])
def test_18_naive_times_in_a_history_are_refused_by_name_wherever_they_lie(
    column: str, tmp_path: Path
) -> None:
    naive = table(at_once(NOW, 1))
    naive[column] = naive[column].dt.tz_localize(None)
    naive.to_parquet(tmp_path / "naive.parquet")
    sources = [
        naive,
        pa.Table.from_pandas(naive),
        tmp_path / "naive.parquet",
        f"FROM '{tmp_path}/naive.parquet'",
    ]
    for source in sources:
        with pytest.raises(NaiveTimeError, match=rf"history h.*{column}|{column}.*history h"):
            join_histories(spine(("a", NOW)), [history(source=source)])


def test_18_the_way_out_that_the_error_for_naive_times_shows_works(tmp_path: Path) -> None:
    naive = table(at_once(NOW, 1))
    naive["at"] = naive["at"].dt.tz_localize(None)
    naive.to_parquet(tmp_path / "naive.parquet")
    source = (
        f"SELECT * REPLACE (\"at\" AT TIME ZONE 'UTC' AS \"at\") FROM '{tmp_path}/naive.parquet'"
    )
    assert values(spine(("a", NOW)), history(source=source)) == [1]


def test_18_a_missing_time_in_a_spine_is_refused_and_in_a_history_never_seen() -> None:
    frame = spine(("a", NOW), ("a", NOW))
    frame.loc[1, "as_of"] = pd.NaT
    with pytest.raises(SpineError, match="as_of is missing"):
        join_histories(frame, [history(at_once(NOW, 1))])
    assert values(spine(("a", NOW)), history(("a", None, NOW - DAY, 1))) == [None]


def test_19_a_newest_value_that_is_missing_stays_missing() -> None:
    rows = [at_once(NOW - DAY, 1), ("a", NOW - HOUR, NOW - HOUR, None)]
    assert values(spine(("a", NOW)), history(*rows)) == [None]


def test_20_a_missing_key_never_matches_a_missing_key() -> None:
    rows = [(None, NOW - DAY, NOW - DAY, 1), at_once(NOW, 2)]
    assert values(spine((None, NOW), ("a", NOW)), history(*rows)) == [None, 2]
    assert values(spine((None, NOW)), history(*rows)) == [None]


@pytest.mark.parametrize("theirs", ["int32", "int64", "uint8", "Int64"])
@pytest.mark.parametrize("ours", ["int16", "int64", "uint64", "Int32"])
def test_21_whole_numbers_of_any_width_are_compared_by_value(ours: str, theirs: str) -> None:
    source = table(at_once(NOW, 1), at_once(NOW, 2, "b")).assign(
        entity_id=pd.Series([1, 2], dtype=theirs)
    )
    frame = spine(("a", NOW), ("a", NOW)).assign(entity_id=pd.Series([2, 3], dtype=ours))
    assert values(frame, history(source=source)) == [2, None]


@pytest.mark.parametrize("ids", [pd.Series([1]), pd.Series([1.0]), pd.Series([b"a"], dtype=object)])
def test_21_a_key_of_another_type_is_an_error_that_names_both_columns(ids: pd.Series) -> None:
    with pytest.raises(HistoryError, match=r"entity_id of the spine holds.*key entity_id of hist"):
        join_histories(spine(("a", NOW)).assign(entity_id=ids), [history(at_once(NOW, 1))])


def test_21_keys_of_several_types_in_one_column_are_refused() -> None:
    frame = spine(("a", NOW), ("b", NOW)).assign(entity_id=pd.Series([1, "b"], dtype=object))
    with pytest.raises(SpineError, match="entity_id of the spine holds values of several types"):
        join_histories(frame, [history(at_once(NOW, 1))])


def test_21_text_keys_may_be_categories() -> None:
    frame = spine(("a", NOW), ("b", NOW))
    frame["entity_id"] = frame["entity_id"].astype("category")
    assert values(frame, history(at_once(NOW, 1))) == [1, None]


def test_22_all_columns_of_a_composite_key_must_match() -> None:
    source = pd.DataFrame(
        {"who": ["a", "a", "b", "a"], "where": [1, 2, 1, None], "at": [NOW] * 4, "value": [*"1234"]}
    ).astype({"where": "Int64"})
    h = history(source=source, keys=["who", "where"], created_time=None)
    frame = pd.DataFrame(
        {
            "where": pd.array([2, 1, 1, 2, None], dtype="Int64"),
            "who": ["a", "a", "b", "b", "a"],
            "as_of": [NOW] * 5,
        }
    )
    assert values(frame, h) == ["2", "1", "3", None, None]


def test_22_histories_with_different_keys_are_joined_each_by_its_own() -> None:
    leads = history(at_once(NOW, 1), name="leads", features=[HistoryColumn("value", "x")])
    agents = History(
        "agents",
        pd.DataFrame({"agent": [7], "at": [NOW], "y": [2.5]}),
        keys={"agent_id": "agent"},
        event_time="at",
    )
    frame = spine(("a", NOW), ("b", NOW)).assign(agent_id=[8, 7])
    rows = join_histories(frame, [leads, agents])
    assert rows["x"].tolist() == [1, pd.NA]
    assert np.array_equal(rows["y"], [np.nan, 2.5], equal_nan=True)


def test_23_a_history_about_nobody_gives_each_row_the_newest_of_its_time() -> None:
    source = pd.DataFrame({"at": [NOW - k * DAY for k in range(5)], "value": range(5)})
    h = history(source=source, keys=(), created_time=None, ttl=3 * DAY)
    frame = spine(("a", NOW), ("b", NOW - DAY), (None, NOW - 2 * DAY), ("a", NOW + 3 * DAY))
    assert values(frame, h) == [0, 1, 2, None]


def test_24_one_entity_in_two_roles_gets_the_values_of_each() -> None:
    source = table(at_once(NOW, 1), at_once(NOW, 2, "b"))
    roles = [
        history(source=source, name=role, keys={f"{role}_id": "entity_id"})
        for role in ("referrer", "referred")
    ]
    frame = pd.DataFrame(
        {"referrer_id": ["a", "b"], "referred_id": ["b", "a"], "as_of": [NOW, NOW]}
    )
    rows = join_histories(frame, roles, full_names=True)
    assert rows["referrer__value"].tolist() == [1, 2]
    assert rows["referred__value"].tolist() == [2, 1]


def test_25_columns_are_renamed_and_typed_as_declared() -> None:
    wanted = [
        HistoryColumn("value", "amount", "double"),
        HistoryColumn("value", "label", "category"),
    ]
    rows = join_histories(spine(("a", NOW)), [history(at_once(NOW, 1), features=wanted)])
    assert rows["amount"].tolist() == [1.0]
    assert rows["label"].tolist() == ["1"]
    assert rows["amount"].dtype == np.float64


def test_25_a_value_that_can_t_take_the_declared_type_is_an_error_that_names_the_feature() -> None:
    source = table(at_once(NOW, 1)).assign(value=["one"])
    h = history(source=source, features=[HistoryColumn("value", type="integer")])
    with pytest.raises(HistoryError, match="feature value of history h is declared integer"):
        join_histories(spine(("a", NOW)), [h])


def test_26_full_names_carry_the_history_and_short_ones_do_not() -> None:
    h = history(at_once(NOW, 1))
    assert "h__value" in join_histories(spine(("a", NOW)), [h], full_names=True)
    assert "value" in join_histories(spine(("a", NOW)), [h], features=["h__value"])


def test_26_two_features_of_one_name_are_an_error_that_names_both_histories() -> None:
    two = [history(at_once(NOW, 1), name=name) for name in ("first", "second")]
    with pytest.raises(HistoryError, match=r"named value.*first and second.*full_names=True"):
        join_histories(spine(("a", NOW)), two)
    with pytest.raises(HistoryError, match="value is a feature of first and second; say which"):
        join_histories(spine(("a", NOW)), two, features=["value"])
    rows = join_histories(spine(("a", NOW)), two, full_names=True)
    assert list(rows.columns[2:]) == ["first__value", "second__value"]


def test_27_an_unknown_feature_is_an_error_that_offers_what_is_near() -> None:
    with pytest.raises(HistoryError, match="no feature named valeu; did you mean value"):
        join_histories(spine(("a", NOW)), [history(at_once(NOW, 1))], features=["valeu"])


@pytest.mark.parametrize(
    "more",
    [{"keys": "lead"}, {"event_time": "lead"}, {"created_time": "lead"}, {"features": ["lead"]}],
)
def test_27_a_column_that_a_history_lacks_is_an_error_that_names_it(more: Any) -> None:
    frame = spine(("a", NOW)).assign(lead="a")
    with pytest.raises(HistoryError, match="history h has no column lead"):
        join_histories(frame, [history(at_once(NOW, 1), **more)])


def test_28_a_column_of_the_spine_named_like_a_feature_is_an_error_that_says_so() -> None:
    frame = spine(("a", NOW)).assign(value=1)
    with pytest.raises(SpineError, match="column named value, as a feature is"):
        join_histories(frame, [history(at_once(NOW, 1))])
    assert "h__value" in join_histories(frame, [history(at_once(NOW, 1))], full_names=True)


@pytest.mark.parametrize("change", [{"drop": True}, {"twice": True}])
def test_28_a_key_or_time_that_is_missing_or_doubled_is_an_error_that_names_it(
    change: dict[str, bool],
) -> None:
    for name in ("entity_id", "as_of"):
        frame = spine(("a", NOW))
        frame = frame.drop(columns=name) if "drop" in change else frame[[*frame.columns, name]]
        with pytest.raises(SpineError, match=f"exactly one column {name}"):
            join_histories(frame, [history(at_once(NOW, 1))])


def test_29_types_survive_and_do_not_depend_on_what_is_missing(tmp_path: Path) -> None:
    values_of = {
        "small": pa.array([2**31 - 1], pa.int32()),
        "large": pa.array([2**63 - 1], pa.int64()),
        "number": pa.array([0.1 + 0.2], pa.float64()),
        "yes": pa.array([True]),
        "text": pa.array(["ü"]),
        "list": pa.array([[1, None]], pa.list_(pa.int64())),
        "day": pa.array([date(2026, 1, 2)]),
        "moment": pa.array([NOW], pa.timestamp("us", "UTC")),
    }
    source = pa.table({"entity_id": ["a"], "at": pa.array([NOW]), **values_of})
    pq.write_table(source, tmp_path / "types.parquet")
    forms = (source, tmp_path / "types.parquet", f"FROM '{tmp_path}/types.parquet'")
    for form in forms:
        h = history(source=form, created_time=None)
        hit = join_histories(spine(("a", NOW)), [h])
        both = join_histories(spine(("a", NOW), ("b", NOW)), [h])
        assert both.dtypes.to_dict() == hit.dtypes.to_dict()
        assert [str(t) for t in both.dtypes[2:]] == [
            *("Int32", "Int64", "float64", "boolean", "object", "object", "object"),
            "datetime64[us, UTC]",
        ]
        for name, column in values_of.items():
            assert both[name][0] == column[0].as_py(), name
            assert pd.isna(both[name][1]), name


def test_30_a_spine_of_sql_equals_the_same_spine_as_a_frame(tmp_path: Path) -> None:
    frame = spine(("a", NOW), ("b", NOW - HOUR), ("c", NOW)).assign(
        label=pd.array([1, 0, 1], dtype="Int64")
    )
    frame.to_parquet(tmp_path / "spine.parquet")
    h = history(at_once(NOW, 1), at_once(NOW - DAY, 2, "b"))
    pd.testing.assert_frame_equal(
        join_histories(f"FROM '{tmp_path}/spine.parquet'", [h]), join_histories(frame, [h])
    )


def test_30_sql_for_a_spine_can_read_the_histories_themselves() -> None:
    h = history(at_once(NOW, 1), at_once(NOW + DAY, 2), name="known")
    rows = join_histories('SELECT entity_id, "at" AS as_of FROM known ORDER BY 2', [h])
    assert rows["value"].tolist() == [1, 2]


def test_32_without_a_spine_all_entities_between_two_times_are_there_each_once() -> None:
    h = history(
        at_once(NOW - DAY, 1, "too old"),
        at_once(NOW - HOUR, 2, "in"),
        at_once(NOW - 2 * HOUR, 3, "in"),
        at_once(NOW, 4, "at the end"),
        at_once(NOW + MICROSECOND, 5, "too new"),
        ("not known", NOW - HOUR, NOW + HOUR, 6),
        (None, NOW - HOUR, NOW - HOUR, 7),
    )
    frame = entities_between(h, NOW - DAY, NOW)
    pd.testing.assert_frame_equal(frame, spine(("at the end", NOW), ("in", NOW)))
    assert values(frame, h) == [4, 2]


def test_32_without_a_spine_entities_can_be_looked_at_again_and_again() -> None:
    h = history(at_once(NOW - DAY, 1), at_once(NOW - HOUR, 2, "b"))
    frame = entities_between(h, NOW - 2 * DAY, NOW, every=timedelta(hours=16))
    assert list(zip(frame["entity_id"], frame["as_of"], strict=True)) == [
        ("a", NOW - timedelta(hours=16)),
        ("a", NOW),
        ("b", NOW),
    ]


def test_33_histories_over_one_source_may_have_different_times_to_live() -> None:
    source = table(at_once(NOW - 2 * DAY, 1))
    short, long = (history(source=source, name=f"days_{days}", ttl=days * DAY) for days in (1, 3))
    rows = join_histories(spine(("a", NOW)), [short, long], full_names=True)
    assert rows[["days_1__value", "days_3__value"]].to_numpy().tolist() == [[pd.NA, 1]]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
def test_35_in_chunks_equals_at_once(chunk_rows: int) -> None:
    rng = np.random.default_rng(5)
    h = random_history(rng, 60)
    frame = random_spine(rng, 7)
    pd.testing.assert_frame_equal(
        join_histories(frame, [h], chunk_rows=chunk_rows), join_histories(frame, [h])
    )


def test_35_a_chunk_of_no_rows_is_refused() -> None:
    with pytest.raises(HistoryError, match="chunk_rows is 0"):
        join_histories(spine(("a", NOW)), [history(at_once(NOW, 1))], chunk_rows=0)


def test_36_an_arrow_spine_gives_arrow_with_the_same_values_as_a_frame() -> None:
    frame = spine(("b", NOW), ("a", NOW - HOUR)).assign(label=[1, 2])
    h = history(at_once(NOW - DAY, 1))
    arrow = join_histories(pa.Table.from_pandas(frame, preserve_index=False), [h])
    assert isinstance(arrow, pa.Table)
    assert arrow.drop_columns("value").equals(pa.Table.from_pandas(frame, preserve_index=False))
    assert arrow["value"].to_pylist() == [None, 1]
    assert values(frame, h) == [None, 1]


def test_36_every_kind_of_source_gives_the_same_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    h = random_history(rng, 300)
    frame = random_spine(rng, 200)
    source: pd.DataFrame = h.source  # type: ignore[assignment]
    source.to_parquet(tmp_path / "all.parquet", row_group_size=50)
    source[:100].to_parquet(tmp_path / "part-0.parquet")
    source[100:].to_parquet(tmp_path / "part-1.parquet")
    expected = values(frame, h)
    assert any(v is not None for v in expected)
    for form in (
        pa.Table.from_pandas(source),
        tmp_path / "all.parquet",
        tmp_path / "part-*.parquet",
        [tmp_path / "part-1.parquet", tmp_path / "part-0.parquet"],
        f"FROM '{tmp_path}/all.parquet'",
    ):
        assert values(frame, history(source=form, ttl=h.ttl)) == expected


def test_a_source_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"nothing\.parquet, a source of history h, does not"):
        join_histories(spine(("a", NOW)), [history(source=tmp_path / "nothing.parquet")])


def test_38_a_correction_of_a_past_value_wins_from_the_moment_it_is_known() -> None:
    rows = [at_once(NOW - DAY, 1), ("a", NOW - DAY, NOW, 2)]
    frame = spine(("a", NOW - MICROSECOND), ("a", NOW))
    assert values(frame, history(*rows)) == [1, 2]


def oracle(source: pd.DataFrame, who: Any, t: datetime, ttl: timedelta | None) -> Any:
    """The definition, row by row in plain Python."""
    best: Any = None
    for row in source.itertuples():
        known = row.at if pd.isna(row.known) else row.known
        if pd.isna(who) or row.entity_id != who or pd.isna(row.at) or row.at > t or known > t:
            continue
        if ttl is not None and not t - ttl < row.at:
            continue
        value = -1 if pd.isna(row.value) else row.value
        best = max(best, (row.at, known, value)) if best else (row.at, known, value)
    return None if best is None or best[2] == -1 else best[2]


def random_history(rng: np.random.Generator, rows: int) -> History:
    """Few entities and moments, so that ties, late arrivals and misses are frequent."""
    minutes = rng.integers(0, 12, rows)
    late = rng.choice([0, 0, 1, 5], rows)

    def moment(minute: int) -> datetime:
        return NOW + int(minute) * MICROSECOND

    return history(
        *(
            (
                None if rng.random() < 0.05 else f"e{rng.integers(0, 4)}",
                None if rng.random() < 0.03 else moment(minutes[i]),
                None if rng.random() < 0.1 else moment(minutes[i] + late[i]),
                None if rng.random() < 0.1 else int(rng.integers(0, 50)),
            )
            for i in range(rows)
        ),
        ttl=rng.choice([None, 1 * MICROSECOND, 5 * MICROSECOND]),
    )


def random_spine(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return spine(
        *(
            (
                None if rng.random() < 0.05 else f"e{rng.integers(0, 5)}",
                NOW + int(rng.integers(-1, 18)) * MICROSECOND,
            )
            for _ in range(rows)
        )
    )


PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(seed=st.integers(0, 1_000_000), rows=st.integers(0, 60))
def test_39_every_value_is_that_of_a_search_through_all_rows(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    h = random_history(rng, rows)
    frame = random_spine(rng, 30)
    source: Any = h.source
    assert values(frame, h) == [
        oracle(source, row.entity_id, row.as_of, h.ttl) for row in frame.itertuples()
    ]


@PROPERTY
@given(seed=st.integers(0, 1_000_000))
def test_deleting_everything_after_the_moment_changes_no_value_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h = random_history(rng, 80)
    moment = NOW + int(rng.integers(0, 12)) * MICROSECOND
    numbers = rng.standard_normal(80)
    source = h.source.assign(number=numbers)  # type: ignore[union-attr]
    known = source["known"].fillna(source["at"])
    past = source[(source["at"] <= moment) & (known <= moment)]
    frame = spine(*((f"e{k}", moment) for k in range(5)), (None, moment))
    whole, only_past = (
        join_histories(frame, [history(source=rows, ttl=h.ttl)], threads=1)
        for rows in (source, past)
    )
    pd.testing.assert_frame_equal(whole, only_past, check_exact=True)
    assert whole["number"].to_numpy().tobytes() == only_past["number"].to_numpy().tobytes()


def test_hundreds_of_thousands_of_rows_are_joined_exactly() -> None:
    rng = np.random.default_rng(11)
    entities, depth, asked = 20_000, 15, 200_000
    who = np.repeat(np.arange(entities), depth)
    start = int(pd.Timestamp(NOW).value // 1000)
    at = start + rng.integers(0, 10**12, len(who))
    number = np.arange(len(who))
    source = pa.table(
        {
            "entity_id": who,
            "at": pa.array(at).cast(pa.timestamp("us", "UTC")),
            "value": number,
        }
    )
    asked_who = rng.integers(0, entities, asked)
    asked_at = start + rng.integers(0, 10**12, asked)
    frame = pd.DataFrame(
        {"entity_id": asked_who, "as_of": pd.to_datetime(asked_at, unit="us", utc=True)}
    )
    rows = join_histories(frame, [history(source=source, created_time=None)])
    # By another road: the last row of the entity before the moment, in one sorted list.
    order = np.lexsort((at, who))
    ranked = who[order] * 10**13 + (at[order] - start)
    place = np.searchsorted(ranked, asked_who * 10**13 + (asked_at - start), side="right") - 1
    hit = (place >= 0) & (who[order][place] == asked_who)
    expected = pd.array(np.where(hit, number[order][place], 0), dtype="Int64")
    expected[~hit] = pd.NA
    pd.testing.assert_extension_array_equal(rows["value"].array, expected)


class Profiled:
    """A connection that notes how many rows each operator of each statement put out."""

    def __init__(self, connection: Any, output: Path) -> None:
        self._connection = connection
        self._output = output
        self.most = 0
        connection.execute("PRAGMA enable_profiling = 'json'")
        connection.execute(f"PRAGMA profiling_output = '{output}'")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *args: Any) -> Any:
        result = self._connection.execute(*args)
        if self._output.exists():
            for operator in json.loads(self._output.read_text(encoding="utf-8"))["operator"]:
                self._note(operator)
            self._output.unlink()
        return result

    def _note(self, operator: dict[str, Any]) -> None:
        self.most = max(self.most, operator["intermediate_rows"])
        for child in operator.get("children", ()):
            self._note(child)


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[Callable[[], Profiled]]:
    with bounded_connection(threads=1) as connection:
        yield lambda: Profiled(connection, tmp_path / "profile.json")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("asked", [40, 3_000])
def test_a_deep_history_is_never_paired_row_by_row(
    profiled: Callable[[], Profiled], late: bool, asked: int
) -> None:
    # 100 leads with 1,000 rows each: pairs would be 1,000 for every row of the spine.
    entities, depth = 100, 1_000
    who = np.repeat([f"lead_{k}" for k in range(entities)], depth)
    at = pd.to_datetime(
        int(pd.Timestamp(NOW).value // 1000) + np.tile(np.arange(depth), entities) * 10**6,
        unit="us",
        utc=True,
    )
    known = at + pd.to_timedelta(np.arange(len(at)) % 7 * 10**6 if late else 0, unit="us")
    source = pd.DataFrame({"entity_id": who, "at": at, "known": known, "value": range(len(at))})
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "entity_id": who[rng.integers(0, len(who), asked)],
            "as_of": at[rng.integers(0, len(at), asked)],
        }
    )
    connection = profiled()
    rows = join_within(connection, frame, [history(source=source)])  # type: ignore[arg-type]
    assert rows["value"].notna().mean() > 0.9
    assert entities * depth <= connection.most <= entities * depth + asked


def test_many_copies_of_one_row_are_not_paired_with_the_rows_that_ask_for_it(
    profiled: Callable[[], Profiled],
) -> None:
    copies, asked = 2_000, 2_000
    source = pd.DataFrame(
        {"entity_id": "a", "at": [NOW] * copies, "known": [NOW] * copies, "value": range(copies)}
    )
    frame = spine(*(("a", NOW + k * MICROSECOND) for k in range(asked)))
    connection = profiled()
    rows = join_within(connection, frame, [history(source=source)])  # type: ignore[arg-type]
    assert set(rows["value"]) == {copies - 1}
    assert connection.most <= copies + asked


def declared(**more: Any) -> Sequence[str]:
    with pytest.raises(HistoryError) as error:
        history(at_once(NOW, 1), **more)
    return str(error.value)


def test_a_declaration_without_meaning_is_refused_by_name() -> None:
    assert "named 'no name'" in declared(name="no name")
    assert "history h has ttl" in declared(ttl=timedelta(0))
    assert "two features named value" in declared(features=["value", "value"])
    assert "has type 'text'" in declared(
        features=[HistoryColumn("value", type="text")]  # type: ignore[arg-type]
    )
    assert "are one text" in declared(features="value")
    with pytest.raises(HistoryError, match="two histories are named h"):
        join_histories(spine(("a", NOW)), [history(at_once(NOW, 1)), history(at_once(NOW, 1))])
