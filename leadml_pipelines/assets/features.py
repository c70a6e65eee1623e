"""Feature views as of now, one asset each, and the checked snapshots that may go online."""

from collections.abc import Iterator

import dagster as dg

from leadml_pipelines.assets.catalogue import column_metadata, column_schema
from leadml_pipelines.assets.metadata import plain, rows
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource

MAIN_ENTITY = "lead"
"""What everything is about: without one, a snapshot is not sound."""
ENTITIES = catalogue().entities
VIEWS = {view.name: view for entity in ENTITIES for view in catalogue().views(entity)}


def view_asset(view: FeatureView) -> dg.AssetsDefinition:
    """The asset that computes one view for every entity as of the newest extract."""

    @dg.asset(
        name=f"{view.name}_features",
        description=view.description,
        group_name="features",
        kinds={"duckdb", "postgres"},
        deps=[_dependency(name) for name in view.inputs],
        pool="duckdb",
        metadata={"dagster/column_schema": column_schema(view)},
        owners=[view.owner],
    )
    def asset(postgres: PostgresResource, settings: SettingsResource) -> dg.MaterializeResult:
        from leadml_pipelines.features.bulk import bulk_engine, entities
        from leadml_pipelines.features.snapshots.writing import write_view_snapshot
        from leadml_pipelines.sources.extract import latest_extract

        config = settings.load()
        extract = latest_extract(config.extracts)
        with bulk_engine(extract, config) as engine:
            frame = engine.compute([view], entities(engine, view.entity, extract.as_of))
        write_view_snapshot(postgres.url, view, frame, extract.as_of)
        return dg.MaterializeResult(
            metadata=column_metadata(view)
            | rows(
                len(frame),
                as_of=extract.as_of,
                features=len(view.features),
                missing_share={
                    feature.name: float(frame[feature.name].isna().mean()) if len(frame) else 0.0
                    for feature in view.features
                },
            )
        )

    return asset


def _dependency(name: str) -> str:
    """A view depends on source tables and on other views; both are assets."""
    return f"{name}_features" if name in VIEWS else name


def snapshot_asset(entity: str) -> dg.AssetsDefinition:
    """The asset that checks all views of an entity type as a whole."""
    name = "feature_snapshot" if entity == MAIN_ENTITY else f"{entity}_feature_snapshot"

    @dg.asset(
        name=name,
        description=f"All views of every {entity} as of one moment, checked as a whole: only such "
        "a snapshot is published.",
        group_name="features",
        kinds={"postgres"},
        deps=[f"{view.name}_features" for view in catalogue().views(entity)],
        check_specs=[
            dg.AssetCheckSpec(
                "snapshot_is_sound",
                asset=name,
                blocking=True,
                description=f"every view has every {entity}, and values lie in their declared "
                "ranges",
            )
        ],
    )
    def asset(
        postgres: PostgresResource, settings: SettingsResource
    ) -> Iterator[dg.MaterializeResult]:
        from leadml_pipelines.features.bulk import bulk_engine, entities
        from leadml_pipelines.features.snapshots.checks import check_snapshot
        from leadml_pipelines.sources.extract import latest_extract

        config = settings.load()
        extract = latest_extract(config.extracts)
        with bulk_engine(extract, config) as engine:
            expected = len(entities(engine, entity, extract.as_of))
        report = check_snapshot(
            postgres.url,
            catalogue(),
            entity,
            extract.as_of,
            expected=expected,
            keep_days=config.features_keep_days,
            may_be_empty=entity != MAIN_ENTITY,
        )
        yield dg.MaterializeResult(
            metadata=rows(report.rows, as_of=extract.as_of, snapshot=report.snapshot_id),
            check_results=[
                dg.AssetCheckResult(
                    check_name="snapshot_is_sound",
                    passed=report.sound,
                    metadata=plain(
                        {"problems": list(report.problems), "out_of_range": report.out_of_range}
                    ),
                )
            ],
        )

    return asset


view_assets = [view_asset(view) for view in VIEWS.values()]
snapshot_assets = [snapshot_asset(entity) for entity in ENTITIES]
