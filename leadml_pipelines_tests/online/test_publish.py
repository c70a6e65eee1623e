"""Publication against a real Redis: what goes online, what is held back, what is seen when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis

from leadml_pipelines.features.view import Feature
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.store import OnlineStore, Written
from leadml_pipelines.times import NaiveTimeError, utc_now
from leadml_pipelines_tests.online.frames import expected, lead_features, lead_frame

FEATURES = [
    Feature("rate", "double", "share", 0, 1, None, "a rate", "fit"),
    Feature("events", "integer", "events", 0, None, 0, "a count", "fit"),
    Feature("known", "boolean", "", None, None, None, "a fact", "fit"),
    Feature("word", "category", "", None, None, None, "a word", "fit"),
]


def _frame(**columns: Any) -> pd.DataFrame:
    base: dict[str, Any] = {
        "entity_id": ["a", "b"],
        "rate": [0.5, 0.25],
        "events": pd.array([1, 2], "Int64"),
        "known": pd.array([True, False], "boolean"),
        "word": ["x", "y"],
    }
    return pd.DataFrame({**base, **columns})


def _online(store: OnlineStore, name: str, ids: tuple[str, ...] = ("a", "b")) -> list[Any]:
    rows = store.read_batch("lead", ids).python_rows()
    return [None if row is None else row[name] for row in rows]


def test_every_value_of_the_catalogue_comes_back_with_its_type(store: OnlineStore) -> None:
    ids = [f"lead_{i}" for i in range(50)]
    frame = lead_frame(ids, missing=0.3)
    published = publish_snapshot(store, "lead", lead_features(), frame, utc_now())
    assert (published.written, published.held_back) == (50, 0)
    rows = store.read_batch("lead", ids).python_rows()
    for entity_id, row in zip(ids, rows, strict=True):
        wanted = expected(frame, entity_id)
        assert row == wanted
        assert {n: type(v) for n, v in row.items()} == {n: type(v) for n, v in wanted.items()}


def test_value_outside_of_its_range_is_held_back_and_counted(store: OnlineStore) -> None:
    frame = _frame(rate=[1.5, 0.25], events=pd.array([-1, 2], "Int64"))
    published = publish_snapshot(store, "lead", FEATURES, frame, utc_now())
    assert published.written == 2
    assert published.held_back == 2
    assert published.reasons == {"rate: out of range": 1, "events: out of range": 1}
    assert _online(store, "rate") == [None, 0.25]
    assert _online(store, "events") == [None, 2]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_value_is_held_back(store: OnlineStore, value: float) -> None:
    published = publish_snapshot(store, "lead", FEATURES, _frame(rate=[value, 0.1]), utc_now())
    assert published.reasons == {"rate: out of range": 1}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("rate", ["0.5", 0.25]),
        ("rate", [True, 0.25]),
        ("events", [1.5, 2.0]),
        ("events", [2.0**53 + 2, 2.0]),
        ("events", ["1", 2]),
        ("known", [1, False]),
        ("word", [7, "y"]),
    ],
)
def test_value_of_a_wrong_type_is_held_back_and_counted(
    store: OnlineStore, column: str, values: list[Any]
) -> None:
    mixed = any(type(v) is not type(values[0]) for v in values)
    frame = _frame(**{column: pd.Series(values, dtype=object if mixed else None)})
    published = publish_snapshot(store, "lead", FEATURES, frame, utc_now())
    assert published.reasons == {f"{column}: wrong type": 1}
    first, second = _online(store, column)
    assert first is None
    assert second == values[1]


def test_column_of_a_wrong_type_is_held_back_whole(store: OnlineStore) -> None:
    published = publish_snapshot(store, "lead", FEATURES, _frame(known=[0.0, 1.0]), utc_now())
    assert published.reasons == {"known: wrong type": 2}


def test_nullable_objects_of_a_right_type_go_online(store: OnlineStore) -> None:
    frame = _frame(known=pd.Series([True, None], dtype=object))
    assert publish_snapshot(store, "lead", FEATURES, frame, utc_now()).held_back == 0
    assert _online(store, "known") == [True, None]


def test_id_that_can_be_no_key_is_held_back_alone(store: OnlineStore) -> None:
    frame = _frame(entity_id=["a", "b\n"])
    published = publish_snapshot(store, "lead", FEATURES, frame, utc_now())
    assert published.written == 1
    assert published.reasons == {"entity_id: can be no key": 1}


def test_snapshot_from_the_future_is_held_back(store: OnlineStore) -> None:
    frame = _frame(as_of=[utc_now() + timedelta(days=1), utc_now()])
    published = publish_snapshot(store, "lead", FEATURES, frame, utc_now())
    assert published.written == 1
    assert published.reasons == {"as_of: in the future": 1}


def test_newer_value_online_is_kept_and_counted(store: OnlineStore) -> None:
    now = utc_now()
    publish_snapshot(store, "lead", FEATURES, _frame(rate=[0.9, 0.9]), now)
    older = publish_snapshot(store, "lead", FEATURES, _frame(), now - timedelta(hours=1))
    assert (older.written, older.kept_newer, older.is_current) == (0, 2, False)
    assert _online(store, "rate") == [0.9, 0.9]
    assert store.snapshot_as_of("lead") == now


def test_second_publication_of_a_snapshot_changes_nothing(store: OnlineStore) -> None:
    now = utc_now()
    first = publish_snapshot(store, "lead", FEATURES, _frame(), now)
    second = publish_snapshot(store, "lead", FEATURES, _frame(), now)
    assert second.schema_id == first.schema_id
    assert second.is_current
    assert _online(store, "word") == ["x", "y"]


def test_an_event_since_the_rows_were_read_wins_over_a_snapshot_of_the_same_moment(
    store: OnlineStore,
) -> None:
    """The present of a historical data set stands still, so that only `computed_at` tells."""
    as_of, read = utc_now() - timedelta(days=90), utc_now() - timedelta(seconds=30)
    store.invalidate("lead", ["a"], as_of, read + timedelta(seconds=10))
    published = publish_snapshot(store, "lead", FEATURES, _frame(), as_of, computed_at=read)
    assert (published.written, published.kept_newer) == (1, 1)
    assert store.read_batch("lead", ["a", "b"]).missing() == [0]


def test_half_published_snapshot_is_not_visible_as_whole(store: OnlineStore) -> None:
    """The second chunk fails: some entities are new, and the pointer still names the old one."""
    old = utc_now() - timedelta(hours=1)
    ids = [f"lead_{i}" for i in range(20_001)]
    columns = {"entity_id": ids, "rate": 0.1, "events": 1, "known": True, "word": "x"}
    frame = pd.DataFrame(columns)
    publish_snapshot(store, "lead", FEATURES, frame.head(10), old)

    class Failing(OnlineStore):
        def write_batch(self, *args: Any, **kwargs: Any) -> Written:
            if args[1][0] != "lead_0":
                raise redis.ConnectionError("gone")
            return super().write_batch(*args, **kwargs)

    store.__class__ = Failing
    with pytest.raises(redis.ConnectionError):
        publish_snapshot(
            store, "lead", FEATURES, frame.assign(word="new word"), old + timedelta(minutes=1)
        )
    assert store.snapshot_as_of("lead") == old
    schema = store.current_schema("lead")
    assert schema is not None
    assert schema.fields[3].vocabulary == ("x",)
    assert _online(store, "word", ("lead_0",)) == ["new word"]


def test_new_word_keeps_the_codes_of_the_old_ones(store: OnlineStore) -> None:
    now = utc_now()
    publish_snapshot(store, "lead", FEATURES, _frame(word=["m", "z"]), now)
    publish_snapshot(store, "lead", FEATURES, _frame(entity_id=["c", "d"], word=["a", "z"]), now)
    schema = store.current_schema("lead")
    assert schema is not None
    assert schema.fields[3].vocabulary == ("m", "z", "a")
    assert _online(store, "word", ("a", "b", "c", "d")) == ["m", "z", "a", "z"]


def test_rows_may_have_moments_of_their_own(store: OnlineStore) -> None:
    now = utc_now()
    earlier = now - timedelta(minutes=5)
    moments = pd.Series([earlier, now]).astype("datetime64[us, UTC]")
    publish_snapshot(store, "lead", FEATURES, _frame(as_of=moments, computed_at=moments), now)
    batch = store.read_batch("lead", ["a", "b"])
    assert np.diff(batch.as_of()).tolist() == [300_000_000]
    assert np.diff(batch.groups[0].computed_at).tolist() == [300_000_000]


def test_naive_moment_is_refused(store: OnlineStore) -> None:
    with pytest.raises(NaiveTimeError, match="as_of"):
        publish_snapshot(store, "lead", FEATURES, _frame(), datetime(2026, 1, 1))
    naive = _frame(as_of=pd.to_datetime(["2026-01-01", "2026-01-01"]))
    with pytest.raises(NaiveTimeError, match="column as_of"):
        publish_snapshot(store, "lead", FEATURES, naive, utc_now())


def test_frame_without_a_feature_is_refused_by_name(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="lacks 1 of the lead features: rate"):
        publish_snapshot(store, "lead", FEATURES, _frame().drop(columns="rate"), utc_now())


def test_empty_snapshot_is_published_as_empty(store: OnlineStore) -> None:
    now = utc_now()
    published = publish_snapshot(store, "lead", FEATURES, _frame().head(0), now)
    assert (published.written, published.is_current) == (0, True)


def test_progress_ends_with_all_of_them(store: OnlineStore) -> None:
    seen: list[tuple[int, int]] = []
    publish_snapshot(
        store, "lead", FEATURES, _frame(), utc_now(), lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 2)]
