"""What services read: the checked snapshot and the pointers to the models that answer, in Redis."""

import dagster as dg

from leadml_pipelines.assets.features import ENTITIES, MAIN_ENTITY, snapshot_assets
from leadml_pipelines.assets.metadata import plain, rows
from leadml_pipelines.assets.models import champion_assets
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
    registry,
)

_RETRY = dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL)


def online_asset(entity: str, snapshot: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset that puts the newest checked snapshot of an entity type into Redis."""

    @dg.asset(
        name="online_features" if entity == MAIN_ENTITY else f"online_{entity}_features",
        description=f"The newest checked snapshot, one packed value per {entity}.",
        group_name="online",
        kinds={"redis"},
        deps=[snapshot],
        pool="redis",
        retry_policy=_RETRY,
    )
    def asset(postgres: PostgresResource, redis: RedisResource) -> dg.MaterializeResult:
        from leadml_pipelines.features.snapshots.reading import read_latest
        from leadml_pipelines.online.changed import changed_since, database_clock
        from leadml_pipelines.online.publish import publish_snapshot

        before = database_clock(postgres.url)
        checked = read_latest(postgres.url, entity)
        changed = changed_since(postgres.url, entity, checked.as_of)
        published = publish_snapshot(
            redis.store(),
            entity,
            catalogue().features(entity),
            checked.frame,
            checked.as_of,
            leave_out=changed,
            checked_at=checked.checked_at,
            computed_at=before,
        )
        return dg.MaterializeResult(
            metadata=rows(
                published.written,
                as_of=checked.as_of,
                kept_newer=published.kept_newer,
                changed_by_events=len(changed),
                held_back=published.held_back,
                held_back_reasons=dict(published.reasons),
                seconds=published.seconds,
            )
        )

    return asset


online_assets = [
    online_asset(entity, snapshot)
    for entity, snapshot in zip(ENTITIES, snapshot_assets, strict=True)
]


@dg.asset(
    group_name="online", kinds={"redis"}, deps=champion_assets, pool="redis", retry_policy=_RETRY
)
def online_models(
    postgres: PostgresResource, redis: RedisResource, settings: SettingsResource
) -> dg.MaterializeResult:
    """Pointers to the champions and challengers, with a message to every serving process."""
    from leadml_pipelines.online.publish_models import publish_roles

    with redis.model_pointers() as pointers:
        published = publish_roles(pointers, registry(postgres, settings))
    return dg.MaterializeResult(metadata=plain(published))
