from __future__ import annotations

from pathlib import Path

import pytest

from leadml_pipelines.services.external import dagster_url, external_settings
from leadml_pipelines.services.home import Home

pytestmark = pytest.mark.usefixtures("embedded_only")


def evaluate(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `eval "$(leadml env)"` does in a shell."""
    home.create()
    postgres, redis, graph = (home.secret(name) for name in ("postgres", "redis", "graph"))
    variables = {
        "HOME": str(home.path),
        "POSTGRES_URL": f"postgresql://leadml:{postgres}@127.0.0.1:1/leadml",
        "DAGSTER_URL": f"postgresql+psycopg2://leadml:{postgres}@127.0.0.1:1/dagster",
        "REDIS_URL": f"redis://:{redis}@127.0.0.1:2/0",
        "NEO4J_URI": "bolt://127.0.0.1:3",
        "NEO4J_USER": "root",
        "NEO4J_PASSWORD": graph,
        "NEO4J_DATABASE": "leadml",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"LEADML_{name}", value)


def test_printed_variables_of_one_home_do_not_name_servers_for_another(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(Home(tmp_path / "a"), monkeypatch)
    assert external_settings(Home(home)) == {}


def test_the_printed_dagster_storage_of_one_home_is_not_used_for_another(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(Home(tmp_path / "a"), monkeypatch)
    own = {"LEADML_POSTGRES_URL": "postgresql://leadml:own@127.0.0.1:9/leadml"}
    url = dagster_url(Home(home), own, external=False)
    assert url == "postgresql+psycopg2://leadml:own@127.0.0.1:9/dagster"


def test_a_server_of_ones_own_is_external_whatever_home_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(Home(tmp_path / "a"), monkeypatch)
    monkeypatch.setenv("LEADML_POSTGRES_URL", "postgresql://me:mine@db.example/crm")
    assert list(external_settings(Home(home))) == ["postgres"]
