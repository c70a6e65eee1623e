from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadml_pipelines.cli import app
from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training.trees import usable_device
from leadml_pipelines.learning.training_set import assemble, save_training_set
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.learning.frames import DAY, FEATURES, START, rows_frame

SPEC = SPECS["conversion"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEADML_TRAINING_THREADS", "1")
    rows = rows_frame(700, days=260)
    made = assemble(SPEC, rows, FEATURES, data_start=START, data_end=START + 290 * DAY)
    save_training_set(made, Settings(home=tmp_path).training_sets)
    return tmp_path


def _run(home: Path, *options: str) -> str:
    command = ["models", "backtest", "conversion", "--home", str(home), *options]
    ended = CliRunner().invoke(app, command, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_json_has_a_cut_for_each_date(home: Path) -> None:
    found = json.loads(_run(home, "--cuts", "2", "--every", "30d", "--json"))
    assert (found["model"], found["metric"]) == ("conversion", "roc_auc")
    assert found["cuts"][0]["until"] == found["cuts"][1]["at"]
    for cut in found["cuts"]:
        figure = cut["model"]["roc_auc"]
        assert figure["low"] < figure["value"] < figure["high"]


def test_the_table_names_the_dates_and_the_metric(home: Path) -> None:
    text = _run(home, "--cuts", "1", "--every", "30d")
    for part in ("conversion, trained on what was known", "ROC AUC", "known until", "rows"):
        assert part in text


def test_it_trains_on_the_device_of_the_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usable_device.cache_clear()
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("LEADML_DEVICE", "cuda")
    said = _run(home, "--cuts", "1", "--every", "30d", "--json") + caplog.text
    # Where there is no GPU, somebody has asked for one.
    assert usable_device("cuda") == "cuda" or "no_gpu" in said


def test_a_length_that_is_none_is_refused(home: Path) -> None:
    command = ["models", "backtest", "conversion", "--home", str(home), "--every", "soon"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2
    assert "30d" in ended.output


def test_a_model_that_is_not_declared_is_refused_by_name(home: Path) -> None:
    command = ["models", "backtest", "renewals", "--home", str(home)]
    with pytest.raises(UserError, match="there is no model renewals; the models are"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_rows_of_another_declaration_are_refused_with_the_way_out(home: Path) -> None:
    other = replace(SPEC, horizon=20 * DAY)
    rows = rows_frame(100)
    made = assemble(other, rows, FEATURES, data_start=START, data_end=START + 290 * DAY)
    save_training_set(made, Settings(home=home).training_sets)
    command = ["models", "backtest", "conversion", "--home", str(home)]
    with pytest.raises(UserError, match=r"horizon_seconds.*--rebuild"):
        CliRunner().invoke(app, command, catch_exceptions=False)
