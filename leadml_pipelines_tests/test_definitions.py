from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from leadml_pipelines.assets.models import TUNER_TAG
from leadml_pipelines.definitions import defs
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.specs import SPECS

HEAVY = ("pandas", "duckdb", "xgboost", "sklearn", "pyarrow", "sqlframe", "igraph", "neo4j")


def test_everything_that_dagster_loads_fits_together() -> None:
    dg.Definitions.validate_loadable(defs)


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    """Every code server and every step pays for what is imported here."""
    code = (
        "import sys, leadml_pipelines.definitions\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_every_view_and_every_model_is_an_asset() -> None:
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert {f"{view.name}_features" for view in catalogue().views("lead")} <= keys
    for name in SPECS:
        assert {f"{name}_training_set", f"{name}_model", f"{name}_champion"} <= keys


@pytest.mark.parametrize(
    ("job", "reaches"),
    [("nightly_features", "feature_snapshot"), ("nightly_training", "churn_champion")],
)
def test_a_nightly_job_ends_where_a_sensor_takes_over(job: str, reaches: str) -> None:
    selected = {
        key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys
    }
    assert reaches in selected
    assert not selected & {"online_features", "online_models"}


def test_the_nightly_training_searches_with_a_budget() -> None:
    assert defs.resolve_job_def("nightly_training").tags[TUNER_TAG] == "optuna"


def test_addresses_come_from_variables_whose_values_dagster_never_shows() -> None:
    resource = (defs.resources or {})["postgres"]
    assert isinstance(resource.url, dg.EnvVar)
