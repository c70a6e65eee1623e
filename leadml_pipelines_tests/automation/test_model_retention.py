"""The nightly deletion of old models' files, run as Dagster runs it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from leadml_pipelines.automation.model_retention import every_night_retention, model_retention
from leadml_pipelines.learning.evaluation.examination import examine
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.learning.frames import spec_for, toy_set
from leadml_pipelines_tests.tables import empty_registry


@pytest.fixture
def ids(postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models of 31 days ago, the older one first."""
    monkeypatch.setenv("LEADML_HOME", str(home))
    monkeypatch.setenv("LEADML_MODEL_RETENTION_NEWEST", "1")
    spec = spec_for(rounds=5)
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    examined = examine(trained, resamples=50)
    registry = Registry.of(Settings(home=home), postgres_url)
    with connect(postgres_url) as connection:
        empty_registry(connection)
    ids = [registry.store(trained, examined, None).model_id for _ in range(2)]
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.models SET trained_at = now() - interval '31 days'")
    return ids


def run(postgres_url: str) -> dg.ExecuteInProcessResult:
    resources = {"postgres": PostgresResource(url=postgres_url), "settings": SettingsResource()}
    return model_retention.execute_in_process(resources=resources, raise_on_error=False)


def status(postgres_url: str, home: Path, model_id: str) -> str:
    return Registry.of(Settings(home=home), postgres_url).get(model_id).status


def test_the_night_deletes_by_the_settings(
    ids: list[str], postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in ("0", "32"):
        monkeypatch.setenv("LEADML_MODEL_RETENTION_DAYS", days)
        assert run(postgres_url).success
        assert status(postgres_url, home, ids[0]) != "pruned"
    monkeypatch.setenv("LEADML_MODEL_RETENTION_DAYS", "30")
    done = run(postgres_url)
    assert done.success
    assert status(postgres_url, home, ids[0]) == "pruned"
    (output,) = (event for event in done.all_events if event.is_successful_output)
    told = output.event_specific_data.metadata
    assert told["freed_bytes"].value > 0
    assert ids[0] in told["deleted"].value
    assert {path.name for path in (home / "artifacts").iterdir()} == {ids[1]}


def test_a_night_that_could_not_delete_something_fails_and_says_what(
    ids: list[str], postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADML_MODEL_RETENTION_DAYS", "30")
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.models SET artifact_uri = 'ftp://127.0.0.1:1/models/a'")
    done = run(postgres_url)
    assert not done.success
    (failed,) = (event for event in done.all_events if event.is_step_failure)
    said = failed.step_failure_data.error.to_string()
    assert ids[0] in said
    assert "ftp://127.0.0.1:1/models did not answer" in said


def test_it_runs_every_night_without_anyone_starting_it() -> None:
    assert every_night_retention.job_name == model_retention.name
    assert every_night_retention.default_status == dg.DefaultScheduleStatus.RUNNING
