"""Old history goes in whole days, and nobody is disturbed by it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.reading import read_latest
from leadml_pipelines.features.snapshots.retention import prune
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.snapshots.things import BODY, THINGS, body, whole
from leadml_pipelines_tests.features.world import NOW


def stored_moments(url: str) -> list[datetime]:
    with connect(url) as connection:
        rows = connection.execute("SELECT DISTINCT as_of FROM leadml.feature_body ORDER BY 1")
        return [row[0] for row in rows]


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
