from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import redis

from leadml_pipelines.assets.online import online_assets
from leadml_pipelines.automation import sensors
from leadml_pipelines.automation.sensors import checked_snapshot_sensor, promoted_model_sensor
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.duckdb_engine import DuckDBEngine
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.writing import write_snapshot
from leadml_pipelines.learning.evaluation.examination import Examination, examine
from leadml_pipelines.learning.evaluation.gate import Decision
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.publish_models import publish_roles
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.online.values import schema_for
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
)
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.features.world import NOW, World, spine
from leadml_pipelines_tests.learning.frames import spec_for, toy_set

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_yet(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.feature_snapshots, leadml.models CASCADE")


def tick(
    sensor: dg.SensorDefinition,
    postgres_url: str,
    redis_url: str,
    instance: dg.DagsterInstance | None = None,
) -> tuple[int, str | None]:
    """Evaluate a sensor once: how many runs it requests, or why none."""
    resources: dict[str, object] = {
        "postgres": PostgresResource(url=postgres_url),
        "redis": RedisResource(url=redis_url),
    }
    if sensor.name == promoted_model_sensor.name:
        resources["settings"] = SettingsResource()
    with instance or dg.DagsterInstance.ephemeral() as used:
        context = dg.build_sensor_context(resources=resources, instance=used)
        result = sensor.evaluate_tick(context)
    return len(result.run_requests or []), result.skip_message


def add_snapshot(url: str, as_of: datetime, *, checked: bool) -> None:
    """Record a snapshot as the feature assets do."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.feature_snapshots"
            " (snapshot_id, entity, as_of, rows, checked_at) VALUES (%s, 'lead', %s, 1, %s)",
            (f"lead-{as_of:%Y%m%d}", as_of, as_of if checked else None),
        )


def publish(store: OnlineStore, as_of: datetime) -> None:
    """Point Redis to an (empty) snapshot."""
    features = catalogue().features("lead")
    schema = schema_for(
        "lead", features, pd.DataFrame({f.name: pd.Series(dtype="object") for f in features}), None
    )
    store.put_schema(schema)
    store.point_to_snapshot(schema, as_of, {"checked_at": as_of.isoformat()})


def test_an_unchecked_snapshot_is_not_published(postgres_url: str, redis_url: str) -> None:
    add_snapshot(postgres_url, AS_OF, checked=False)
    requested, why = tick(checked_snapshot_sensor, postgres_url, redis_url)
    assert requested == 0
    assert why == (
        "no snapshot of lead features has passed its check yet; "
        "no snapshot of agent features has passed its check yet"
    )


def test_a_checked_snapshot_that_redis_lacks_is_published(
    postgres_url: str, redis_url: str
) -> None:
    add_snapshot(postgres_url, AS_OF, checked=True)
    requested, _ = tick(checked_snapshot_sensor, postgres_url, redis_url)
    assert requested == 1


def test_a_snapshot_that_redis_has_is_not_published_again(
    postgres_url: str, redis_url: str, store: OnlineStore
) -> None:
    add_snapshot(postgres_url, AS_OF, checked=True)
    publish(store, AS_OF)
    assert tick(checked_snapshot_sensor, postgres_url, redis_url)[0] == 0


def test_a_newer_checked_snapshot_replaces_the_one_in_redis(
    postgres_url: str, redis_url: str, store: OnlineStore
) -> None:
    publish(store, AS_OF)
    add_snapshot(postgres_url, AS_OF + timedelta(days=1), checked=True)
    assert tick(checked_snapshot_sensor, postgres_url, redis_url)[0] == 1


def test_a_snapshot_that_was_written_again_for_the_same_moment_is_published_again(
    postgres_url: str, redis_url: str, store: OnlineStore, tmp_path: Path
) -> None:
    """As with a clock that follows the data, when a late row changed what is known of a moment."""
    views = catalogue().views("lead")
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "redis": RedisResource(url=redis_url),
    }
    for attempt in ("first", "second"):
        world = World().lead("a", NOW, state=attempt)
        with DuckDBEngine(world.parquet(tmp_path / attempt), threads=1) as engine:
            write_snapshot(postgres_url, views, engine.compute(views, spine(("a", NOW))), NOW)
        assert check_snapshot(postgres_url, catalogue(), "lead", NOW).sound
        assert tick(checked_snapshot_sensor, postgres_url, redis_url)[0] == 1
        dg.materialize([online_assets[0]], resources=resources)
        requested, why = tick(checked_snapshot_sensor, postgres_url, redis_url)
        assert (requested, "Redis has the lead snapshot" in str(why)) == (0, True)
        (row,) = store.read_batch("lead", ["a"]).python_rows()
        assert row is not None
        assert row["state"] == attempt


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_a_publication_that_is_under_way_is_not_asked_for_again(
    postgres_url: str, redis_url: str, status: dg.DagsterRunStatus
) -> None:
    add_snapshot(postgres_url, AS_OF, checked=True)
    with dg.instance_for_test() as instance:
        instance.add_run(dg.DagsterRun(job_name="publish_features", status=status))
        requested, why = tick(checked_snapshot_sensor, postgres_url, redis_url, instance)
    assert not requested
    assert why is not None
    assert why.endswith("is publishing")


def test_an_emptied_redis_is_filled_again_at_once(
    postgres_url: str, redis_url: str, store: OnlineStore
) -> None:
    add_snapshot(postgres_url, AS_OF, checked=True)
    publish(store, AS_OF)
    with dg.instance_for_test() as instance:
        done = dg.DagsterRun(job_name="publish_features", status=dg.DagsterRunStatus.SUCCESS)
        instance.add_run(done)
        assert not tick(checked_snapshot_sensor, postgres_url, redis_url, instance)[0]
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        assert tick(checked_snapshot_sensor, postgres_url, redis_url, instance)[0]


def test_psycopg_is_imported_before_dagster_evaluates_sensors_in_threads() -> None:
    code = "import sys, leadml_pipelines.definitions; print('psycopg' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "True"


@pytest.fixture
def models(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty registry whose artifacts lie in a fresh home."""
    monkeypatch.setenv("LEADML_HOME", str(tmp_path))
    return Registry.of(Settings(), postgres_url)


@pytest.fixture(scope="module")
def churn() -> TrainedModel:
    """A small model under the name of a declared one."""
    spec = spec_for(name="churn", rounds=10)
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture(scope="module")
def better(churn: TrainedModel) -> Examination:
    """An examination that ends well."""
    return replace(examine(churn, resamples=50), decision=Decision(True, ("it is better",)))


@pytest.fixture
def promotable(
    models: Registry, churn: TrainedModel, better: Examination
) -> Callable[[], ModelRecord]:
    """Registers the model once more, as one that passed its gate beside the champion."""

    def store() -> ModelRecord:
        champion = models.champion("churn")
        return models.store(churn, better, champion and champion.model_id)

    return store


def test_a_candidate_that_the_gate_rejected_is_never_published(
    postgres_url: str, redis_url: str, models: Registry, churn: TrainedModel
) -> None:
    hopeless = replace(churn, spec=replace(churn.spec, floor=1.0))
    assert models.register(hopeless).status == "rejected"
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 0


def test_a_promoted_model_is_published_once(
    postgres_url: str,
    redis_url: str,
    pointers: ModelPointers,
    models: Registry,
    promotable: Callable[[], ModelRecord],
) -> None:
    models.promote(promotable().model_id, by="test")
    requested, _ = tick(promoted_model_sensor, postgres_url, redis_url)
    assert requested == 1
    publish_roles(pointers, models)
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 0


def test_a_roll_back_is_published_like_a_promotion(
    postgres_url: str,
    redis_url: str,
    pointers: ModelPointers,
    models: Registry,
    promotable: Callable[[], ModelRecord],
) -> None:
    models.promote(promotable().model_id, by="test")
    models.promote(promotable().model_id, by="test")
    publish_roles(pointers, models)
    models.rollback("churn", by="test")
    requested, _ = tick(promoted_model_sensor, postgres_url, redis_url)
    assert requested == 1


def test_a_challenger_is_published_with_its_share_and_withdrawn(
    postgres_url: str,
    redis_url: str,
    pointers: ModelPointers,
    models: Registry,
    promotable: Callable[[], ModelRecord],
) -> None:
    models.promote(promotable().model_id, by="test")
    challenger = promotable().model_id
    publish_roles(pointers, models)
    models.challenge(challenger, 0.1, by="test")
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 1
    publish_roles(pointers, models)
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 0
    models.challenge(challenger, 0.2, by="test")
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 1
    publish_roles(pointers, models)
    models.end_challenge("churn", by="test")
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 1
    publish_roles(pointers, models)
    assert tick(promoted_model_sensor, postgres_url, redis_url)[0] == 0


@pytest.mark.parametrize(("seconds_ago", "requested"), [(5, 0), (600, 1), (-3_600, 1)])
def test_a_failed_publication_is_left_alone_for_a_minute_by_a_clock_put_back_too(
    postgres_url: str,
    redis_url: str,
    models: Registry,
    promotable: Callable[[], ModelRecord],
    monkeypatch: pytest.MonkeyPatch,
    seconds_ago: int,
    requested: int,
) -> None:
    models.promote(promotable().model_id, by="test")
    with dg.instance_for_test() as instance:
        run = dg.DagsterRun(job_name="publish_models", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        instance.report_run_failed(run)
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        assert record.end_time is not None
        now = datetime.fromtimestamp(record.end_time + seconds_ago, UTC)
        monkeypatch.setattr(sensors, "utc_now", lambda: now)
        assert tick(promoted_model_sensor, postgres_url, redis_url, instance)[0] == requested
