"""`leadml alerts`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
        connection.execute("TRUNCATE leadml.alerts, leadml.alert_runs")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the terminal shows."""
    written = StringIO()
    monkeypatch.setattr(command, "terminal", lambda: Console(file=written))
    return written


def test_before_the_first_judgement_nothing_is_said_to_be_well(text: StringIO) -> None:
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    assert text.getvalue().startswith("no rule was judged yet;")


def test_no_alert_is_said_so_and_when_the_rules_were_judged(
    postgres_url: str, text: StringIO
) -> None:
    record_judgements(postgres_url, [], NOW)
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    told = "no alert fires; the rules were judged last at 2026-04-12 05:30 UTC"
    assert text.getvalue().startswith(told)


def test_an_alert_that_can_not_be_judged_any_more_is_told_with_its_last_judgement(
    postgres_url: str, text: StringIO
) -> None:
    record_judgements(postgres_url, [DRIFT], NOW)
    unknown = Judgement("drift", "churn", False, "churn: not enough yet")
    record_judgements(postgres_url, [unknown], NOW + timedelta(hours=2))
    assert CliRunner().invoke(app, ["alerts"]).exit_code == 0
    assert "[moved] (not judged since 2026-04-12 05:30 UTC)" in text.getvalue()
    assert "judged last at 2026-04-12 07:30 UTC" in text.getvalue()


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
