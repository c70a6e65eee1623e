"""The daily skew audit: a check on the newest snapshot that looks at what was served since."""

import dagster as dg

from leadml_pipelines.assets.features import snapshot_assets
from leadml_pipelines.assets.metadata import markdown_table, plain
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource

SHOWN = 100
"""Mismatches in the check's metadata; `leadml features audit --json` has all of them."""


@dg.asset_check(
    asset=snapshot_assets[0],
    pool="duckdb",
    description="served vectors, computed again from the newest extract, are the same to the bit",
)
def no_skew(postgres: PostgresResource, settings: SettingsResource) -> dg.AssetCheckResult:
    """Replay a sample of the vectors served in the last day; any difference is shown."""
    from leadml_pipelines.features.audit import audit
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.sources.extract import latest_extract

    config = settings.load()
    extract = latest_extract(config.extracts)
    with bulk_engine(extract, config) as engine:
        report = audit(postgres.url, engine, catalogue(), extract.as_of)
    numbers = plain(
        {
            "audited": report.audited,
            "skewed": report.skewed,
            "share": report.share,
            "in_flight": len(report.in_flight),
            "later_metrics": len(report.later_metrics),
            "too_new": report.too_new,
            "gone": report.gone,
            "extract_as_of": report.extract_as_of,
        }
    )
    if not report.audited:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="nothing could be audited: no vector of a moment up to this extract was "
            "served and logged (LEADML_AUDIT_SAMPLE says how many are)",
            metadata=numbers,
        )
    table = markdown_table(
        ["entity", "feature", "served", "offline", "as of", "served at", "source"],
        [
            [
                f"{m.entity_type} {m.entity_id}",
                m.feature,
                repr(m.served),
                repr(m.offline),
                m.as_of.isoformat(),
                m.served_at.isoformat(),
                m.source,
            ]
            for m in report.mismatches[:SHOWN]
        ],
    )
    return dg.AssetCheckResult(
        passed=not report.mismatches,
        description=report.sentence(),
        metadata=numbers | ({"mismatches": table} if report.mismatches else {}),
    )
