"""Watching the models day by day: drift, live performance, and the alerts that follow."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from leadml_pipelines.assets.metadata import markdown_table, plain
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.monitoring.rules import RULES
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource, registry
from leadml_pipelines.sources.contract import TABLES
from leadml_pipelines.times import utc_now

GROUP = "monitoring"
SHOWN = 20
"""Columns in the metadata; the report and `leadml.drift` have all of them."""
TRAINING_JOB = "nightly_training"
TRAINING_DAYS = 30
"""How far back runs of that job count."""
DELIVERED = "webhook_delivered"
"""The check that is not a rule: whether the webhook took what it had to be told."""


def drift_asset(name: str) -> dg.AssetsDefinition:
    """The asset that compares whom a model learned from with whom it would score today."""

    @dg.asset(
        name=f"{name}_drift",
        description=f"PSI and KS of every feature of {name} and of its score, with a report.",
        group_name=GROUP,
        kinds={"postgres"},
        deps=["feature_snapshot", f"{name}_champion"],
        pool="duckdb",
    )
    def asset(
        context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.monitoring.alerts import drift_sentence, unexpected
        from leadml_pipelines.monitoring.drift import column_drifts
        from leadml_pipelines.monitoring.drift_report import remove_old_reports, write_report
        from leadml_pipelines.monitoring.enough import NotEnough
        from leadml_pipelines.monitoring.populations import read_populations
        from leadml_pipelines.monitoring.records import record_drift
        from leadml_pipelines.monitoring.watch import drift_limits, expected_drift

        config = settings.load()
        sides = read_populations(
            postgres.url,
            registry(postgres, settings),
            config.training_sets,
            specs(config)[name],
            config.monitoring_min_rows,
        )
        if isinstance(sides, NotEnough):
            return _not_enough(context, sides)
        limits = drift_limits(config)
        drifts = column_drifts(sides.reference, sides.current, sides.columns, limits, sides.days)
        # First the figures: whatever becomes of the report, the rules judge by them.
        found = record_drift(postgres.url, name, sides, drifts, utc_now())
        sentence = drift_sentence(found, unexpected(found, expected_drift(config)))
        report = write_report(config.reports, name, sides, drifts, limits, sentence)
        remove_old_reports(config.reports, name, config.reports_keep_days)
        context.log.info(sentence)
        return dg.MaterializeResult(
            metadata={
                **plain(
                    {
                        "outcome": sentence,
                        "model_id": found.model_id,
                        "snapshot_as_of": found.as_of,
                        "reference_rows": found.reference_rows,
                        "current_rows": found.current_rows,
                        "drifted": len(found.drifted),
                    }
                ),
                "report": dg.MetadataValue.path(str(report)),
                "worst": markdown_table(
                    ["column", "PSI", "usual", "KS", "usual", "missing before", "now", "drifted"],
                    [
                        [
                            one.name,
                            one.psi,
                            one.psi_usual,
                            "" if one.ks is None else one.ks,
                            "" if one.ks_usual is None else one.ks_usual,
                            one.missing_before,
                            one.missing_now,
                            "yes" if one.drifted else "no",
                        ]
                        for one in drifts[:SHOWN]
                    ],
                ),
            }
        )

    return asset


def live_asset(name: str) -> dg.AssetsDefinition:
    """The asset that judges a model by what came true of its served predictions."""

    @dg.asset(
        name=f"{name}_live_performance",
        description=f"How well served predictions of {name} came true, beside the model's test.",
        group_name=GROUP,
        kinds={"duckdb", "postgres"},
        deps=[*TABLES, f"{name}_champion"],
        pool="duckdb",
    )
    def asset(
        context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from leadml_pipelines.features.bulk import bulk_engine
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.monitoring.enough import NotEnough
        from leadml_pipelines.monitoring.live import read_live_performance
        from leadml_pipelines.monitoring.records import record_live
        from leadml_pipelines.sources.extract import NoExtractError, latest_extract

        config = settings.load()
        spec = specs(config)[name]
        models = registry(postgres, settings)
        try:
            extract = latest_extract(config.extracts)
        except NoExtractError as error:
            return _not_enough(context, NotEnough(str(error)))
        states: dict[str, Any] = {}
        table: list[list[Any]] = []
        with bulk_engine(extract, config) as engine:
            for role in ("champion", "challenger"):
                record = models.alias(name, role)
                if record is None:
                    states[role] = "there is none"
                    continue
                found = read_live_performance(
                    postgres.url,
                    engine,
                    spec,
                    record,
                    role,
                    data_end=extract.data_end,
                    window=timedelta(days=config.live_window_days),
                    least=config.monitoring_min_rows,
                )
                if isinstance(found, NotEnough):
                    context.log.info(str(found))
                    states[role] = str(found)
                    continue
                record_live(postgres.url, found, utc_now())
                states[role] = (
                    f"{found.model_id}: {found.predictions:,} predictions of {found.entities:,} "
                    f"entities from {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}"
                )
                for metric, one in found.metrics.items():
                    cells = [one.live, one.test, one.drop, one.noise]
                    table.append([role, metric, *("" if v is None else v for v in cells)])
        header = ["role", "metric", "live", "test", "lower by", "may be chance"]
        return dg.MaterializeResult(
            metadata=states | ({"metrics": markdown_table(header, table)} if table else {})
        )

    return asset


drift_assets = [drift_asset(name) for name in SPECS]
live_assets = [live_asset(name) for name in SPECS]


@dg.asset(
    group_name=GROUP,
    kinds={"postgres"},
    deps=[*drift_assets, *live_assets],
    check_specs=[
        *(
            dg.AssetCheckSpec(rule.name, asset="alerts", description=f"fails when {rule.meaning}")
            for rule in RULES.values()
        ),
        dg.AssetCheckSpec(
            DELIVERED, asset="alerts", description="the webhook took what it had to be told"
        ),
    ],
    description="Every alert rule, judged by what is recorded and logged; what fires is a failed "
    "check, a log line, a metric, and a message to the webhook.",
)
def alerts(
    context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """Judge all rules, remember which fire, and tell who has to know."""
    from leadml_pipelines.learning.specs import specs
    from leadml_pipelines.monitoring.alert_state import record_judgements
    from leadml_pipelines.monitoring.watch import watch

    config = settings.load()
    now = utc_now()
    judged = watch(
        postgres.url,
        registry(postgres, settings),
        specs(config),
        config,
        training_runs(context.instance),
        now,
    )
    firing = record_judgements(postgres.url, judged, now)
    for alert in firing:
        context.log.warning(
            "%s alert since %s: %s", alert.severity, f"{alert.since:%Y-%m-%d %H:%M}", alert.words
        )
    yield dg.MaterializeResult(
        metadata={
            "firing": len(firing),
            "judgements": markdown_table(
                ["rule", "subject", "fires", "in words"],
                [
                    [one.rule, one.subject, "yes" if one.firing else "no", one.sentence]
                    for one in judged
                ],
            ),
        },
        check_results=[
            *(_check(rule, judged, firing) for rule in RULES),
            _tell(postgres.url, settings),
        ],
    )


def training_runs(instance: dg.DagsterInstance) -> Any:
    """How the runs of the training job ended lately."""
    from leadml_pipelines.monitoring.alerts import TrainingRuns

    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    since = utc_now() - timedelta(days=TRAINING_DAYS)
    runs = instance.get_runs(
        dg.RunsFilter(job_name=TRAINING_JOB, statuses=ended, created_after=since)
    )
    succeeded = sum(run.status == dg.DagsterRunStatus.SUCCESS for run in runs)
    return TrainingRuns(succeeded, len(runs) - succeeded, TRAINING_DAYS)


def _check(rule: str, judged: Sequence[Any], alerts: Sequence[Any]) -> dg.AssetCheckResult:
    """What a rule says of all its subjects, as the result of its check; open alerts fail it."""
    mine = [one for one in judged if one.rule == rule]
    firing = [one for one in alerts if one.rule == rule]
    critical = any(one.severity == "critical" for one in firing)
    numbers = {f"{one.subject} value": one.value for one in mine if one.value is not None}
    limits = {f"{one.subject} limit": one.limit for one in mine if one.limit is not None}
    return dg.AssetCheckResult(
        check_name=rule,
        passed=not firing,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description="; ".join([one.words for one in firing] or [one.sentence for one in mine]),
        metadata=plain(numbers | limits | {"what to do": RULES[rule].what_to_do}),
    )


def _tell(url: str, settings: SettingsResource) -> dg.AssetCheckResult:
    """Tell the webhook what it does not know yet."""
    from leadml_pipelines.monitoring.alert_state import note_told, untold_alerts
    from leadml_pipelines.monitoring.webhook import WebhookError, message, post

    address = settings.load().alert_webhook
    if address is None:
        return dg.AssetCheckResult(
            check_name=DELIVERED, passed=True, description="LEADML_ALERT_WEBHOOK is not set"
        )
    now = utc_now()
    news = untold_alerts(url, now)
    if not news:
        return dg.AssetCheckResult(check_name=DELIVERED, passed=True, description="nothing new")
    try:
        post(address, message(news, now))
    except WebhookError as error:
        # Not forgotten: they count as untold, so the next run tries again.
        return dg.AssetCheckResult(check_name=DELIVERED, passed=False, description=str(error))
    note_told(url, news, now)
    return dg.AssetCheckResult(
        check_name=DELIVERED, passed=True, description=f"told of {len(news)} alerts"
    )


def _not_enough(context: dg.AssetExecutionContext, found: Any) -> dg.MaterializeResult:
    context.log.info(str(found))
    return dg.MaterializeResult(metadata={"outcome": str(found)})
