"""Several commands in one home: a server runs as long as one of them uses it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from leadml_pipelines.services.home import Home
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.services.users import Users

pytestmark = pytest.mark.usefixtures("embedded_only")

JOIN = """
import pathlib, sys, time
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.users import Users
Users(Home(pathlib.Path(sys.argv[1]))).join()
print("joined", flush=True)
time.sleep(60)
"""


@pytest.fixture
def first(home: Path) -> Iterator[ServiceStack]:
    stack = ServiceStack(home)
    yield stack
    stack.remove()


@pytest.fixture
def second(home: Path) -> Iterator[ServiceStack]:
    stack = ServiceStack(home)
    yield stack
    stack.stop_all()


def redis_runs(stack: ServiceStack) -> bool:
    return stack.supervisor.running("redis") is not None


def test_a_server_that_another_command_uses_runs_on_until_that_one_stops(
    first: ServiceStack, second: ServiceStack
) -> None:
    first.start(only=["redis"])
    second.start(only=["redis"])
    first.stop()
    assert redis_runs(second)
    second.stop()
    assert not redis_runs(second)


def test_who_used_a_server_does_not_stop_it_while_its_starter_goes_on(
    first: ServiceStack, second: ServiceStack
) -> None:
    first.start(only=["redis"])
    second.start(only=["redis"])
    second.stop()
    assert redis_runs(first)
    first.stop()
    assert not redis_runs(first)


def test_a_failed_start_leaves_a_server_that_another_command_uses(
    first: ServiceStack, second: ServiceStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        second.start(only=["redis"])
        raise RuntimeError("the line could not be shown")

    with pytest.raises(RuntimeError):
        first.start(fail, only=["redis"])
    assert redis_runs(second)


def test_kept_servers_run_on_after_every_command(first: ServiceStack, second: ServiceStack) -> None:
    first.start(only=["redis"])
    second.start(only=["redis"])
    second.keep()
    second.stop()
    first.stop()
    assert redis_runs(first)
    first.stop_all()
    assert not redis_runs(first)


def test_a_server_that_is_started_anew_is_not_kept(first: ServiceStack) -> None:
    first.start(only=["redis"])
    first.keep()
    first.stop_all()
    first.start(only=["redis"])
    first.stop()
    assert not redis_runs(first)


def test_a_killed_command_uses_nothing_any_more(home: Path) -> None:
    users = Users(Home(home))
    users.join()
    command = [sys.executable, "-c", JOIN, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"joined\n"
        with users.leaving() as last:
            assert not last
        users.join()
        other.kill()
    with users.leaving() as last:
        assert last


def test_a_command_that_begins_waits_for_the_last_one_to_stop_everything(home: Path) -> None:
    leaving, joining = Users(Home(home)), Users(Home(home))
    leaving.join()
    thread = threading.Thread(target=joining.join)
    with leaving.leaving():
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
    thread.join(timeout=10)
    assert not thread.is_alive()
    with joining.leaving() as last:
        assert last


def test_to_stop_where_nothing_was_started_makes_no_home(home: Path) -> None:
    ServiceStack(home / "absent").stop()
    assert not (home / "absent").exists()
