"""The relationship graph in step with the tables, and what it says about every lead and agent."""

import dagster as dg

from leadml_pipelines.assets.metadata import rows
from leadml_pipelines.resources.connections import (
    GraphResource,
    PostgresResource,
    SettingsResource,
)

GRAPH_TABLES = ("leads", "lead_versions", "agents", "assignments", "referrals")


@dg.asset(group_name="graph", kinds={"neo4j"}, deps=GRAPH_TABLES, pool="neo4j")
def relationship_graph(
    postgres: PostgresResource, graph: GraphResource, settings: SettingsResource
) -> dg.MaterializeResult:
    """Leads, agents, campaigns and households, and who belongs to whom since when."""
    from leadml_pipelines.graph.sync import sync_graph
    from leadml_pipelines.sources.extract import latest_extract

    extract = latest_extract(settings.load().extracts)
    report = sync_graph(
        graph.login(), postgres.url, {name: extract.table(name) for name in GRAPH_TABLES}
    )
    return dg.MaterializeResult(
        metadata=rows(
            report.nodes + report.edges,
            nodes=report.nodes,
            edges=report.edges,
            changed=report.changed,
            seconds=report.seconds,
        )
    )


@dg.asset(
    group_name="graph",
    kinds={"neo4j", "postgres"},
    deps=[relationship_graph, "policies"],
    pool="neo4j",
)
def graph_metrics(
    context: dg.AssetExecutionContext,
    postgres: PostgresResource,
    graph: GraphResource,
    settings: SettingsResource,
) -> dg.MaterializeResult:
    """Centrality, community, referrals, household and past conversions around every lead and agent.

    As of the beginning of each week.
    """
    import pandas as pd

    from leadml_pipelines.graph.history import export_graph_metrics, refresh_graph_metrics
    from leadml_pipelines.graph.queries import read_graph
    from leadml_pipelines.sources.extract import latest_extract

    config = settings.load()
    extract = latest_extract(config.extracts)
    report = refresh_graph_metrics(
        postgres.url,
        read_graph(graph.login()),
        extract.as_of,
        outcomes=pd.read_parquet(extract.table("policies"), columns=["lead_id", "bound_at"]),
        seed=config.seed,
    )
    total = export_graph_metrics(postgres.url, extract.path / "graph_metrics.parquet")
    context.log.info("%d of %d moments computed", report.computed, report.moments)
    return dg.MaterializeResult(
        metadata=rows(
            total,
            as_of=extract.as_of,
            moments=report.moments,
            moments_computed=report.computed,
            entities=report.entities,
            seconds=report.seconds,
        )
    )
