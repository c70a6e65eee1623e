"""The history of past days through Dagster, as a backfill runs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from leadml_pipelines.assets.history import DAYS, history_assets
from leadml_pipelines.automation.schedules import every_day_history
from leadml_pipelines.definitions import defs
from leadml_pipelines.features.bulk import bulk_engine, entities
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.daily_history import DailyHistoryError
from leadml_pipelines.features.snapshots.newest import latest_checked
from leadml_pipelines.features.snapshots.reading import read_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.extract import Extract, extract_sources
from leadml_pipelines_tests.features.test_parity import assert_same_bits
from leadml_pipelines_tests.features.world import World, empty_graph_metrics
from leadml_pipelines_tests.tables import drop_snapshots

LEADS = next(asset for asset in history_assets if asset.key.path[-1] == "lead_feature_history")
VIEWS = catalogue().views("lead")
FIRST = datetime(2025, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def extract(postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Extract]:
    """An extract of five days of leads and events, as of the last one's noon."""
    world = World()
    for i in range(6):
        born = FIRST + i * DAY
        world.lead(f"lead_{i}", born)
        for hours in range(1, 60, 7):
            world.event(f"lead_{i}", born + timedelta(hours=hours), value=Decimal("1.5"))
    world.before(FIRST + 4 * DAY + timedelta(hours=12)).load(postgres_url)
    monkeypatch.setenv("LEADML_HOME", str(home))
    extract = extract_sources(postgres_url, Settings().extracts, clock="data")
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    yield extract
    with connect(postgres_url) as connection:
        drop_snapshots(connection)


def materialize(
    url: str,
    instance: dg.DagsterInstance,
    first: str,
    last: str | None = None,
    *,
    raise_on_error: bool = True,
) -> dg.ExecuteInProcessResult:
    """Run the asset for a day, or for a range of days in one run as a backfill does."""
    days: dict[str, object] = (
        {"partition_key": first}
        if last is None
        else {
            "tags": {
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            }
        }
    )
    return dg.materialize(
        [LEADS],
        resources={"postgres": PostgresResource(url=url), "settings": SettingsResource()},
        instance=instance,
        raise_on_error=raise_on_error,
        **days,  # type: ignore[arg-type]
    )


def test_past_days_are_backfilled_in_one_run(postgres_url: str, extract: Extract) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(postgres_url, instance, "2025-05-31", "2025-06-04")
        assert result.success
        steps = [event for event in result.all_events if event.is_step_success]
        assert len(steps) == 1
        done = instance.get_materialized_partitions(LEADS.key)
    assert done == {f"2025-06-0{day}" for day in range(1, 5)} | {"2025-05-31"}
    evaluations = result.get_asset_check_evaluations()
    assert evaluations
    assert all(evaluation.passed for evaluation in evaluations)
    with bulk_engine(extract, Settings()) as engine:
        for day in range(1, 5):
            end = FIRST + day * DAY
            stored = read_snapshot(postgres_url, VIEWS, end)
            # Who is born at midnight exists at midnight.
            assert len(stored) == day + 1
            assert_same_bits(stored, engine.compute(VIEWS, entities(engine, "lead", end)))
    newest = latest_checked(postgres_url, "lead")
    assert newest is not None
    assert newest.as_of == FIRST + 4 * DAY


def test_one_day_is_materialized_again_and_stays_the_same(
    postgres_url: str, extract: Extract
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(postgres_url, instance, "2025-06-02")
        first = read_snapshot(postgres_url, VIEWS, FIRST + 2 * DAY)
        materialize(postgres_url, instance, "2025-06-02")
    assert len(first) == 3
    assert_same_bits(read_snapshot(postgres_url, VIEWS, FIRST + 2 * DAY), first)


def test_a_day_that_the_extract_does_not_know_fails_naming_the_way_out(
    postgres_url: str, extract: Extract
) -> None:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(DailyHistoryError, match=r"2025-06-05 ends after.*nightly_features"),
    ):
        materialize(postgres_url, instance, "2025-06-04", "2025-06-05")
    assert latest_checked(postgres_url, "lead") is None


def test_every_entity_type_has_its_history() -> None:
    keys = {asset.key.to_user_string() for asset in history_assets}
    assert keys == {f"{entity}_feature_history" for entity in catalogue().entities}


def test_the_history_is_no_part_of_a_run_of_the_present() -> None:
    def selected(job: str) -> set[str]:
        keys = defs.resolve_job_def(job).asset_layer.selected_asset_keys
        return {key.to_user_string() for key in keys}

    history = {asset.key.to_user_string() for asset in history_assets}
    assert selected("backfill_features") == history
    for job in ("everything", "nightly_features", "nightly_training"):
        assert not selected(job) & history


def test_the_days_begin_where_the_settings_say() -> None:
    assert DAYS.get_first_partition_key() == f"{Settings().history_start:%Y-%m-%d}"


@pytest.mark.parametrize(("clock", "day"), [("now", "2026-03-01"), ("data", None)])
def test_the_schedule_asks_for_the_day_that_ended(
    clock: str, day: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADML_CLOCK", clock)
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 3, 2, 4, 30, tzinfo=UTC),
        resources={"settings": SettingsResource()},
        repository_def=defs.get_repository_def(),
    )
    tick = every_day_history.evaluate_tick(context)
    assert [request.partition_key for request in tick.run_requests or []] == ([day] if day else [])
    if day is None:
        assert "LEADML_CLOCK=data" in (tick.skip_message or "")
