"""Only a whole snapshot with values in their ranges is marked as sound."""

from __future__ import annotations

from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.newest import latest_checked
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.snapshots.things import BODY, MIND, THINGS, body, mind, whole
from leadml_pipelines_tests.features.world import NOW


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


def test_an_empty_snapshot_is_sound_only_where_there_may_be_nobody(postgres_url: str) -> None:
    for view, frame in ((BODY, body(ids=())), (MIND, mind(ids=()))):
        write_view_snapshot(postgres_url, view, frame.iloc[:0], NOW)
    assert not check_snapshot(postgres_url, THINGS, "thing", NOW, expected=0).sound
    assert check_snapshot(postgres_url, THINGS, "thing", NOW, expected=0, may_be_empty=True).sound


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
