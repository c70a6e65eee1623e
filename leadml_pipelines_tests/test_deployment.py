from __future__ import annotations

import socket
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from leadml_pipelines.deployment import (
    HTTP,
    Deployment,
    end_abandoned_runs,
    keep_settings,
    write_dagster_home,
)
from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.records import Launch

ROOT = Path(__file__).parents[1]


def test_a_run_whose_process_died_with_its_daemon_frees_its_place() -> None:
    with dg.instance_for_test(set_dagster_home=True) as instance:
        dead = dg.DagsterRun(job_name="nightly_training", status=dg.DagsterRunStatus.STARTED)
        done = dg.DagsterRun(job_name="nightly_training", status=dg.DagsterRunStatus.SUCCESS)
        instance.add_run(dead)
        instance.add_run(done)
        end_abandoned_runs()
        found = {run.run_id: run.status for run in instance.get_runs()}
    assert found[dead.run_id] == dg.DagsterRunStatus.FAILURE
    assert found[done.run_id] == dg.DagsterRunStatus.SUCCESS


def test_dagsters_files_are_where_dagster_home_points(tmp_path: Path) -> None:
    write_dagster_home(tmp_path)
    instance = yaml.safe_load((tmp_path / "dagster.yaml").read_text(encoding="utf-8"))
    assert instance["storage"]["postgres"]["postgres_url"] == {"env": "LEADML_DAGSTER_URL"}
    workspace = yaml.safe_load((tmp_path / "workspace.yaml").read_text(encoding="utf-8"))
    assert workspace == yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))


def test_a_port_that_is_taken_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = Deployment(tmp_path)._port(HTTP, port)
    assert chosen != port
    assert Deployment(tmp_path)._port(HTTP, 0) == chosen


def test_a_port_that_was_asked_for_and_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"something else listens on port {port}"):
            Deployment(tmp_path).start_http(port)


def test_a_port_that_is_taken_after_it_was_chosen_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = (
        "import socket, sys, time; s = socket.socket(); "
        "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); time.sleep(60)"
    )

    def launch(port: int) -> Launch:
        argv = [sys.executable, "-c", listen, str(port)]
        return Launch(argv, lambda: True, address=f"http://127.0.0.1:{port}", port=port)

    # It was free at the look.
    monkeypatch.setattr("leadml_pipelines.deployment.port_is_free", lambda _: True)
    deployment = Deployment(tmp_path)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        try:
            address = deployment._start_on_port(HTTP, None, taken, launch)
        finally:
            deployment.stack.stop_all()
    assert address not in {"", f"http://127.0.0.1:{taken}"}


def test_a_mapping_without_settings_writes_no_file(tmp_path: Path) -> None:
    mapping = ROOT / "examples" / "bpi2012" / "mapping.toml"
    text = mapping.read_text(encoding="utf-8").split("[settings]")[0]
    bare = tmp_path / "mapping.toml"
    bare.write_text(text, encoding="utf-8")
    keep_settings(bare, tmp_path)
    assert not (tmp_path / "leadml.toml").exists()


@pytest.mark.parametrize("earlier", ["14d", "21d"])
def test_the_settings_of_a_mapping_follow_the_last_import(tmp_path: Path, earlier: str) -> None:
    mapping = tmp_path / "mapping.toml"
    original = (ROOT / "examples" / "bpi2012" / "mapping.toml").read_text(encoding="utf-8")
    mapping.write_text(original.replace('"14d"', f'"{earlier}"'), encoding="utf-8")
    keep_settings(mapping, tmp_path)
    assert f'horizon = "{earlier}"' in (tmp_path / "leadml.toml").read_text(encoding="utf-8")
    mapping.write_text(original, encoding="utf-8")
    keep_settings(mapping, tmp_path)
    assert 'horizon = "14d"' in (tmp_path / "leadml.toml").read_text(encoding="utf-8")
