"""The sensor that asks for a retraining after drift."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from leadml_pipelines.automation.retraining import REASON, drift_retraining_sensor
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.monitoring.drift import ColumnDrift
from leadml_pipelines.monitoring.populations import Populations
from leadml_pipelines.monitoring.records import record_drift
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import (
    PostgresResource,
    SettingsResource,
    registry,
)
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.monitoring.watched import TODAY, add_champion, leads


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADML_HOME", str(home))
    monkeypatch.setenv("LEADML_RETRAINING_COOLDOWN_HOURS", "0")


@pytest.fixture(scope="module")
def champion_id(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A champion named churn."""
    folder = tmp_path_factory.mktemp("artifacts")
    models: Registry
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEADML_HOME", str(folder))
        models = registry(PostgresResource(url=postgres_url), SettingsResource())
        return add_champion(models, folder / "training_sets", rows=600).model_id


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance without runs."""
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_drift(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.drift")


def drift(url: str, model_id: str, *names: str, hours_ago: float = 0) -> None:
    """Record a comparison in which these columns have drifted."""
    rows = leads(10, 1)
    both = Populations(model_id, rows, np.zeros(10, np.int64), rows, (), TODAY)
    columns = [ColumnDrift(name, "double", 1.0, 0.1, 0.5, 0.1, 0.0, 0.0, True) for name in names]
    record_drift(url, "churn", both, columns, utc_now() - timedelta(hours=hours_ago))


def tick(url: str, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """Evaluate the sensor once: the run it requests, or why none."""
    context = dg.build_sensor_context(
        instance=instance,
        resources={"postgres": PostgresResource(url=url), "settings": SettingsResource()},
    )
    result = drift_retraining_sensor.evaluate_tick(context)
    if result.run_requests:
        (request,) = result.run_requests
        return request
    return str(result.skip_message)


def began(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    """A run of the training job that begins now."""
    instance.add_run(dg.DagsterRun(job_name="nightly_training", status=status))


def test_without_drift_nothing_is_asked_for(
    postgres_url: str, champion_id: str, instance: dg.DagsterInstance
) -> None:
    assert tick(postgres_url, instance) == "no champion has drifted over its limit"
    drift(postgres_url, champion_id)
    assert tick(postgres_url, instance) == "no champion has drifted over its limit"


def test_drift_asks_for_one_training_of_the_model_that_drifted_and_says_why(
    postgres_url: str, champion_id: str, instance: dg.DagsterInstance
) -> None:
    drift(postgres_url, champion_id, "lead_age_days", "state")
    request = tick(postgres_url, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.tags[REASON] == "drift of churn: lead_age_days, state"
    keys = [key.to_user_string() for key in request.asset_selection or []]
    assert keys == ["churn_training_set", "churn_model", "churn_champion"]
    # Until Dagster has launched it, the key keeps a second one away.
    again = tick(postgres_url, instance)
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == request.run_key
    began(instance, dg.DagsterRunStatus.SUCCESS)
    assert tick(postgres_url, instance) == "a training has begun since drift was recorded"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_nothing_is_asked_for_while_a_training_is_under_way(
    postgres_url: str,
    champion_id: str,
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
) -> None:
    began(instance, status)
    drift(postgres_url, champion_id, "state")
    assert "is training" in str(tick(postgres_url, instance))


def test_a_training_of_a_short_while_ago_is_enough(
    postgres_url: str,
    champion_id: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began(instance, dg.DagsterRunStatus.FAILURE)
    drift(postgres_url, champion_id, "state")
    assert isinstance(tick(postgres_url, instance), dg.RunRequest)
    monkeypatch.setenv("LEADML_RETRAINING_COOLDOWN_HOURS", "24")
    assert tick(postgres_url, instance) == "a training began less than 24 hours ago"


def test_drift_that_is_expected_or_of_long_ago_asks_for_nothing(
    postgres_url: str,
    champion_id: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drift(postgres_url, champion_id, "state", hours_ago=24 * 4)
    assert tick(postgres_url, instance) == "no champion has drifted over its limit"
    drift(postgres_url, champion_id, "state")
    monkeypatch.setenv("LEADML_DRIFT_EXPECTED", "lead_age_days, state")
    assert tick(postgres_url, instance) == "no champion has drifted over its limit"
