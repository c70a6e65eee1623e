"""The embedded graph, without starting it."""

from __future__ import annotations

from pathlib import Path

import pytest

from leadml_pipelines.services.graph import GraphService
from leadml_pipelines.services.home import Home


def test_the_graph_server_is_given_no_secret_of_leadml(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADML_SIGNING_KEY", "the key")
    monkeypatch.setenv("LEADML_ALERT_WEBHOOK_URL", "https://hooks.example/token")
    monkeypatch.setenv("JAVA_HOME", "/java")
    made = Home(home)
    made.create()
    given = GraphService().launch(made, (1, 2)).env
    assert given is not None
    assert given["JAVA_HOME"] == "/java"
    assert not [name for name in given if name.startswith("LEADML_")]
