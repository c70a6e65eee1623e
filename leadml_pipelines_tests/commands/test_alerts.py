"""`leadml alerts`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from leadml_pipelines.cli import app
from leadml_pipelines.commands import alerts as command
from leadml_pipelines.monitoring.alert_state import record_judgements
from leadml_pipelines.monitoring.alerts import Judgement
from leadml_pipelines.postgres import connect

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
DRIFT = Judgement(
    "drift", "churn", True, "churn: 1 of 6 columns [moved]", 1.0, 0.0, "critical", ("age",)
)


@pytest.fixture(autouse=True)
def _this_database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    @contextmanager
    def here(_home: Path) -> Iterator[str]:
        yield postgres_url

    monkeypatch.setattr(command, "postgres", here)
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.alerts")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the terminal shows."""
    written = StringIO()
    monkeypatch.setattr(command, "terminal", lambda: Console(file=written))
    return written


def test_no_alert_is_said_so(text: StringIO) -> None:
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    assert text.getvalue().startswith("no alert fires;")


def test_what_fires_is_told_in_words(postgres_url: str, text: StringIO) -> None:
    record_judgements(postgres_url, [DRIFT], NOW)
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    out = text.getvalue()
    assert "critical drift, since 2026-04-12 05:30 UTC" in out
    assert "churn: 1 of 6 columns [moved]" in out
    assert "do: open the report" in out


def test_what_fires_is_told_as_json(postgres_url: str) -> None:
    record_judgements(postgres_url, [DRIFT], NOW)
    result = CliRunner().invoke(app, ["alerts", "--json"])
    (alert,) = json.loads(result.stdout)
    assert (alert["rule"], alert["since"]) == ("drift", "2026-04-12T05:30:00+00:00")
