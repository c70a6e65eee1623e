"""The history of past days: what a snapshot taken at that moment would have held, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from leadml_pipelines.features.bulk import entities
from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.daily_history import (
    DailyHistoryError,
    DayWritten,
    ends_of_days,
    write_history,
)
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.newest import latest_checked
from leadml_pipelines.features.snapshots.reading import read_latest, read_snapshot
from leadml_pipelines.features.snapshots.writing import write_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.test_parity import assert_same_bits
from leadml_pipelines_tests.features.world import NOW, World, random_world

LEAD = catalogue()
VIEWS = LEAD.views("lead")
pytestmark = pytest.mark.usefixtures("no_snapshots")
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)


def backfill(
    url: str, engine: DuckDBEngine, days: list[datetime], *, keep_days: int = 90
) -> list[DayWritten]:
    return write_history(
        url, engine, LEAD, "lead", days, present=NOW + timedelta(days=12), keep_days=keep_days
    )


def test_a_past_day_is_what_a_snapshot_of_that_moment_would_have_been(
    postgres_url: str, bulk: Bulk
) -> None:
    """Even when everything that happened or became known later is not there at all."""
    world = random_world(3, leads=25, events=500)
    days = [MIDNIGHT - timedelta(days=back) for back in (31, 8, 0)]
    for written in backfill(postgres_url, bulk(world), days):
        assert written.report is not None
        assert written.report.sound, written.report.problems
    for day in days:
        then = bulk(world.before(day))
        expected = then.compute(VIEWS, entities(then, "lead", day))
        assert len(expected) >= 5
        stored = read_snapshot(postgres_url, VIEWS, day)
        assert_same_bits(stored, expected)


def test_a_day_that_is_written_again_has_equal_rows(postgres_url: str, bulk: Bulk) -> None:
    engine = bulk(random_world(4))
    backfill(postgres_url, engine, [MIDNIGHT])
    first = read_snapshot(postgres_url, VIEWS, MIDNIGHT)
    (again,) = backfill(postgres_url, engine, [MIDNIGHT])
    assert again.report is not None
    assert again.report.rows == len(first)
    assert_same_bits(read_snapshot(postgres_url, VIEWS, MIDNIGHT), first)


def test_a_day_on_which_nobody_existed_is_passed_over(postgres_url: str, bulk: Bulk) -> None:
    world = World().lead("a", MIDNIGHT - timedelta(days=1)).lead("b", MIDNIGHT + timedelta(days=1))
    days = [MIDNIGHT - timedelta(days=2), MIDNIGHT]
    before, then = backfill(postgres_url, bulk(world), days)
    assert before == DayWritten(days[0], None)
    assert then.report is not None
    assert (then.report.rows, then.report.sound) == (1, True)


def test_a_day_on_which_nobody_existed_after_all_is_removed(postgres_url: str, bulk: Bulk) -> None:
    days = [MIDNIGHT - timedelta(days=2), MIDNIGHT - timedelta(days=1)]
    backfill(postgres_url, bulk(World().lead("a", days[0])), days)
    # The lead was corrected: it came later.
    corrected = bulk(World().lead("a", days[1]))
    assert backfill(postgres_url, corrected, days[:1]) == [DayWritten(days[0], None)]
    assert read_snapshot(postgres_url, VIEWS, days[0]).empty
    assert len(read_snapshot(postgres_url, VIEWS, days[1])) == 1
    with connect(postgres_url) as connection:
        for table in ("feature_snapshots", "feature_view_snapshots"):
            left = connection.execute(f"SELECT DISTINCT as_of FROM leadml.{table}").fetchall()
            assert left == [(days[1],)]


def test_a_past_day_does_not_replace_the_latest_snapshot(postgres_url: str, bulk: Bulk) -> None:
    engine = bulk(random_world(5))
    write_snapshot(postgres_url, VIEWS, engine.compute(VIEWS, entities(engine, "lead", NOW)), NOW)
    assert check_snapshot(postgres_url, LEAD, "lead", NOW).sound
    backfill(postgres_url, engine, [MIDNIGHT - timedelta(days=3)])
    newest = latest_checked(postgres_url, "lead")
    assert newest is not None
    assert newest.as_of == read_latest(postgres_url, "lead").as_of == NOW


def test_a_backfill_drops_what_the_policy_no_longer_keeps(postgres_url: str, bulk: Bulk) -> None:
    engine = bulk(random_world(6))
    old = MIDNIGHT - timedelta(days=25)
    backfill(postgres_url, engine, [old])
    backfill(postgres_url, engine, [MIDNIGHT], keep_days=20)
    assert read_snapshot(postgres_url, VIEWS, old).empty
    assert not read_snapshot(postgres_url, VIEWS, MIDNIGHT).empty


def test_a_day_that_the_extract_does_not_know_is_refused_before_anything_is_written(
    postgres_url: str, bulk: Bulk
) -> None:
    days = [MIDNIGHT, MIDNIGHT + timedelta(days=13), MIDNIGHT + timedelta(days=14)]
    reason = r"2026-04-24 ends after .* 1 more.*nightly_features"
    with pytest.raises(DailyHistoryError, match=reason):
        backfill(postgres_url, bulk(World()), days)
    assert latest_checked(postgres_url, "lead") is None


def test_a_day_that_would_be_dropped_at_once_is_refused_with_a_way_out(
    postgres_url: str, bulk: Bulk
) -> None:
    engine = bulk(World().lead("a", MIDNIGHT - timedelta(days=60)))
    old = MIDNIGHT - timedelta(days=30)
    with pytest.raises(DailyHistoryError, match="LEADML_FEATURES_KEEP_DAYS to 42 or more"):
        backfill(postgres_url, engine, [old], keep_days=41)
    (written,) = backfill(postgres_url, engine, [old], keep_days=42)
    assert written.report is not None
    assert not read_snapshot(postgres_url, VIEWS, old).empty


def test_the_days_of_a_window_end_at_midnight_utc() -> None:
    assert ends_of_days(MIDNIGHT, MIDNIGHT + timedelta(days=2)) == [
        MIDNIGHT + timedelta(days=1),
        MIDNIGHT + timedelta(days=2),
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (MIDNIGHT, MIDNIGHT),
        (NOW, NOW + timedelta(days=1)),
        (MIDNIGHT, NOW + timedelta(days=1)),
        (
            MIDNIGHT.replace(tzinfo=timezone(timedelta(hours=2))),
            MIDNIGHT.replace(tzinfo=timezone(timedelta(hours=2))) + timedelta(days=1),
        ),
    ],
)
def test_a_window_that_is_no_whole_days_is_refused(start: datetime, end: datetime) -> None:
    with pytest.raises(ValueError, match="not a window of whole days"):
        ends_of_days(start, end)


def test_a_window_without_a_zone_is_refused() -> None:
    with pytest.raises(NaiveTimeError, match="start"):
        ends_of_days(MIDNIGHT.replace(tzinfo=None), MIDNIGHT)


def test_progress_is_told_day_by_day(postgres_url: str, bulk: Bulk) -> None:
    told: list[tuple[datetime, int]] = []
    world = World().lead("a", MIDNIGHT - timedelta(days=1))
    write_history(
        postgres_url,
        bulk(world),
        LEAD,
        "lead",
        [MIDNIGHT - timedelta(days=5), MIDNIGHT],
        present=NOW,
        keep_days=90,
        progress=lambda day, count: told.append((day, count)),
    )
    assert told == [(MIDNIGHT - timedelta(days=5), 0), (MIDNIGHT, 1)]


def test_a_day_with_values_out_of_range_is_written_and_not_marked(
    postgres_url: str, bulk: Bulk
) -> None:
    narrow = Catalogue(
        replace(
            view,
            features=tuple(
                replace(feature, low=-2, high=-1, default=-1.0)
                if feature.name == "engagement_score"
                else feature
                for feature in view.features
            ),
        )
        for view in VIEWS
    )
    engine = bulk(World().lead("a", MIDNIGHT - timedelta(days=1)))
    (written,) = write_history(
        postgres_url, engine, narrow, "lead", [MIDNIGHT], present=NOW, keep_days=90
    )
    assert written.report is not None
    assert not written.report.sound
    assert latest_checked(postgres_url, "lead") is None
    assert len(read_snapshot(postgres_url, VIEWS, MIDNIGHT)) == 1
