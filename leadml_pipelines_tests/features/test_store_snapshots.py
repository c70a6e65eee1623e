"""Training sets from snapshots in PostgreSQL.

Of case 37 the offline half is here: a training set as of a snapshot equals what is published.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.histories import HistoryError
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.reading import read_latest
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.features.store import FeatureStore
from leadml_pipelines.features.view import Feature
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.snapshots import things
from leadml_pipelines_tests.features.snapshots.things import BODY, HEIGHT
from leadml_pipelines_tests.features.stores import ALL, DAY, VIEWS
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, random_world, spine

MIND = replace(things.MIND, ttl=2 * DAY)
THINGS = Catalogue([BODY, MIND])


def write(url: str, as_of: datetime, number: int, *ids: str, check: bool = True) -> None:
    keys = {
        "entity_id": pd.Series(ids, dtype=object),
        "as_of": pd.Series([as_of] * len(ids), dtype="datetime64[us, UTC]"),
    }
    body = pd.DataFrame({**keys, "height": float(number), "level": [None] * len(ids)})
    mind = pd.DataFrame({**keys, "good": number > 1, "kind": f"k{number}"})
    write_view_snapshot(url, BODY, body.astype({"level": "Int64"}), as_of)
    write_view_snapshot(url, MIND, mind, as_of)
    if check:
        assert check_snapshot(url, THINGS, "thing", as_of).sound


def of_snapshots(url: str, frame: Any, *names: str, **more: Any) -> Any:
    with FeatureStore(postgres_url=url, catalogue=THINGS) as opened:
        return opened.training_set(frame, names, source="snapshots", **more).frame


def test_the_newest_snapshot_not_after_each_rows_time_is_taken(no_snapshots: str) -> None:
    write(no_snapshots, NOW, 2, "a")
    # Written last about an earlier moment, as a backfill does: its creation time hides nothing.
    write(no_snapshots, NOW - DAY, 1, "a", "b")
    frame = spine(
        ("a", NOW - DAY - MICROSECOND), ("b", NOW), ("a", NOW), ("a", NOW - MICROSECOND), ("c", NOW)
    )
    rows = of_snapshots(no_snapshots, frame, "height", "kind", "level", "good")
    pd.testing.assert_frame_equal(
        rows,
        frame.assign(
            height=[np.nan, 1.0, 2.0, 1.0, np.nan],
            kind=pd.Series([None, "k1", "k2", "k1", None], dtype=object),
            level=pd.array([None] * 5, dtype="Int64"),
            good=pd.array([None, False, True, False, None], dtype="boolean"),
        ),
    )


def test_each_views_time_to_live_is_applied_from_each_rows_own_time(no_snapshots: str) -> None:
    write(no_snapshots, NOW, 1, "a")
    frame = spine(("a", NOW + 2 * DAY - MICROSECOND), ("a", NOW + 2 * DAY))
    rows = of_snapshots(no_snapshots, frame, "height", "kind")
    assert rows["height"].tolist() == [1.0, 1.0]
    assert rows["kind"].tolist() == ["k1", None]


def test_18_zones_may_be_mixed_in_a_spine_for_snapshots(no_snapshots: str) -> None:
    write(no_snapshots, NOW - DAY, 1, "a")
    write(no_snapshots, NOW, 2, "a")
    times = [NOW.astimezone(ZoneInfo("Asia/Tokyo")), NOW - MICROSECOND]
    frame = pd.DataFrame({"entity_id": "a", "as_of": pd.Series(times, dtype=object)})
    assert of_snapshots(no_snapshots, frame, "height")["height"].tolist() == [2.0, 1.0]


def test_a_snapshot_that_was_not_checked_is_not_seen(no_snapshots: str) -> None:
    write(no_snapshots, NOW - DAY, 1, "a")
    write(no_snapshots, NOW, 2, "a", check=False)
    assert of_snapshots(no_snapshots, spine(("a", NOW)), "height")["height"].tolist() == [1.0]


def test_a_feature_that_was_added_since_is_missing_before(no_snapshots: str) -> None:
    write(no_snapshots, NOW, 1, "a")
    added = Feature("added", "integer", "", None, None, 5, "Added.", "fit")
    things = Catalogue([replace(BODY, features=(HEIGHT, added)), MIND])
    with FeatureStore(postgres_url=no_snapshots, catalogue=things) as opened:
        rows = opened.training_set(spine(("a", NOW)), ["added", "height"], source="snapshots")
    assert rows.frame[["added", "height"]].to_numpy().tolist() == [[pd.NA, 1.0]]


def test_a_view_that_was_never_written_is_an_error_that_says_what_to_do(no_snapshots: str) -> None:
    with pytest.raises(HistoryError, match="no snapshot of view body was ever written"):
        of_snapshots(no_snapshots, spine(("a", NOW)), "height")


def test_35_36_snapshots_in_chunks_and_as_arrow_equal_a_frame_at_once(no_snapshots: str) -> None:
    for k in range(3):
        write(no_snapshots, NOW - k * DAY, k, *"abc"[k:])
    frame = spine(*((i, NOW - h * timedelta(hours=13)) for i in "abcd" for h in range(6)))
    whole = of_snapshots(no_snapshots, frame, "height", "kind")
    pd.testing.assert_frame_equal(
        of_snapshots(no_snapshots, frame, "height", "kind", chunk_rows=5), whole
    )
    arrow = of_snapshots(
        no_snapshots, pa.Table.from_pandas(frame, preserve_index=False), "height", "kind"
    )
    assert arrow["kind"].to_pylist() == whole["kind"].tolist()
    empty = of_snapshots(no_snapshots, frame[:0], "height", "kind")
    assert empty.dtypes.to_dict() == whole.dtypes.to_dict()


def test_37_as_of_a_snapshot_a_training_set_equals_what_is_published_from_it(
    no_snapshots: str, bulk: Bulk, open_store: Any
) -> None:
    world = random_world(9)
    frame = spine(*((row["lead_id"], NOW) for row in world.tables["leads"]))
    engine = bulk(world)
    for view in VIEWS:
        write_view_snapshot(no_snapshots, view, engine.compute([view], frame), NOW)
    assert check_snapshot(no_snapshots, catalogue(), "lead", NOW).sound
    published = read_latest(no_snapshots, "lead").frame
    opened = open_store(world, postgres_url=no_snapshots)
    stored = opened.training_set(published[["entity_id", "as_of"]], ALL, source="snapshots").frame
    pd.testing.assert_frame_equal(stored, published, check_exact=True)
    computed = opened.training_set(published[["entity_id", "as_of"]], ALL).frame
    pd.testing.assert_frame_equal(stored, computed, check_exact=True)
