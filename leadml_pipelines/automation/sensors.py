"""Two sensors that bring Redis in step with what was checked and what was promoted.

They compare states instead of counting events: the newest *checked* snapshot and the *promoted*
models on one side, what Redis points to on the other. A materialization whose check failed is
therefore never published, two changes between two ticks are one publication, a roll-back is
published like a promotion, and a Redis that lost its data is filled again.
"""

import dagster as dg

from leadml_pipelines.assets.features import ENTITY
from leadml_pipelines.automation.jobs import publish_features, publish_models
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
    registry,
)
from leadml_pipelines.times import utc_now


def _run_key(wanted: str) -> str:
    """One request per wanted state and quarter of an hour: retried if it failed, never piled up."""
    now = utc_now()
    return f"{wanted}@{now:%Y%m%dT%H}{now.minute // 15}"


@dg.sensor(
    job=publish_features,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Publishes the newest checked feature snapshot when Redis does not have it.",
)
def checked_snapshot_sensor(
    postgres: PostgresResource, redis: RedisResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a publication when the newest checked snapshot is newer than the one in Redis."""
    from leadml_pipelines.features.snapshots import latest_checked

    checked = latest_checked(postgres.url, ENTITY)
    if checked is None:
        return dg.SkipReason("no feature snapshot has passed its check yet")
    online = redis.store().snapshot_as_of(ENTITY)
    if online is not None and online >= checked.as_of:
        return dg.SkipReason(f"Redis has the snapshot of {online.isoformat()}")
    return dg.RunRequest(run_key=_run_key(checked.snapshot_id))


@dg.sensor(
    job=publish_models,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Publishes the promoted models when Redis points to others.",
)
def promoted_model_sensor(
    postgres: PostgresResource, redis: RedisResource, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a publication when a champion is not the model that Redis points to."""
    models = registry(postgres, settings)
    store = redis.store()
    waiting = []
    for name in SPECS:
        champion = models.champion(name)
        if champion is None:
            continue
        pointer = store.model_pointer(name, "champion")
        if pointer is None or pointer["model_id"] != champion.model_id:
            waiting.append(champion.model_id)
    if not waiting:
        return dg.SkipReason("Redis points to every champion")
    return dg.RunRequest(run_key=_run_key("+".join(waiting)))


SENSORS = [checked_snapshot_sensor, promoted_model_sensor]
