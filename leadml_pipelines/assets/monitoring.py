"""Watching the models day by day: drift, live performance, and the alerts that follow."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from leadml_pipelines.assets.metadata import markdown_table, plain
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.monitoring.rules import RULES
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.sources.contract import TABLES
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.monitoring.alerts import TrainingCounts
    from leadml_pipelines.monitoring.populations import Populations
    from leadml_pipelines.settings import Settings

GROUP = "monitoring"
SHOWN = 20
"""Columns in the metadata; the report and `leadml.drift` have all of them."""
TRAINING_JOB = "nightly_training"
TRAINING_DAYS = 30
"""How far back trainings count."""
DELIVERED = "webhook_delivered"
"""The check that is not a rule: whether the webhook took what it had to be told."""


def drift_asset(name: str) -> dg.AssetsDefinition:
    """The asset that compares whom a model learned from with whom it is asked about today."""

    @dg.asset(
        name=f"{name}_drift",
        description=f"PSI and KS of every feature of {name} and of its score, in the newest "
        "snapshot and in what was served, with reports.",
        group_name=GROUP,
        kinds={"postgres"},
        deps=["feature_snapshot", f"{name}_champion"],
        pool="duckdb",
    )
    def asset(
        context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.monitoring.drift_report import remove_old_reports
        from leadml_pipelines.monitoring.enough import NotEnough
        from leadml_pipelines.monitoring.populations import (
            answers_population,
            read_learned,
            served_population,
            snapshot_population,
        )

        config = settings.load()
        models = _registry(postgres, settings)
        spec, least, seed = specs(config)[name], config.monitoring_min_rows, config.seed
        url, sets, now = postgres.url, config.training_sets, utc_now()
        learned = read_learned(models, sets, name, None, least)
        if isinstance(learned, NotEnough):
            return _not_enough(context, learned)
        sides = {
            "snapshot": snapshot_population(url, learned, spec, least),
            "served": served_population(url, learned, spec, now, least, seed),
            "answers": answers_population(url, learned, models, sets, name, now, least, seed),
        }
        metadata: dict[str, Any] = {"model_id": learned.model_id}
        for population, both in sides.items():
            if isinstance(both, NotEnough):
                context.log.info("%s: %s", population, both)
                metadata[population] = str(both)
            else:
                metadata |= _compared(context, url, config, name, both)
        remove_old_reports(config.reports, name, config.reports_keep_days)
        return dg.MaterializeResult(metadata=metadata)

    return asset


def _compared(
    context: dg.AssetExecutionContext, url: str, config: "Settings", name: str, sides: "Populations"
) -> dict[str, Any]:
    """Compare, keep what was found, and make the page: the metadata of one population."""
    from leadml_pipelines.monitoring.alerts import drift_sentence, unexpected
    from leadml_pipelines.monitoring.drift import column_drifts
    from leadml_pipelines.monitoring.drift_report import write_report
    from leadml_pipelines.monitoring.records import record_drift
    from leadml_pipelines.monitoring.watch import drift_limits, expected_drift, relative_features

    limits = drift_limits(config)
    drifts = column_drifts(
        sides.reference, sides.current, sides.columns, limits, sides.days, relative_features()
    )
    # First the figures: whatever becomes of the report, the rules judge by them.
    found = record_drift(url, name, sides, drifts, utc_now())
    sentence = drift_sentence(found, unexpected(found, expected_drift(config)))
    context.log.info(sentence)
    report = write_report(config.reports, name, sides, drifts, limits, sentence)
    which = sides.population
    figures = {
        which: sentence,
        f"{which}_as_of": found.as_of,
        f"{which}_reference_rows": found.reference_rows,
        f"{which}_rows": found.current_rows,
        f"{which}_drifted": len(found.drifted),
    }
    header = ["column", "PSI", "usual", "KS", "usual", "missing before", "now", "drifted"]
    table = [
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
    ]
    return {
        **plain(figures),
        f"{which}_report": dg.MetadataValue.path(str(report)),
        f"{which}_worst": markdown_table(header, table),
    }


def live_asset(name: str) -> dg.AssetsDefinition:
    """The asset that judges a model's champions by what came true of their predictions."""

    @dg.asset(
        name=f"{name}_live_performance",
        description=f"How well served predictions of {name} came true, beside the tests.",
        group_name=GROUP,
        kinds={"duckdb", "postgres"},
        deps=[*TABLES, f"{name}_champion"],
        pool="duckdb",
    )
    def asset(
        context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from leadml_pipelines.features.bulk import bulk_engine
        from leadml_pipelines.learning.questions import other_questions
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.monitoring.enough import NotEnough
        from leadml_pipelines.monitoring.live import read_live_performance
        from leadml_pipelines.monitoring.records import record_live
        from leadml_pipelines.sources.extract import NoExtractError, latest_extract

        config = settings.load()
        spec = specs(config)[name]
        versions = _registry(postgres, settings).models(name)
        not_comparable = other_questions(spec, versions, config.training_sets)
        try:
            extract = latest_extract(config.extracts)
        except NoExtractError as error:
            return _not_enough(context, NotEnough(str(error)))
        states: dict[str, Any] = {}
        table: list[list[Any]] = []
        with bulk_engine(extract, config) as engine:
            for role in ("champion", "challenger"):
                found = read_live_performance(
                    postgres.url,
                    engine,
                    spec,
                    versions,
                    role,
                    not_comparable,
                    data_end=extract.data_end,
                    window=timedelta(days=config.live_window_days),
                    least=config.monitoring_min_rows,
                    seed=config.seed,
                )
                if isinstance(found, NotEnough):
                    context.log.info(str(found))
                    states[role] = str(found)
                    continue
                record_live(postgres.url, found, utc_now())
                states[role] = (
                    f"{found.who}: {found.predictions:,} predictions of {found.entities:,} "
                    f"entities from {found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}{found.remark}"
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
    from leadml_pipelines.monitoring.alert_state import judging, record_judgements
    from leadml_pipelines.monitoring.watch import watch

    config = settings.load()
    # Of two runs the one that reads later records later: no older judgement undoes a newer one.
    with judging(postgres.url):
        now = utc_now()
        judged = watch(
            postgres.url,
            _registry(postgres, settings),
            specs(config),
            config,
            training_counts(postgres.url, context.instance, now),
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


def training_counts(url: str, instance: dg.DagsterInstance, now: datetime) -> "TrainingCounts":
    """How trainings ended lately: those that are recorded, and nightly runs that began none."""
    from leadml_pipelines.monitoring.alerts import TrainingCounts
    from leadml_pipelines.monitoring.trainings import trainings

    within = timedelta(days=TRAINING_DAYS)
    found = trainings(url, now, within)
    states = Counter(one.state for one in found)
    died = [one for one in found if one.state == "died"]
    # A run that did not end when it was told to is killed: somebody cancelled that one too.
    runs = {
        run_id: instance.get_run_by_id(run_id) for run_id in {one.run_id for one in died} if run_id
    }
    cancelled = {i for i, run in runs.items() if run and run.status == dg.DagsterRunStatus.CANCELED}
    killed = [one for one in died if one.run_id not in cancelled]
    failing = {one.model_name for one in (*killed, *(f for f in found if f.state == "failed"))}
    recorded = {one.run_id for one in found}
    never_began = [
        run
        for run in instance.get_runs(
            dg.RunsFilter(
                job_name=TRAINING_JOB,
                statuses=[dg.DagsterRunStatus.FAILURE],
                created_after=now - within,
            )
        )
        if run.run_id not in recorded
    ]
    return TrainingCounts(
        succeeded=states["succeeded"] + states["rejected"],
        rejected=states["rejected"],
        failed=states["failed"] + len(killed) + len(never_began),
        cancelled=states["cancelled"] + len(died) - len(killed),
        days=TRAINING_DAYS,
        failing=(*sorted(failing), *([TRAINING_JOB] if never_began else [])),
    )


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
    from leadml_pipelines.monitoring.alert_state import note_told, telling, untold_alerts
    from leadml_pipelines.monitoring.webhook import WebhookError, message, post

    def result(words: str, *, passed: bool = True) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(check_name=DELIVERED, passed=passed, description=words)

    address = settings.load().alert_webhook
    if address is None:
        return result("LEADML_ALERT_WEBHOOK is not set")
    with telling(url) as mine:
        if not mine:
            return result("another run is telling it now; what is left is told the next time")
        now = utc_now()
        news = untold_alerts(url, now)
        if not news:
            return result("nothing new")
        try:
            post(address, message(news, now))
        except WebhookError as error:
            # Not forgotten: they count as untold, so the next run tries again.
            return result(str(error), passed=False)
        note_told(url, news, now)
    return result(f"told of {len(news)} alerts")


def _registry(postgres: PostgresResource, settings: SettingsResource) -> "Registry":
    """The registry, which does not wait for ever either."""
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.monitoring.patience import LIMITS

    return Registry.of(settings.load(), postgres.url, **LIMITS)


def _not_enough(context: dg.AssetExecutionContext, found: Any) -> dg.MaterializeResult:
    context.log.info(str(found))
    return dg.MaterializeResult(metadata={"outcome": str(found)})
