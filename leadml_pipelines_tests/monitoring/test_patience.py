"""A PostgreSQL that is frozen ends a monitoring job, in words, and no job hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from leadml_pipelines.assets.monitoring import alerts, drift_assets, live_assets
from leadml_pipelines.monitoring import patience
from leadml_pipelines.postgres import SilentServerError, connect
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource


@pytest.fixture(autouse=True)
def _little_patience(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADML_HOME", str(home))
    monkeypatch.setitem(patience.LIMITS, "connect_timeout", 2)
    monkeypatch.setitem(patience.LIMITS, "answer_seconds", 1.0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """Address of a server whose kernel takes connections and that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/none"


@pytest.mark.parametrize("asset", [drift_assets[0], alerts], ids=["drift", "alerts"])
def test_a_server_that_lets_nobody_in_ends_the_job_in_words(
    deaf: str, asset: dg.AssetsDefinition
) -> None:
    resources = {"postgres": PostgresResource(url=deaf), "settings": SettingsResource()}
    with pytest.raises(SilentServerError, match="PostgreSQL did not let us in in time"):
        dg.materialize([asset], resources=resources)


def test_the_outcomes_ask_the_registry_first_which_does_not_wait_either(deaf: str) -> None:
    resources = {"postgres": PostgresResource(url=deaf), "settings": SettingsResource()}
    with pytest.raises(SilentServerError, match="PostgreSQL did not let us in in time"):
        dg.materialize([live_assets[0]], resources=resources)


def test_a_server_that_freezes_in_the_middle_is_given_up_in_words(postgres_url: str) -> None:
    with patience.connect(postgres_url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        backend = psutil.Process(row[0])
        backend.suspend()
        try:
            with pytest.raises(SilentServerError, match="PostgreSQL gave no answer in 1 s"):
                connection.execute("SELECT 1")
        finally:
            backend.resume()
        assert connection.closed


def test_a_question_within_the_limit_is_answered(postgres_url: str) -> None:
    with patience.connect(postgres_url, answer_seconds=30) as connection:
        assert connection.execute("SELECT pg_sleep(1.2)::text").fetchone() == ("",)
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
