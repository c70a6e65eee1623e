"""Feature history of past days: a daily partition each, backfilled many at a time in one run."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from leadml_pipelines.assets.metadata import markdown_table, plain
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.settings import Settings

GROUP = "history"
IS_SOUND = "history_is_sound"

DAYS = dg.DailyPartitionsDefinition(start_date=Settings().history_start.isoformat(), timezone="UTC")
"""Every finished day from the first whose history is wanted."""


def history_asset(entity: str) -> dg.AssetsDefinition:
    """The asset that computes every view of an entity type as of the end of past days."""
    views = catalogue().views(entity)
    with warnings.catch_warnings():
        # A backfill policy is called beta since Dagster 1.1.
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.asset(
            name=f"{entity}_feature_history",
            description=f"Every feature of every {entity} as of the end of a day: the next "
            "midnight, UTC. Computed from the newest extract as if it had been taken then.",
            group_name=GROUP,
            kinds={"duckdb", "postgres"},
            deps=sorted({name for view in views for name in view.inputs} - {v.name for v in views}),
            pool="duckdb",
            partitions_def=DAYS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            check_specs=[
                dg.AssetCheckSpec(
                    IS_SOUND,
                    asset=f"{entity}_feature_history",
                    description="every view has everybody who existed at the end of each day, and "
                    "values lie in their declared ranges",
                )
            ],
        )
        def asset(
            context: dg.AssetExecutionContext,
            postgres: PostgresResource,
            settings: SettingsResource,
        ) -> Iterator[dg.MaterializeResult]:
            from leadml_pipelines.features.bulk import bulk_engine
            from leadml_pipelines.features.daily_history import ends_of_days, write_history
            from leadml_pipelines.sources.extract import latest_extract

            def tell(day: datetime, count: int) -> None:
                context.log.info("%s: %d", day.isoformat(), count)

            config = settings.load()
            extract = latest_extract(config.extracts)
            window = context.partition_time_window
            days = ends_of_days(window.start.astimezone(UTC), window.end.astimezone(UTC))
            with bulk_engine(extract, config) as engine:
                written = write_history(
                    postgres.url,
                    engine,
                    catalogue(),
                    entity,
                    days,
                    present=extract.as_of,
                    keep_days=config.features_keep_days,
                    progress=tell,
                )
            reports = {day.as_of: day.report for day in written}
            unsound = {
                moment.isoformat(): list(report.problems)
                for moment, report in reports.items()
                if report is not None and not report.sound
            }
            yield dg.MaterializeResult(
                metadata={
                    **plain({"extract_as_of": extract.as_of, "days": len(days)}),
                    "entities": markdown_table(
                        ["as of", "entities"],
                        [
                            [f"{moment:%Y-%m-%d %H:%M}", 0 if report is None else report.rows]
                            for moment, report in reports.items()
                        ],
                    ),
                },
                check_results=[
                    dg.AssetCheckResult(
                        check_name=IS_SOUND,
                        passed=not unsound,
                        metadata=plain({"problems": unsound}),
                    )
                ],
            )

    return asset


history_assets = [history_asset(entity) for entity in catalogue().entities]
