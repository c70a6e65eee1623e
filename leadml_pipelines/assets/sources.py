"""The source tables: one consistent extract of all of them, validated."""

from collections.abc import Iterator

import dagster as dg

from leadml_pipelines.assets.metadata import rows
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.sources.contract import TABLES


@dg.multi_asset(
    outs={
        name: dg.AssetOut(
            group_name="sources",
            kinds={"postgres", "parquet"},
            description=f"`{name}` of the source contract.",
            metadata={
                "dagster/column_schema": dg.TableSchema(
                    columns=[
                        dg.TableColumn(
                            column.name,
                            column.type,
                            constraints=dg.TableColumnConstraints(
                                nullable=not column.required, unique=table.key == (column.name,)
                            ),
                        )
                        for column in table.columns
                    ]
                )
            },
        )
        for name, table in TABLES.items()
    },
    pool="postgres",
)
def source_tables(
    context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """Read every source table in one snapshot of the database and write it as Parquet.

    A row that breaks the contract goes to the quarantine and is left out.
    """
    from leadml_pipelines.sources.extract import extract_sources
    from leadml_pipelines.sources.quarantine import count_by_reason

    config = settings.load()
    extract = extract_sources(
        postgres.url, config.extracts, schema=config.crm_schema, clock=config.clock
    )
    context.log.info("extract %s as of %s", extract.extract_id, extract.as_of.isoformat())
    quarantined = count_by_reason(postgres.url)
    for name in TABLES:
        yield dg.MaterializeResult(
            asset_key=name,
            metadata=rows(
                extract.rows[name],
                extract=extract.extract_id,
                as_of=extract.as_of,
                quarantined=quarantined.get(name, {}),
            ),
        )
