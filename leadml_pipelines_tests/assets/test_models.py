"""The model assets in Dagster: what a run shows as it goes on, what a cancelled one leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from leadml_pipelines.assets.models import (
    TUNER_TAG,
    TrainingConfig,
    model_asset,
    training_set_asset,
)
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training_set import (
    OtherDeclarationError,
    assemble,
    save_training_set,
)
from leadml_pipelines.monitoring.trainings import trainings
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource
from leadml_pipelines.sources.extract import NoExtractError
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.learning.frames import DAY, FEATURES, START, rows_frame
from leadml_pipelines_tests.tables import empty_registry

_RUN = """
import os
import dagster as dg
from leadml_pipelines.assets.models import model_asset
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource

with dg.DagsterInstance.local_temp(os.environ["TEST_DAGSTER"]) as instance:
    dg.materialize(
        [model_asset("conversion")],
        instance=instance,
        resources={
            "postgres": PostgresResource(url=os.environ["LEADML_POSTGRES_URL"]),
            "settings": SettingsResource(),
        },
    )
"""


@pytest.fixture
def home(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with rows of `conversion`, and an empty registry."""
    span = {"data_start": START, "data_end": START + 200 * DAY}
    rows = assemble(SPECS["conversion"], rows_frame(), FEATURES, **span)
    save_training_set(rows, tmp_path / "training_sets")
    monkeypatch.setenv("LEADML_HOME", str(tmp_path))
    monkeypatch.setenv("LEADML_POSTGRES_URL", postgres_url)
    with connect(postgres_url) as connection:
        empty_registry(connection)
    return tmp_path


def recorded(url: str) -> list[tuple[str, str]]:
    """Model and state of the trainings that are remembered."""
    return [(one.model_name, one.state) for one in trainings(url, utc_now(), 30 * DAY)]


def test_a_run_tells_its_steps_and_ends_with_the_figures(home: Path, postgres_url: str) -> None:
    with dg.instance_for_test() as instance:
        done = dg.materialize(
            [model_asset("conversion")],
            instance=instance,
            resources={
                "postgres": PostgresResource(url=postgres_url),
                "settings": SettingsResource(),
            },
        )
        (made,) = done.get_asset_materialization_events()
        metadata = made.materialization.metadata
        assert str(metadata["model_id"].value).startswith("conversion_20")
        assert "data:image/png;base64," in metadata["card"].value
        assert 0.5 < metadata["roc_auc"].value < 1
        logged = [record.message for record in instance.all_logs(done.run_id)]
        assert any("search, fit" in message for message in logged)
        assert any("fitting on" in message for message in logged)
        seen = [
            record
            for record in instance.all_logs(done.run_id)
            if record.is_dagster_event
            and record.dagster_event.event_type_value == "ASSET_OBSERVATION"
        ]
        assert seen
        (training,) = trainings(postgres_url, utc_now(), 30 * DAY)
        passed = metadata["gate"].value and done.get_asset_check_evaluations()[0].passed
        assert (training.run_id, training.state) == (
            done.run_id,
            "succeeded" if passed else "rejected",
        )


def test_rows_of_another_declaration_fail_the_run_and_say_what_to_materialize(
    home: Path, postgres_url: str
) -> None:
    other = replace(SPECS["conversion"], population="not is_open")
    span = {"data_start": START, "data_end": START + 200 * DAY}
    save_training_set(assemble(other, rows_frame(100), FEATURES, **span), home / "training_sets")
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "settings": SettingsResource(),
    }
    with pytest.raises(
        OtherDeclarationError, match=r"\(population\); materialize conversion_training_set"
    ):
        dg.materialize([model_asset("conversion")], resources=resources)
    assert recorded(postgres_url) == [("conversion", "failed")]


def test_rows_that_can_not_be_built_are_a_training_that_failed(
    home: Path, postgres_url: str
) -> None:
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "settings": SettingsResource(),
    }
    with pytest.raises(NoExtractError):
        dg.materialize([training_set_asset("conversion")], resources=resources)
    assert recorded(postgres_url) == [("conversion", "failed")]


def test_a_run_with_the_tag_of_the_night_searches_with_a_budget(
    home: Path, postgres_url: str
) -> None:
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "settings": SettingsResource(),
    }
    config = dg.RunConfig(ops={"conversion_model": TrainingConfig(tuning_trials=3)})
    done = dg.materialize(
        [model_asset("conversion")],
        resources=resources,
        run_config=config,
        tags={TUNER_TAG: "optuna"},
    )
    assert done.success
    with connect(postgres_url) as connection:
        (tuning,) = connection.execute("SELECT tuning FROM leadml.models").fetchone() or ({},)
    assert tuning["tuner"] == "optuna"
    assert len(tuning["combinations"]) + tuning["pruned"] == 3


def test_a_cancelled_run_ends_within_seconds_and_leaves_nothing_half_registered(
    home: Path, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (home / "leadml.toml").write_text(
        '[models.conversion]\ntuner = "optuna"\ntuning_trials = 100000\n', encoding="utf-8"
    )
    dagster_home = tmp_path_factory.mktemp("dagster")
    environment = {**os.environ, "TEST_DAGSTER": str(dagster_home)}
    with subprocess.Popen(
        [sys.executable, "-c", _RUN], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 90
        while not (home / "tuning").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (home / "tuning").exists(), "the search did not begin"
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=30)
    assert running.returncode != 0
    assert "Interrupted" in said or "KeyboardInterrupt" in said
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM leadml.models").fetchone() == (0,)
    assert recorded(postgres_url) == [("conversion", "cancelled")]
    assert not list(home.glob("artifacts/*"))
