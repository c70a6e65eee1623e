"""The feature store as a data scientist uses it.

The cases of a point-in-time join are in `test_point_in_time.py` (over histories) and
`test_training_set.py` (over raw events); here are those that lie with the store: which features,
from where, for whom, and what is saved. Case 32 is here for entity types, and of case 37 the
offline half: a training set as of a snapshot equals what is published from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError, catalogue
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.histories import HistoryError
from leadml_pipelines.features.labels import LabelError, SqlLabel
from leadml_pipelines.features.request_features import RequestDataError, RequestFeature
from leadml_pipelines.features.saved_sets import NoSavedSetError, SavedSetError, save_set
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.reading import read_latest
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.features.store import FeatureStore, RebuildError
from leadml_pipelines.features.training_set import training_set
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError, to_micros
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import (
    MICROSECOND,
    NOW,
    World,
    random_world,
    spine,
)
from leadml_pipelines_tests.tables import empty_tables

DAY = timedelta(days=1)
VIEWS = catalogue().views("lead")
ALL = [feature.name for view in VIEWS for feature in view.features]


@dataclass(frozen=True)
class Told:
    """An extract, as far as the store cares."""

    extract_id: str = "20260412"
    as_of: datetime = NOW
    data_end: datetime = NOW


@pytest.fixture
def store(bulk: Bulk, tmp_path: Path) -> Iterator[Callable[..., FeatureStore]]:
    """Opens a store over a world."""
    with ExitStack() as stack:

        def open_(world: World, **more: Any) -> FeatureStore:
            given = {"engine": bulk(world), "extract": Told(), "root": tmp_path / "sets", **more}
            return stack.enter_context(FeatureStore(**given))

        yield open_


def lead(*events: timedelta) -> World:
    world = World().lead("a", NOW - 100 * DAY)
    for ago in events:
        world.event("a", NOW - ago)
    return world


def test_only_the_features_asked_for_come_out_in_the_order_asked_for(store: Any) -> None:
    built = store(lead(DAY)).training_set(spine(("a", NOW)), ["source", "inbound_count_7d"])
    assert list(built.frame.columns) == ["entity_id", "as_of", "source", "inbound_count_7d"]
    assert built.x.to_numpy().tolist() == [["web", 1]]


def test_values_from_events_are_those_of_all_views_computed_at_once(store: Any, bulk: Bulk) -> None:
    world = random_world(3)
    frame = spine(
        *((f"lead_{k}", NOW - d * DAY) for k in range(6) for d in (0, 3)), ("nobody", NOW)
    )
    frame.index = pd.Index(range(len(frame)))[::-1]
    built = store(world).training_set(frame, ALL).frame
    pd.testing.assert_frame_equal(built, training_set(frame, VIEWS, bulk(world)))


def test_27_unknown_features_are_all_named_with_what_is_near(store: Any) -> None:
    with pytest.raises(
        UnknownFeatureError, match=r"named inbound_count_7;.*did you mean.*named zzz"
    ):
        store(lead()).training_set(spine(("a", NOW)), ["inbound_count_7", "source", "zzz"])


def test_a_feature_asked_for_twice_and_one_text_for_a_list_are_refused(store: Any) -> None:
    opened = store(lead())
    with pytest.raises(UnknownFeatureError, match="asked for twice: source"):
        opened.training_set(spine(("a", NOW)), ["source", "age", "source"])
    with pytest.raises(UnknownFeatureError, match="one text; give a list"):
        opened.training_set(spine(("a", NOW)), "source")


def test_28_a_column_named_like_a_feature_is_an_error_only_if_that_feature_is_asked_for(
    store: Any,
) -> None:
    frame = spine(("a", NOW)).assign(source="mine")
    opened = store(lead())
    with pytest.raises(SpineError, match="column named source, as a feature is"):
        opened.training_set(frame, ["source"])
    assert opened.training_set(frame, ["age"]).frame["source"].tolist() == ["mine"]


def test_22_features_of_several_entity_types_are_joined_each_by_its_own_key(store: Any) -> None:
    world = lead(DAY).add("agents", agent_id="x", capacity=3)
    frame = spine(("a", NOW), ("a", NOW)).assign(agent_id=["x", "unknown"])
    opened = store(world)
    built = opened.training_set(
        frame, ["capacity", "inbound_count_7d"], keys={"lead": "entity_id", "agent": "agent_id"}
    )
    assert built.x.to_numpy().tolist() == [[3, 1], [pd.NA, 1]]
    with pytest.raises(SpineError, match=r"several entity types.*'agent'"):
        opened.training_set(frame, ["capacity", "inbound_count_7d"])
    with pytest.raises(SpineError, match="features of agent, and keys names no column"):
        opened.training_set(frame, ["capacity"], keys={"lead": "entity_id"})


def test_24_one_entity_type_in_two_roles_gets_the_values_of_each(store: Any) -> None:
    world = lead(DAY).lead("b", NOW - 9 * DAY)
    frame = pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"], "as_of": [NOW, NOW]})
    opened = store(world)
    for role in ("from", "to"):
        frame = opened.training_set(
            frame, ["inbound_count_7d"], keys={"lead": role}, prefix=f"{role}_"
        ).frame
    assert frame["from_inbound_count_7d"].tolist() == [1, 0]
    assert frame["to_inbound_count_7d"].tolist() == [0, 1]


def test_30_a_spine_of_sql_equals_the_same_spine_as_a_frame(store: Any) -> None:
    opened = store(random_world(4))
    sql = "SELECT lead_id AS entity_id, created_at + INTERVAL 1 DAY AS as_of FROM leads ORDER BY 1"
    names = ["inbound_count_7d", "source"]
    told = {"extract": Told(as_of=NOW + 999 * DAY)}
    opened = store(random_world(4), **told)
    frame = opened.engine.sql(sql)
    assert len(frame) > 3
    pd.testing.assert_frame_equal(
        opened.training_set(sql, names).frame, opened.training_set(frame, names).frame
    )


@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
def test_35_in_chunks_equals_at_once(store: Any, chunk_rows: int) -> None:
    opened = store(random_world(6))
    frame = spine(*((f"lead_{k}", NOW - k * DAY) for k in range(9)))
    names = [name for name in ALL if name in ("inbound_count_30d", "stage", "quality_score")]
    pd.testing.assert_frame_equal(
        opened.training_set(frame, names, chunk_rows=chunk_rows).frame,
        opened.training_set(frame, names).frame,
    )


@pytest.mark.parametrize("source", ["events", "snapshots"])
@pytest.mark.parametrize("chunk_rows", [0, -3])
def test_35_a_chunk_without_a_row_is_refused(store: Any, source: str, chunk_rows: int) -> None:
    with pytest.raises(SpineError, match=f"chunk_rows is {chunk_rows}; a chunk has at least one"):
        store(lead()).training_set(
            spine(("a", NOW)), ["source"], source=source, chunk_rows=chunk_rows
        )


def test_36_an_arrow_spine_gives_arrow_with_the_same_values_as_a_frame(store: Any) -> None:
    opened = store(random_world(6))
    frame = spine(*((f"lead_{k}", NOW) for k in range(5)), (None, NOW)).assign(label=1)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    built = opened.training_set(table, ALL).frame
    assert isinstance(built, pa.Table)
    expected = opened.training_set(frame, ALL).x
    for name in ALL:
        given = [None if pd.isna(v) else v for v in built[name].to_pylist()]
        assert given == [None if pd.isna(v) else v for v in expected[name]], name


def test_17_an_empty_spine_works(store: Any) -> None:
    empty = pd.DataFrame({"entity_id": [], "as_of": []})
    built = store(lead()).training_set(empty, ["source", "inbound_count_7d"]).frame
    assert (len(built), list(built.columns)[2:]) == (0, ["source", "inbound_count_7d"])


def test_18_a_naive_time_is_refused_by_name(store: Any) -> None:
    frame = pd.DataFrame({"entity_id": ["a"], "when": [datetime(2026, 1, 1)]})
    with pytest.raises(NaiveTimeError, match="when"):
        store(lead()).training_set(frame, ["source"], time="when")


def test_a_row_after_all_that_the_extract_tells_is_refused(store: Any) -> None:
    frame = spine(("a", NOW), ("a", NOW + MICROSECOND))
    with pytest.raises(SpineError, match="1 of 2 rows of the spine lie after 2026-04-12"):
        store(lead()).training_set(frame, ["source"])


def per_day(days: int) -> RequestFeature:
    return RequestFeature(
        "amount_per_day",
        "double",
        ("amount",),
        lambda amount: amount / days,
        "Requested amount for each day.",
    )


def test_31_features_from_request_data_stand_beside_stored_ones(store: Any) -> None:
    frame = spine(("a", NOW)).assign(amount=[30])
    opened = store(lead(DAY), request_features=[per_day(10)])
    for wanted in ("amount_per_day", per_day(10)):
        built = opened.training_set(frame, [wanted, "source"])
        assert built.x.to_numpy().tolist() == [[3.0, "web"]]
    with pytest.raises(RequestDataError, match="amount_per_day is computed from amount, which is"):
        opened.training_set(frame.assign(amount=None), ["amount_per_day"])


def test_31_a_request_feature_named_like_a_feature_is_refused(store: Any) -> None:
    feature = replace(per_day(1), name="source")
    with pytest.raises(SpineError, match="request feature source has the name of a feature"):
        store(lead()).training_set(spine(("a", NOW)), [feature])


def test_32_without_a_spine_all_entities_that_existed_at_each_moment_are_there(store: Any) -> None:
    world = lead().lead("b", NOW - DAY).lead("c", NOW + MICROSECOND)
    opened = store(world)
    pd.testing.assert_frame_equal(
        opened.entities_between(NOW - DAY, NOW), spine(("a", NOW), ("b", NOW))
    )
    twice = opened.entities_between(NOW - 3 * DAY, NOW, every=1.5 * DAY)
    pd.testing.assert_frame_equal(twice, spine(("a", NOW - 1.5 * DAY), ("a", NOW), ("b", NOW)))
    assert len(opened.training_set(twice, ["source"]).frame) == 3
    with pytest.raises(HistoryError, match="the end must come after the start"):
        opened.entities_between(NOW, NOW)


BOUND = SqlLabel(
    "bound_7d",
    "SELECT m.row_id, count(p.policy_id) > 0 AS label FROM moments m LEFT JOIN policies p "
    "ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until GROUP BY 1",
    7 * DAY,
)


def test_a_label_is_a_column_of_the_spine_or_answered_by_sql(store: Any) -> None:
    world = lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY)
    opened = store(world)
    frame = spine(("a", NOW - 8 * DAY), ("a", NOW - 9.5 * DAY), ("a", NOW - 2 * DAY)).assign(
        mine=[1, 2, 3]
    )
    assert opened.training_set(frame, ["source"], "mine").y.tolist() == [1, 2, 3]
    answered = opened.training_set(frame, ["source"], BOUND)
    assert np.array_equal(answered.y, [1.0, 0.0, np.nan], equal_nan=True)
    with pytest.raises(SpineError, match="exactly one column yours"):
        opened.training_set(frame, ["source"], "yours")
    with pytest.raises(SpineError, match="has no label"):
        _ = opened.training_set(frame, ["source"]).y
    with pytest.raises(LabelError, match="bound_7d answered 0 rows for 2 moments"):
        opened.training_set(frame, ["source"], replace(BOUND, sql=BOUND.sql + " HAVING false"))


def test_34_a_saved_set_is_listed_read_back_and_built_again_to_the_same_hash(store: Any) -> None:
    opened = store(random_world(8))
    frame = spine(*((f"lead_{k}", NOW - k * DAY) for k in range(8)), (None, NOW)).assign(
        mine=pd.array([1] * 8 + [None], dtype="Int64"), words=[["x"]] * 9
    )
    frame.index = pd.Index([*"abcdefgh", "a"])
    built = opened.training_set(frame, ALL, "mine")
    saved = opened.save("mine", built)
    assert opened.saved("mine") == [saved]
    assert (saved.rows, saved.facts["origin"]) == (9, "20260412")
    assert saved.facts["data_end"] == to_micros(NOW)
    back = opened.load("mine")
    pd.testing.assert_frame_equal(back[ALL], built.frame[ALL], check_dtype=False, check_exact=True)
    assert opened.save("mine", opened.rebuild(saved)).hash == saved.hash
    assert len(opened.saved()) == 1


def test_34_a_set_with_a_label_in_sql_is_built_again_too(store: Any) -> None:
    opened = store(lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY))
    saved = opened.save("sql", opened.training_set(spine(("a", NOW - 8 * DAY)), ["age"], BOUND))
    assert opened.save("sql", opened.rebuild(saved)).hash == saved.hash


@pytest.mark.parametrize("source", ["events", "snapshots"])
def test_34_a_label_that_was_unknown_stays_so_when_the_data_have_moved_on(
    store: Any, clean: str, source: str
) -> None:
    world = random_world(9)
    frame = spine(*((row["lead_id"], NOW) for row in world.tables["leads"]))
    for view in VIEWS:
        computed = store(world).engine.compute([view], frame)
        write_view_snapshot(clean, view, computed, NOW)
    assert check_snapshot(clean, catalogue(), "lead", NOW).sound
    then = store(world, postgres_url=clean)
    rows = spine(("lead_1", NOW - 8 * DAY), ("lead_1", NOW - 2 * DAY))
    built = then.training_set(rows, ["age"], BOUND, source=source)
    assert np.isnan(built.y).tolist() == [False, True]
    saved = then.save("moved", built)
    later = Told("20260421", NOW + 9 * DAY, NOW + 9 * DAY)
    now = store(world, extract=later, postgres_url=clean)
    assert now.training_set(rows, ["age"], BOUND, source=source).y.notna().all()
    again = now.rebuild(saved)
    assert now.save("moved", again).hash == saved.hash
    assert again.facts["data_end"] == saved.facts["data_end"] == to_micros(NOW)


def test_34_an_outcome_that_came_late_changes_a_label_in_sql_and_is_noticed(store: Any) -> None:
    first = store(lead())
    saved = first.save("late", first.training_set(spine(("a", NOW - 8 * DAY)), ["age"], BOUND))
    late = store(lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY))
    with pytest.raises(RebuildError, match=r"came out differently.*: in bound_7d$"):
        late.rebuild(saved)


ELSEWHERE = """
import sys
from pathlib import Path

from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.store import FeatureStore
from leadml_pipelines_tests.features.test_store import ALL, Told
from leadml_pipelines_tests.features.world import NOW, spine

tables = {path.stem: path for path in Path(sys.argv[1]).glob("*.parquet")}
with (
    DuckDBEngine(tables, threads=1) as engine,
    FeatureStore(engine=engine, extract=Told(), root=Path(sys.argv[2])) as store,
):
    for saved in store.saved("mine"):
        store.rebuild(saved)
    print(store.save("mine", store.training_set(spine(("lead_1", NOW)), ALL)).hash)
"""


def test_34_a_set_is_built_again_to_the_same_hash_in_another_process(tmp_path: Path) -> None:
    """In each the hashes of texts, and so the order of sets, are other ones."""
    random_world(8).parquet(tmp_path / "world")
    hashes = {
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, tmp_path / "world", tmp_path / "sets"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_34_other_data_are_noticed_when_a_set_is_built_again(store: Any) -> None:
    frame = spine(("a", NOW))
    first = store(lead(DAY))
    saved = first.save("mine", first.training_set(frame, ["inbound_count_7d", "source"]))
    # What comes in late is not seen: the set stays what it was.
    late = store(lead(DAY).event("a", NOW - DAY, ingested_at=NOW + DAY))
    assert late.save("mine", late.rebuild(saved)).hash == saved.hash
    rewritten = store(lead(DAY, 2 * DAY))
    with pytest.raises(RebuildError, match=r"came out differently.*: in inbound_count_7d$"):
        rewritten.rebuild(saved)


def test_34_another_definition_of_a_view_is_noticed_when_a_set_is_built_again(store: Any) -> None:
    opened = store(lead(DAY))
    saved = opened.save("mine", opened.training_set(spine(("a", NOW)), ["source"]))
    # As if the view's SQL had been another when the set was saved.
    definition = {**saved.definition, "views": dict.fromkeys(saved.definition["views"], "other")}
    changed = save_set(opened.root, "mine", opened.load("mine"), definition)
    with pytest.raises(RebuildError, match="can't be built again: profile changed since"):
        opened.rebuild(changed)


def test_34_sets_that_are_not_the_stores_or_not_there_are_errors(
    store: Any, tmp_path: Path
) -> None:
    opened = store(lead())
    with pytest.raises(NoSavedSetError, match="no training set of nothing"):
        opened.load("nothing")
    foreign = save_set(tmp_path / "other", "model", spine(("a", NOW)), {"spec": "x"})
    with pytest.raises(SavedSetError, match="model was not saved by the feature store"):
        opened.rebuild(foreign)


# --- snapshots in PostgreSQL ---------------------------------------------------------------------


def never(_: object) -> object:
    raise AssertionError("a snapshot must not compile anything")


HEIGHT = Feature("height", "double", "m", None, None, None, "Height.", "fit")
LEVEL = Feature("level", "integer", "", None, None, 0, "Level.", "fit")
GOOD = Feature("good", "boolean", "", None, None, None, "Whether it is good.", "fit")
KIND = Feature("kind", "category", "", None, None, None, "Kind.", "fit")
BODY = FeatureView("body", "thing", "A body.", (HEIGHT, LEVEL), ("spine",), never)
MIND = FeatureView("mind", "thing", "A mind.", (GOOD, KIND), ("spine",), never, ttl=2 * DAY)
THINGS = Catalogue([BODY, MIND])


@pytest.fixture
def clean(postgres_url: str) -> Iterator[str]:
    yield postgres_url
    with connect(postgres_url) as connection:
        for view in (BODY, MIND, *VIEWS):
            connection.execute(f"DROP TABLE IF EXISTS leadml.feature_{view.name}".encode())
        empty_tables(connection, "leadml.feature_snapshots", "leadml.feature_view_snapshots")


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


def test_the_newest_snapshot_not_after_each_rows_time_is_taken(clean: str) -> None:
    write(clean, NOW, 2, "a")
    # Written last about an earlier moment, as a backfill does: its creation time hides nothing.
    write(clean, NOW - DAY, 1, "a", "b")
    frame = spine(
        ("a", NOW - DAY - MICROSECOND), ("b", NOW), ("a", NOW), ("a", NOW - MICROSECOND), ("c", NOW)
    )
    rows = of_snapshots(clean, frame, "height", "kind", "level", "good")
    pd.testing.assert_frame_equal(
        rows,
        frame.assign(
            height=[np.nan, 1.0, 2.0, 1.0, np.nan],
            kind=pd.Series([None, "k1", "k2", "k1", None], dtype=object),
            level=pd.array([None] * 5, dtype="Int64"),
            good=pd.array([None, False, True, False, None], dtype="boolean"),
        ),
    )


def test_each_views_time_to_live_is_applied_from_each_rows_own_time(clean: str) -> None:
    write(clean, NOW, 1, "a")
    frame = spine(("a", NOW + 2 * DAY - MICROSECOND), ("a", NOW + 2 * DAY))
    rows = of_snapshots(clean, frame, "height", "kind")
    assert rows["height"].tolist() == [1.0, 1.0]
    assert rows["kind"].tolist() == ["k1", None]


def test_18_zones_may_be_mixed_in_a_spine_for_snapshots(clean: str) -> None:
    write(clean, NOW - DAY, 1, "a")
    write(clean, NOW, 2, "a")
    times = [NOW.astimezone(ZoneInfo("Asia/Tokyo")), NOW - MICROSECOND]
    frame = pd.DataFrame({"entity_id": "a", "as_of": pd.Series(times, dtype=object)})
    assert of_snapshots(clean, frame, "height")["height"].tolist() == [2.0, 1.0]


def test_a_snapshot_that_was_not_checked_is_not_seen(clean: str) -> None:
    write(clean, NOW - DAY, 1, "a")
    write(clean, NOW, 2, "a", check=False)
    assert of_snapshots(clean, spine(("a", NOW)), "height")["height"].tolist() == [1.0]


def test_a_feature_that_was_added_since_is_missing_before(clean: str) -> None:
    write(clean, NOW, 1, "a")
    added = Feature("added", "integer", "", None, None, 5, "Added.", "fit")
    things = Catalogue([replace(BODY, features=(HEIGHT, added)), MIND])
    with FeatureStore(postgres_url=clean, catalogue=things) as opened:
        rows = opened.training_set(spine(("a", NOW)), ["added", "height"], source="snapshots")
    assert rows.frame[["added", "height"]].to_numpy().tolist() == [[pd.NA, 1.0]]


def test_a_view_that_was_never_written_is_an_error_that_says_what_to_do(clean: str) -> None:
    with pytest.raises(HistoryError, match="no snapshot of view body was ever written"):
        of_snapshots(clean, spine(("a", NOW)), "height")


def test_35_36_snapshots_in_chunks_and_as_arrow_equal_a_frame_at_once(clean: str) -> None:
    for k in range(3):
        write(clean, NOW - k * DAY, k, *"abc"[k:])
    frame = spine(*((i, NOW - h * timedelta(hours=13)) for i in "abcd" for h in range(6)))
    whole = of_snapshots(clean, frame, "height", "kind")
    pd.testing.assert_frame_equal(of_snapshots(clean, frame, "height", "kind", chunk_rows=5), whole)
    arrow = of_snapshots(clean, pa.Table.from_pandas(frame, preserve_index=False), "height", "kind")
    assert arrow["kind"].to_pylist() == whole["kind"].tolist()
    empty = of_snapshots(clean, frame[:0], "height", "kind")
    assert empty.dtypes.to_dict() == whole.dtypes.to_dict()


def test_37_as_of_a_snapshot_a_training_set_equals_what_is_published_from_it(
    clean: str, bulk: Bulk, store: Any
) -> None:
    world = random_world(9)
    frame = spine(*((row["lead_id"], NOW) for row in world.tables["leads"]))
    engine = bulk(world)
    for view in VIEWS:
        write_view_snapshot(clean, view, engine.compute([view], frame), NOW)
    assert check_snapshot(clean, catalogue(), "lead", NOW).sound
    published = read_latest(clean, "lead").frame
    opened = store(world, postgres_url=clean)
    stored = opened.training_set(published[["entity_id", "as_of"]], ALL, source="snapshots").frame
    pd.testing.assert_frame_equal(stored, published, check_exact=True)
    computed = opened.training_set(published[["entity_id", "as_of"]], ALL).frame
    pd.testing.assert_frame_equal(stored, computed, check_exact=True)
