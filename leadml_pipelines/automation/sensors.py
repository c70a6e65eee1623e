"""Two sensors that bring Redis in step with what was checked and what was promoted.

They compare states instead of counting events: the newest *checked* snapshot and the *promoted*
models on one side, what Redis points to on the other. A materialization whose check failed is
therefore never published, two changes between two ticks are one publication, a roll-back is
published like a promotion, and a Redis that lost its data is filled again.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg

# Not used here: Dagster evaluates sensors in threads, and two that import psycopg for the first
# time at the same moment break each other's import.
import psycopg  # noqa: F401

from leadml_pipelines.assets.features import ENTITIES
from leadml_pipelines.assets.online import online_assets
from leadml_pipelines.automation.jobs import publish_features, publish_models
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
    registry,
)
from leadml_pipelines.times import from_micros, utc_now

PATIENCE_SECONDS = 60
"""How long a failed publication is left alone before it is tried again."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""The states of a run that has not ended."""


def _request(
    context: dg.SensorEvaluationContext, job: str, assets: list[dg.AssetKey] | None = None
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a publication, of some assets or all, unless one is under way or has just failed."""
    newest = context.instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if newest:
        run, ended = newest[0].dagster_run, newest[0].end_time
        if run.status in UNDER_WAY:
            return dg.SkipReason(f"run {run.run_id} is publishing")
        failed = run.status == dg.DagsterRunStatus.FAILURE
        # A run that ended in the future did so by a clock that was put back since.
        if failed and ended and 0 <= utc_now().timestamp() - ended < PATIENCE_SECONDS:
            return dg.SkipReason(f"run {run.run_id} failed a moment ago; trying again soon")
    return dg.RunRequest(asset_selection=assets)


@dg.sensor(
    job=publish_features,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Publishes the newest checked feature snapshot when Redis does not have it.",
)
def checked_snapshot_sensor(
    context: dg.SensorEvaluationContext, postgres: PostgresResource, redis: RedisResource
) -> dg.RunRequest | dg.SkipReason:
    """Request the publication of each entity type whose newest checked snapshot Redis lacks."""
    from leadml_pipelines.features.snapshots.newest import latest_checked

    store = redis.store()
    behind, seen = [], []
    for entity, asset in zip(ENTITIES, online_assets, strict=True):
        checked = latest_checked(postgres.url, entity)
        if checked is None:
            seen.append(f"no snapshot of {entity} features has passed its check yet")
            continue
        online = store.snapshot(entity)
        if online is None or _published(online) < (checked.as_of, checked.checked_at):
            behind.append(asset.key)
        else:
            seen.append(f"Redis has the {entity} snapshot of {online['as_of']}")
    if not behind:
        return dg.SkipReason("; ".join(seen))
    return _request(context, publish_features.name, behind)


def _published(pointer: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The moment of the snapshot in Redis, and when it was checked: a moment may be written again.

    A pointer that does not tell the second counts as one from before any check.
    """
    checked = pointer.get("checked_at")
    return (
        from_micros(pointer["as_of_micros"]),
        from_micros(0) if checked is None else datetime.fromisoformat(checked),
    )


@dg.sensor(
    job=publish_models,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Publishes the promoted models when Redis points to others.",
)
def promoted_model_sensor(
    context: dg.SensorEvaluationContext,
    postgres: PostgresResource,
    redis: RedisResource,
    settings: SettingsResource,
) -> dg.RunRequest | dg.SkipReason:
    """Request a publication when Redis does not point to every champion and challenger.

    Who changes an alias publishes it at once; this is for when Redis was away, or lost its data.
    """
    from leadml_pipelines.online.publish_models import is_in_step

    held, records = registry(postgres, settings).overview()
    with redis.model_pointers() as pointers:
        if is_in_step(pointers, [(one, records[one.model_id]) for one in held]):
            return dg.SkipReason("Redis points to every champion and challenger")
    return _request(context, publish_models.name)


SENSORS = [checked_snapshot_sensor, promoted_model_sensor]
