"""The history of views in PostgreSQL is written whole, idempotent, following the catalogue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.newest import latest_checked
from leadml_pipelines.features.snapshots.reading import read_latest, read_snapshot
from leadml_pipelines.features.snapshots.tables import FeatureTypeChangedError
from leadml_pipelines.features.snapshots.writing import write_snapshot, write_view_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.snapshots.things import (
    BODY,
    HEIGHT,
    LEVEL,
    MIND,
    THINGS,
    body,
    mind,
    versions,
    whole,
    writers_seen,
)
from leadml_pipelines_tests.features.world import NOW


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


def test_of_concurrent_writers_of_one_moment_one_whole_result_stays(postgres_url: str) -> None:
    def write(number: int) -> None:
        write_snapshot(postgres_url, [BODY, MIND], versions(number), NOW)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))
    assert check_snapshot(postgres_url, THINGS, "thing", NOW, expected=50).sound
    assert len(writers_seen(read_latest(postgres_url, "thing", catalogue=THINGS).frame)) == 1


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
