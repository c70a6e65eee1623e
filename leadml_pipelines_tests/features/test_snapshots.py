"""The history of views in PostgreSQL: whole, idempotent, following the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.snapshot_tables import FeatureTypeChangedError
from leadml_pipelines.features.snapshots import (
    NoSnapshotError,
    check_snapshot,
    latest_checked,
    prune,
    query_of,
    read_latest,
    read_snapshot,
    write_snapshot,
    write_view_snapshot,
)
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.world import NOW
from leadml_pipelines_tests.tables import empty_tables


def never(_: object) -> object:
    raise AssertionError("a snapshot must not compile anything")


HEIGHT = Feature("height", "double", "m", 0, 10, None, "Height.", "fit")
LEVEL = Feature("level", "integer", "", 0, None, 0, "Level.", "fit")
GOOD = Feature("good", "boolean", "", None, None, None, "Whether it is good.", "fit")
KIND = Feature("kind", "category", "", None, None, None, "Kind.", "fit")
BODY = FeatureView("body", "thing", "A body.", (HEIGHT, LEVEL), ("spine",), never)
MIND = FeatureView("mind", "thing", "A mind.", (GOOD, KIND), ("spine",), never)
THINGS = Catalogue([BODY, MIND])


@pytest.fixture(autouse=True)
def clean(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("DROP TABLE IF EXISTS leadml.feature_body, leadml.feature_mind")
        empty_tables(connection, "leadml.feature_snapshots", "leadml.feature_view_snapshots")


def body(as_of: datetime = NOW, ids: tuple[str, ...] = ("a", "b"), height: float = 0.1 + 0.2):
    return pd.DataFrame(
        {
            "entity_id": pd.Series(ids, dtype=object),
            "as_of": pd.Series([as_of] * len(ids), dtype="datetime64[us, UTC]"),
            "height": pd.Series([height, *[float("nan")] * (len(ids) - 1)], dtype="float64"),
            "level": pd.Series([2**53 + 1, *[None] * (len(ids) - 1)], dtype="Int64"),
        }
    )


def mind(as_of: datetime = NOW, ids: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "entity_id": pd.Series(ids, dtype=object),
            "as_of": pd.Series([as_of] * len(ids), dtype="datetime64[us, UTC]"),
            "good": pd.Series([True, *[None] * (len(ids) - 1)], dtype="boolean"),
            "kind": pd.Series(["ü'\"\\", *[None] * (len(ids) - 1)], dtype=object),
        }
    )


def whole(url: str, as_of: datetime = NOW, **more: object) -> bool:
    write_view_snapshot(url, BODY, body(as_of, **more), as_of)  # type: ignore[arg-type]
    write_view_snapshot(url, MIND, mind(as_of), as_of)
    return check_snapshot(url, THINGS, "thing", as_of).sound


def stored_moments(url: str) -> list[datetime]:
    with connect(url) as connection:
        rows = connection.execute("SELECT DISTINCT as_of FROM leadml.feature_body ORDER BY 1")
        return [row[0] for row in rows]


def test_what_was_written_is_read_back_to_the_bit_with_its_types(postgres_url: str) -> None:
    assert whole(postgres_url)
    snapshot = read_latest(postgres_url, "thing", catalogue=THINGS)
    expected = body().merge(mind(), on=["entity_id", "as_of"])
    pd.testing.assert_frame_equal(snapshot.frame, expected, check_exact=True)
    assert snapshot.as_of == NOW


def test_only_the_entities_asked_for_are_read(postgres_url: str) -> None:
    whole(postgres_url)
    frame = read_latest(postgres_url, "thing", ["b", "unknown"], catalogue=THINGS).frame
    assert list(frame["entity_id"]) == ["b"]


def test_a_second_run_for_the_same_moment_replaces_the_first(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    write_view_snapshot(postgres_url, BODY, body(ids=("c",), height=7.0), NOW)
    frame = read_snapshot(postgres_url, [BODY], NOW)
    assert frame[["entity_id", "height"]].to_dict("records") == [{"entity_id": "c", "height": 7.0}]


def test_writing_a_view_again_takes_the_mark_of_the_check_away(postgres_url: str) -> None:
    whole(postgres_url, NOW - timedelta(days=1))
    whole(postgres_url)
    write_view_snapshot(postgres_url, BODY, body(height=9.0), NOW)
    newest = latest_checked(postgres_url, "thing")
    assert newest is not None
    assert newest.as_of == NOW - timedelta(days=1)


def test_without_a_checked_snapshot_the_reader_is_told_what_to_do(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    assert latest_checked(postgres_url, "thing") is None
    with pytest.raises(NoSnapshotError, match="no snapshot of thing features has passed"):
        read_latest(postgres_url, "thing", catalogue=THINGS)


def test_a_snapshot_without_one_of_its_views_is_not_sound(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW)
    assert not report.sound
    assert "mind" in report.problems[0]
    assert latest_checked(postgres_url, "thing") is None


def test_views_that_hold_different_entities_are_not_sound(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(ids=("a", "b", "c")), NOW)
    write_view_snapshot(postgres_url, MIND, mind(), NOW)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW)
    assert report.problems == ("1 entities are in only one of the views body and mind",)


def test_views_that_all_lack_an_entity_that_exists_are_not_sound(postgres_url: str) -> None:
    assert whole(postgres_url)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW, expected=3)
    assert report.problems == (
        "the view body holds 2 rows, and 3 entities exist",
        "the view mind holds 2 rows, and 3 entities exist",
    )
    assert latest_checked(postgres_url, "thing") is None
    assert check_snapshot(postgres_url, THINGS, "thing", NOW, expected=2).sound


def test_rows_are_counted_in_the_tables_and_not_taken_from_what_was_noted(
    postgres_url: str,
) -> None:
    assert whole(postgres_url)
    with connect(postgres_url) as connection:
        for table in ("feature_body", "feature_mind"):
            connection.execute(f"DELETE FROM leadml.{table} WHERE entity_id = 'b'")
    report = check_snapshot(postgres_url, THINGS, "thing", NOW)
    assert report.rows == 1
    assert report.problems == (
        "the view body holds 1 of 2 rows written",
        "the view mind holds 1 of 2 rows written",
    )
    assert not check_snapshot(postgres_url, THINGS, "thing", NOW, expected=2).sound


def test_an_empty_snapshot_is_not_sound(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body().iloc[:0], NOW)
    write_view_snapshot(postgres_url, MIND, mind().iloc[:0], NOW)
    assert not check_snapshot(postgres_url, THINGS, "thing", NOW).sound


def test_values_out_of_range_are_counted_and_too_many_are_not_sound(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(height=10.5), NOW)
    write_view_snapshot(postgres_url, MIND, mind(), NOW)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW)
    assert report.out_of_range == {"height": 1}
    assert not report.sound


def test_a_single_odd_value_among_many_is_counted_only(postgres_url: str) -> None:
    ids = tuple(f"x{i:03}" for i in range(200))
    write_view_snapshot(postgres_url, BODY, body(ids=ids, height=-1.0), NOW)
    write_view_snapshot(postgres_url, MIND, mind(ids=ids), NOW)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW)
    assert report.sound
    assert report.out_of_range == {"height": 1}


def test_a_new_feature_gets_a_column_and_is_missing_before(postgres_url: str) -> None:
    whole(postgres_url)
    width = replace(HEIGHT, name="width", description="Width.")
    wider = replace(BODY, features=(*BODY.features, width))
    before = read_latest(postgres_url, "thing", catalogue=Catalogue([wider, MIND])).frame
    assert before["width"].isna().all()
    later = NOW + timedelta(hours=1)
    write_view_snapshot(postgres_url, wider, body(later).assign(width=2.5), later)
    assert read_snapshot(postgres_url, [wider], later)["width"].tolist() == [2.5, 2.5]
    assert read_snapshot(postgres_url, [wider], NOW)["width"].isna().all()


def test_a_feature_that_changed_its_type_is_refused(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    changed = replace(BODY, features=(HEIGHT, replace(LEVEL, type="category", default=None)))
    with pytest.raises(FeatureTypeChangedError, match="level is category now"):
        write_view_snapshot(postgres_url, changed, body().assign(level=None), NOW)


def test_a_write_that_fails_leaves_the_former_values(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    with connect(postgres_url) as connection:
        connection.execute("ALTER TABLE leadml.feature_body ADD CHECK (height < 5)")
    with pytest.raises(Exception, match="feature_body_height_check"):
        write_view_snapshot(postgres_url, BODY, body(height=9.0), NOW)
    assert read_snapshot(postgres_url, [BODY], NOW)["height"].tolist()[0] == 0.1 + 0.2


def partitions(url: str) -> int:
    with connect(url) as connection:
        parts = connection.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'leadml.feature_body'::regclass"
        ).fetchone()
    assert parts is not None
    return int(parts[0])


def test_history_is_kept_for_so_many_days_and_dropped_as_whole_partitions(
    postgres_url: str,
) -> None:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    moments = [midnight - timedelta(days=2, microseconds=1), midnight - timedelta(days=2), NOW]
    for moment in moments:
        assert whole(postgres_url, moment)
    report = check_snapshot(postgres_url, THINGS, "thing", NOW, keep_days=2)
    assert report.sound
    assert stored_moments(postgres_url) == moments[1:]
    assert partitions(postgres_url) == 2
    assert prune(postgres_url, "thing", 1) == [moments[1]]
    assert stored_moments(postgres_url) == [NOW]
    assert partitions(postgres_url) == 1


def test_a_check_without_a_policy_drops_nothing(postgres_url: str) -> None:
    old = NOW - timedelta(days=900)
    assert whole(postgres_url, old)
    assert whole(postgres_url)
    assert stored_moments(postgres_url) == [old, NOW]


def test_the_newest_checked_snapshot_stays_however_old_it_is(postgres_url: str) -> None:
    """What was written since and found wrong does not push it out."""
    old = NOW - timedelta(days=400)
    assert whole(postgres_url, old)
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    assert not check_snapshot(postgres_url, THINGS, "thing", NOW, keep_days=1).sound
    assert prune(postgres_url, "thing", 1) == []
    assert read_latest(postgres_url, "thing", catalogue=THINGS).as_of == old


def test_the_policy_of_one_entity_type_leaves_the_others_alone(postgres_url: str) -> None:
    old = NOW - timedelta(days=10)
    assert whole(postgres_url, old)
    assert prune(postgres_url, "other", 1) == []
    assert stored_moments(postgres_url) == [old]


def test_history_of_less_than_a_day_is_refused(postgres_url: str) -> None:
    assert whole(postgres_url)
    with pytest.raises(ValueError, match="keep_days is 0"):
        prune(postgres_url, "thing", 0)


def test_a_reader_of_old_values_is_not_disturbed_and_the_next_call_cleans_up(
    postgres_url: str,
) -> None:
    old = NOW - timedelta(days=2)
    assert whole(postgres_url, old)
    assert whole(postgres_url)
    with connect(postgres_url) as reader:
        reader.execute("SELECT count(*) FROM leadml.feature_body")
        assert prune(postgres_url, "thing", 1) == [old]
        assert reader.execute("SELECT count(*) FROM leadml.feature_body").fetchone() == (4,)
    assert stored_moments(postgres_url) == [old, NOW]
    prune(postgres_url, "thing", 1)
    assert stored_moments(postgres_url) == [NOW]


def test_all_views_of_a_snapshot_are_written_or_none(postgres_url: str) -> None:
    both = body().merge(mind(), on=["entity_id", "as_of"])
    assert write_snapshot(postgres_url, [BODY, MIND], both, NOW) == 2
    assert check_snapshot(postgres_url, THINGS, "thing", NOW).sound
    with connect(postgres_url) as connection:
        connection.execute("ALTER TABLE leadml.feature_mind ADD CHECK (kind <> 'broken')")
    wrong = both.assign(height=9.0, kind="broken")
    with pytest.raises(Exception, match="feature_mind_kind_check"):
        write_snapshot(postgres_url, [BODY, MIND], wrong, NOW)
    kept = read_latest(postgres_url, "thing", catalogue=THINGS).frame
    pd.testing.assert_frame_equal(kept, both, check_exact=True)


def test_views_of_two_entity_types_are_no_snapshot(postgres_url: str) -> None:
    with pytest.raises(ValueError, match="one entity type"):
        write_snapshot(postgres_url, [BODY, replace(MIND, entity="ghost")], body(), NOW)


def test_a_snapshot_of_a_past_day_does_not_become_the_latest(postgres_url: str) -> None:
    assert whole(postgres_url)
    assert whole(postgres_url, NOW - timedelta(days=3))
    assert read_latest(postgres_url, "thing", catalogue=THINGS).as_of == NOW


def versions(number: int) -> pd.DataFrame:
    """Both views of 50 entities, whose every value tells which writer wrote it."""
    ids = tuple(f"x{i:02}" for i in range(50))
    both = body(ids=ids).merge(mind(ids=ids), on=["entity_id", "as_of"])
    level = pd.Series([number] * len(ids), dtype="Int64")
    return both.assign(level=level, kind=str(number))


def writers_seen(frame: pd.DataFrame) -> set[str]:
    assert len(frame) == 50
    return {*frame["level"].astype(str), *frame["kind"]}


def test_of_concurrent_writers_of_one_moment_one_whole_result_stays(postgres_url: str) -> None:
    def write(number: int) -> None:
        write_snapshot(postgres_url, [BODY, MIND], versions(number), NOW)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))
    assert check_snapshot(postgres_url, THINGS, "thing", NOW, expected=50).sound
    assert len(writers_seen(read_latest(postgres_url, "thing", catalogue=THINGS).frame)) == 1


@pytest.mark.parametrize("together", [True, False])
def test_readers_of_the_latest_never_see_half_a_snapshot(postgres_url: str, together: bool) -> None:
    """Whether its views are written together or one by one; meanwhile the one before is read."""
    before = NOW - timedelta(days=1)
    frame = versions(0).assign(as_of=pd.Timestamp(before))
    write_snapshot(postgres_url, [BODY, MIND], frame, before)
    assert check_snapshot(postgres_url, THINGS, "thing", before).sound
    done = threading.Event()

    def rewrite() -> None:
        try:
            for number in range(1, 16):
                values = versions(number)
                if together:
                    write_snapshot(postgres_url, [BODY, MIND], values, NOW)
                else:
                    write_view_snapshot(postgres_url, BODY, values, NOW)
                    write_view_snapshot(postgres_url, MIND, values, NOW)
                assert check_snapshot(postgres_url, THINGS, "thing", NOW).sound
        finally:
            done.set()

    def read() -> set[datetime]:
        seen = set()
        with connect(postgres_url, autocommit=True) as connection:
            newest = latest_checked(postgres_url, "thing")
            assert newest is not None
            query = query_of(connection, newest, catalogue=THINGS)
            while not done.is_set():
                for snapshot in (
                    read_latest(postgres_url, "thing", catalogue=THINGS),
                    query.read(connection, list(frame["entity_id"])),
                ):
                    assert len(writers_seen(snapshot.frame)) == 1
                    seen.add(snapshot.as_of)
        return seen

    with ThreadPoolExecutor(3) as pool:
        writer = pool.submit(rewrite)
        readers = [pool.submit(read) for _ in range(2)]
        writer.result()
        assert all(reader.result() <= {before, NOW} for reader in readers)
    assert writers_seen(read_latest(postgres_url, "thing", catalogue=THINGS).frame) == {"15"}


def test_a_query_of_a_snapshot_that_is_being_rewritten_reads_the_one_before(
    postgres_url: str,
) -> None:
    before = NOW - timedelta(days=1)
    assert whole(postgres_url, before)
    assert whole(postgres_url)
    newest = latest_checked(postgres_url, "thing")
    assert newest is not None
    with connect(postgres_url, autocommit=True) as connection:
        query = query_of(connection, newest, catalogue=THINGS)
        assert query.read(connection, ["a"]).as_of == NOW
        assert query.read(connection, ["nobody"]).frame.empty
        write_view_snapshot(postgres_url, BODY, body(height=9.0), NOW)
        found = query.read(connection, ["a"])
        assert found.as_of == before
        assert found.frame["height"].tolist() == [0.1 + 0.2]
        write_view_snapshot(postgres_url, BODY, body(before), before)
        with pytest.raises(NoSnapshotError):
            query.read(connection, ["a"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (body(ids=("a", "a")), "every entity once"),
        (body(NOW + timedelta(microseconds=1)), "another time"),
        (body().drop(columns="level"), "lacks level"),
    ],
)
def test_a_frame_that_is_not_this_view_at_this_moment_is_refused(
    postgres_url: str, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_view_snapshot(postgres_url, BODY, frame, NOW)


def test_a_moment_without_a_zone_is_refused(postgres_url: str) -> None:
    with pytest.raises(NaiveTimeError, match="as_of"):
        write_view_snapshot(postgres_url, BODY, body(), NOW.replace(tzinfo=None))


def test_an_empty_snapshot_is_sound_only_where_there_may_be_nobody(postgres_url: str) -> None:
    for view, frame in ((BODY, body(ids=())), (MIND, mind(ids=()))):
        write_view_snapshot(postgres_url, view, frame.iloc[:0], NOW)
    assert not check_snapshot(postgres_url, THINGS, "thing", NOW, expected=0).sound
    assert check_snapshot(postgres_url, THINGS, "thing", NOW, expected=0, may_be_empty=True).sound
