"""Feature views as of now, one asset each, and the checked snapshot that may go online."""

from collections.abc import Iterator

import dagster as dg

from leadml_pipelines.assets.catalogue import column_metadata, column_schema
from leadml_pipelines.assets.metadata import plain, rows
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource

ENTITY = "lead"


def view_asset(view: FeatureView) -> dg.AssetsDefinition:
    """The asset that computes one view for every lead as of the newest extract."""

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
        from leadml_pipelines.features.snapshots import write_view_snapshot
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
    views = {view.name for view in catalogue().views(ENTITY)}
    return f"{name}_features" if name in views else name


view_assets = [view_asset(view) for view in catalogue().views(ENTITY)]


@dg.asset(
    group_name="features",
    kinds={"postgres"},
    deps=view_assets,
    check_specs=[
        dg.AssetCheckSpec(
            "snapshot_is_sound",
            asset="feature_snapshot",
            blocking=True,
            description="every view has every lead, and values lie in their declared ranges",
        )
    ],
)
def feature_snapshot(
    postgres: PostgresResource, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """All views of one moment, checked as a whole: only such a snapshot is published."""
    from leadml_pipelines.features.bulk import bulk_engine, entities
    from leadml_pipelines.features.snapshots import check_snapshot
    from leadml_pipelines.sources.extract import latest_extract

    config = settings.load()
    extract = latest_extract(config.extracts)
    with bulk_engine(extract, config) as engine:
        expected = len(entities(engine, ENTITY, extract.as_of))
    report = check_snapshot(postgres.url, catalogue(), ENTITY, extract.as_of, expected=expected)
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
