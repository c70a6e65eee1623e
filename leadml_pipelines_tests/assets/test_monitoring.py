"""The daily assets of monitoring, over real tables."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from leadml_pipelines.assets.monitoring import (
    TRAINING_JOB,
    alerts,
    drift_assets,
    live_assets,
)
from leadml_pipelines.automation.jobs import nightly_training
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.served_versions import ServedVersion
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.monitoring.live import LiveMetric, LivePerformance
from leadml_pipelines.monitoring.records import record_live
from leadml_pipelines.monitoring.rules import RULES
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import (
    PostgresResource,
    SettingsResource,
    registry,
)
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.features.test_audit import world_of
from leadml_pipelines_tests.features.world import empty_graph_metrics
from leadml_pipelines_tests.monitoring.predictions import add_predictions
from leadml_pipelines_tests.monitoring.test_webhook import Hook
from leadml_pipelines_tests.monitoring.watched import add_champion, add_snapshot

CHURN = list(SPECS).index("churn")


@pytest.fixture(autouse=True)
def _nothing_yet(postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LEADML_HOME", str(home))
    yield
    with connect(postgres_url) as connection:
        connection.execute(
            "TRUNCATE leadml.models, leadml.feature_snapshots, leadml.predictions, leadml.drift,"
            " leadml.live_performance, leadml.alerts, leadml.alert_runs, leadml.trainings,"
            " leadml.served_features, leadml.served_schemas CASCADE"
        )


@pytest.fixture
def models(postgres_url: str) -> Registry:
    """The registry as the assets open it."""
    return registry(PostgresResource(url=postgres_url), SettingsResource())


@pytest.fixture
def champion(models: Registry) -> ModelRecord:
    """A champion named churn, and its training set."""
    return add_champion(models, Settings().training_sets)


def run(
    url: str, *assets: dg.AssetsDefinition, instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize assets."""
    resources = {"postgres": PostgresResource(url=url), "settings": SettingsResource()}
    with instance or dg.instance_for_test() as used:
        result = dg.materialize(list(assets), resources=resources, instance=used)
    assert result.success
    return result


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Metadata of the only materialization."""
    (event,) = result.get_asset_materialization_events()
    found = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in found.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Evaluations by the check's name."""
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def failed(result: dg.ExecuteInProcessResult) -> list[str]:
    """Names of the checks that failed."""
    return sorted(name for name, one in checks(result).items() if not one.passed)


def age(frame: pd.DataFrame) -> None:
    """Make the leads older than they were."""
    frame["lead_age_days"] += 45


def test_on_the_first_day_nothing_fails_and_everything_says_what_is_missing(
    postgres_url: str, home: Path
) -> None:
    world_of("a").load(postgres_url)
    extract = extract_sources(postgres_url, Settings().extracts, clock="data")
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    result = run(postgres_url, *drift_assets, *live_assets, alerts)
    outcomes = [
        event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
    ]
    texts = [str(value.value) for metadata in outcomes for value in metadata.values()]
    assert "not enough yet: churn has no champion; train one and promote it" in texts
    assert failed(result) == []
    for rule in RULES:
        assert "not enough yet" in (checks(result)[rule].description or "")


def test_before_the_first_extract_there_are_no_outcomes(postgres_url: str) -> None:
    found = metadata_of(run(postgres_url, live_assets[CHURN]))
    assert found["outcome"].startswith("not enough yet: there is no extract")


def test_champions_are_judged_whoever_is_champion_now_and_by_their_own_question(
    postgres_url: str, home: Path, champion: ModelRecord
) -> None:
    world_of("a").load(postgres_url)
    extract = extract_sources(postgres_url, Settings().extracts, clock="data")
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    made = extract.data_end - SPECS["churn"].horizon - timedelta(days=1)
    ids = [f"l{n}" for n in range(300)]
    add_predictions(postgres_url, ids, made, model_id=champion.model_id)
    # It was trained by a declaration of its own.
    found = metadata_of(run(postgres_url, live_assets[CHURN]))
    assert "outcomes are known of 0 entities that a champion of churn" in found["champion"]
    assert (
        f"300 predictions are not comparable, of {champion.model_id} "
        "(its horizon is 20d, now it is 60d)"
    ) in found["champion"]
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.model_aliases")
        connection.execute("UPDATE leadml.models SET spec_hash = %s", (SPECS["churn"].hash,))
    found = metadata_of(run(postgres_url, live_assets[CHURN]))
    assert (
        f"of 300 entities that the champion ({champion.model_id}) answered for turned out positive"
    ) in found["champion"]


def test_champions_of_earlier_nights_that_were_wrong_are_an_alert_under_the_champion_of_today(
    postgres_url: str, champion: ModelRecord
) -> None:
    now = utc_now()
    since, until = now - timedelta(days=90), now - timedelta(days=60)
    versions = tuple(
        ServedVersion(f"churn_{night}", since, until, 300) for night in ("first", "last")
    )
    worse = {"accuracy": LiveMetric(0.7, 0.85, 0.176, 0.04), "roc_auc": LiveMetric(0.9, 0.9, 0, 0)}
    found = LivePerformance("churn", "champion", since, until, 600, 500, worse, versions)
    record_live(postgres_url, found, now)
    result = run(postgres_url, alerts)
    assert failed(result) == ["accuracy"]
    assert "2 versions, churn_first" in (checks(result)["accuracy"].description or "")


def test_planted_drift_is_found_and_named_and_nothing_else_is(
    postgres_url: str, home: Path, champion: ModelRecord
) -> None:
    add_snapshot(postgres_url, alter=age)
    found = metadata_of(run(postgres_url, drift_assets[CHURN]))
    assert found["snapshot_drifted"] == 1
    assert "1 of 6 columns have drifted" in found["snapshot"]
    assert "lead_age_days (PSI" in found["snapshot"]
    assert (found["model_id"], found["snapshot_rows"]) == (champion.model_id, 500)
    assert found["served"].startswith("not enough yet: too few served")
    assert found["answers"].startswith("not enough yet: champions of churn answered about 0")
    report = Path(found["snapshot_report"])
    assert report.parent == home / "reports" / "drift" / "churn"
    assert "lead_age_days" in report.read_text(encoding="utf-8")
    result = run(postgres_url, alerts)
    assert failed(result) == ["drift"]
    check = checks(result)["drift"]
    assert "lead_age_days" in (check.description or "")
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_a_population_that_has_not_moved_has_not_drifted(
    postgres_url: str, champion: ModelRecord
) -> None:
    add_snapshot(postgres_url)
    found = metadata_of(run(postgres_url, drift_assets[CHURN]))
    assert found["snapshot_drifted"] == 0
    assert failed(run(postgres_url, alerts)) == []


def test_too_few_leads_to_compare_are_not_compared(
    postgres_url: str, champion: ModelRecord
) -> None:
    add_snapshot(postgres_url, rows=50)
    found = metadata_of(run(postgres_url, drift_assets[CHURN]))
    assert found["snapshot"].startswith("not enough yet: churn would score 50 of the 50 rows")
    assert "snapshot_report" not in found


def serve(url: str, requests: int = 20, batch: int = 20, **served: Any) -> None:
    """Log predictions of the last hours."""
    now = utc_now()
    for n in range(1, requests + 1):
        leads = [f"l{n}_{m}" for m in range(batch)]
        add_predictions(url, leads, now - timedelta(minutes=n), **served)


def test_bad_serving_fails_the_checks_of_its_rules_and_is_logged(
    postgres_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    serve(postgres_url, source="snapshot", stale=True, latency_ms=900.0)
    result = run(postgres_url, alerts)
    assert failed(result) == ["cache_hit_rate", "latency", "stale_share"]
    assert "100.0% of 400 predictions" in (checks(result)["stale_share"].description or "")
    assert "warning alert since" in capfd.readouterr().err


def end_training(url: str, name: str, outcome: str, run_id: str | None = None) -> None:
    """A training that ended so; by `died`, without a word."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.trainings (model_name, started_by, run_id, outcome)"
            " VALUES (%s, 'test', %s, nullif(%s, 'died'))",
            (name, run_id, outcome),
        )


def test_failing_trainings_fail_their_check_whoever_began_them(postgres_url: str) -> None:
    assert nightly_training.name == TRAINING_JOB
    failure, cancelled = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
    with dg.instance_for_test() as instance:
        told = dg.DagsterRun(job_name="__ASSET_JOB", status=cancelled)
        for run in (told, dg.DagsterRun(job_name=TRAINING_JOB, status=failure)):
            instance.add_run(run)
        for outcome in ("succeeded", "rejected", "failed", "cancelled", "died"):
            end_training(postgres_url, "churn", outcome)
        # It did not hear that somebody cancelled it, and was killed.
        end_training(postgres_url, "conversion", "died", told.run_id)
        resources = {"postgres": PostgresResource(url=postgres_url), "settings": SettingsResource()}
        result = dg.materialize([alerts], resources=resources, instance=instance)
    assert failed(result) == ["training_success"]
    found = checks(result)["training_success"]
    assert found.severity == dg.AssetCheckSeverity.ERROR
    words = found.description or ""
    assert "2 of 5 trainings in the last 30 days ended with a model (40.0%)" in words
    assert "1 of the models were rejected by their gate" in words
    assert "3 failed (churn, nightly_training)" in words
    assert "2 more were cancelled" in words


ALERTS = """
import sys
import dagster as dg
from leadml_pipelines.assets.monitoring import alerts
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
resources = {"postgres": PostgresResource(url=sys.argv[1]), "settings": SettingsResource()}
with dg.DagsterInstance.ephemeral() as instance:
    assert dg.materialize([alerts], resources=resources, instance=instance).success
"""


def texts(hook: Hook) -> Sequence[str]:
    """What the webhook was told, message by message."""
    return [body["text"] for _, _, body in hook.received]


def test_the_webhook_is_told_once_and_of_the_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(postgres_url, stale=True)
    with Hook().running() as hook:
        monkeypatch.setenv("LEADML_ALERT_WEBHOOK", hook.address().get_secret_value())
        assert failed(run(postgres_url, alerts)) == ["cache_hit_rate", "stale_share"]
        run(postgres_url, alerts)
        assert len(hook.received) == 1
        with connect(postgres_url) as connection:
            connection.execute("TRUNCATE leadml.predictions")
        unjudged = run(postgres_url, alerts)
        assert len(hook.received) == 1
        assert "not judged since" in (checks(unjudged)["stale_share"].description or "")
        assert failed(unjudged) == ["cache_hit_rate", "stale_share"]
        serve(postgres_url)
        assert failed(run(postgres_url, alerts)) == []
    assert len(hook.received) == 2
    assert "stale features" in texts(hook)[0]
    assert texts(hook)[1].startswith("resolved: ")


def test_two_runs_at_once_tell_the_webhook_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the nightly one and the hourly one, or two daemons: each a process of its own."""
    serve(postgres_url, stale=True)
    with Hook().running() as hook:
        hook.delay = 1.0
        monkeypatch.setenv("LEADML_ALERT_WEBHOOK", hook.address().get_secret_value())
        command = [sys.executable, "-c", ALERTS, postgres_url]
        both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait(200) for process in both] == [0, 0]
    assert len(hook.received) == 1
    with connect(postgres_url) as connection:
        rows = connection.execute("SELECT rule FROM leadml.alerts ORDER BY rule").fetchall()
    assert rows == [("cache_hit_rate",), ("stale_share",)]


def test_a_webhook_that_refuses_is_a_failed_check_and_is_told_the_next_time(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(postgres_url, stale=True)
    with Hook(403).running() as hook:
        monkeypatch.setenv("LEADML_ALERT_WEBHOOK", hook.address().get_secret_value())
        result = run(postgres_url, alerts)
        assert "webhook_delivered" in failed(result)
        assert "answered 403" in (checks(result)["webhook_delivered"].description or "")
        assert "webhook_delivered" not in failed(run(postgres_url, alerts))
    assert len(hook.received) == 2
