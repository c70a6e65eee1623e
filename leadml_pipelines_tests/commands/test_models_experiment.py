"""`leadml models experiment` as a user calls it, over the session's PostgreSQL."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines_tests.end_to_end.commands import LEADML, environment
from leadml_pipelines_tests.features.test_audit import world_of
from leadml_pipelines_tests.features.world import NOW, empty_graph_metrics

BEFORE = NOW - timedelta(days=90)


@pytest.fixture
def home_with_experiment(postgres_url: str, home: Path) -> Iterator[Path]:
    """A home with an extract, a challenger, and two predictions whose outcomes are known."""
    world = world_of("a", "b")
    world.add("closures", lead_id="b", closed_at=NOW - timedelta(days=34), reason="lost")
    world.load(postgres_url)
    extract = extract_sources(postgres_url, home / "extracts", clock="data")
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    with connect(postgres_url) as connection:
        for model_id, threshold in (("churn_1", 0.5), ("churn_2", 0.3)):
            connection.execute(
                "INSERT INTO leadml.models (model_id, name, status, description, objective, "
                "threshold, horizon, signature, spec_hash, training_set_hash, code_version, "
                "package_versions, params, tuning, counts, metrics, baseline, gate_passed, "
                "gate_reasons, artifact_uri, sha256, trained_at, seconds) VALUES (%s, 'churn', "
                "'candidate', '', 'classification', %s, '60 days', '[]', '', '', '', '{}', '{}', "
                "'{}', '{}', '{}', '{}', true, '[]', '', '{}', now(), 1)",
                (model_id, threshold),
            )
        connection.execute(
            "INSERT INTO leadml.model_aliases (name, alias, model_id, changed_at, changed_by) "
            "VALUES ('churn', 'challenger', 'churn_2', now(), 'test')"
        )
        for number, (model_id, role, entity_id, prediction) in enumerate(
            [("churn_1", "champion", "a", 0), ("churn_2", "challenger", "b", 1)]
        ):
            connection.execute(
                "INSERT INTO leadml.predictions (prediction_id, model_name, model_id, role, "
                "entity_type, entity_id, features_as_of, predicted_at, value, prediction, source, "
                "stale, degraded, experiment, traffic_share) VALUES (%s, 'churn', %s, %s, "
                "'lead', %s, %s, %s, 0.4, %s, 'cache', false, false, 'churn_2', 0.5)",
                (str(number), model_id, role, entity_id, BEFORE, BEFORE, prediction),
            )
    yield home
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions, leadml.model_aliases, leadml.models")


def experiment(url: str, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `leadml models experiment` in a home whose PostgreSQL the environment names."""
    return subprocess.run(
        [LEADML, "models", "experiment", "--home", str(home), *options],
        env=environment() | {"LEADML_POSTGRES_URL": url, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_both_models_and_a_verdict_are_shown(postgres_url: str, home_with_experiment: Path) -> None:
    done = experiment(postgres_url, home_with_experiment, "churn")
    assert done.returncode == 0, done.stderr
    assert "churn_1" in done.stdout
    assert "churn_2" in done.stdout
    assert "not enough outcomes yet: 1 of about 200 needed" in done.stdout


def test_the_report_is_printed_as_json(postgres_url: str, home_with_experiment: Path) -> None:
    done = experiment(
        postgres_url, home_with_experiment, "churn", "--challenger", "churn_2", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["champion"]["known_entities"] == told["challenger"]["known_entities"] == 1
    # `a` was heard of within the horizon, `b` was lost; the challenger alone said yes.
    assert told["champion"]["figures"]["accuracy"]["value"] == 1.0
    assert told["challenger"]["figures"]["accuracy"]["value"] == 1.0
    assert told["challenger"]["positives"] == 1


def test_a_model_without_a_challenger_is_an_error_with_the_way_out(
    postgres_url: str, home_with_experiment: Path
) -> None:
    done = experiment(postgres_url, home_with_experiment, "conversion")
    assert done.returncode == 1
    assert "conversion has no challenger" in done.stderr
