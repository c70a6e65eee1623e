from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from leadml_pipelines.services.children import end_tree
from leadml_pipelines.services.errors import (
    ProcessEndedError,
    ServiceError,
    StartCancelledError,
)
from leadml_pipelines.services.home import Home, free_port
from leadml_pipelines.services.identity import listens
from leadml_pipelines.services.processes import ProcessSupervisor, http_ready
from leadml_pipelines.services.records import Launch, ProcessRecord

# Says in a file that it is there, with a child of its own in the same session and, on request, one
# in a session of its own.
PARENT = """
import pathlib, subprocess, sys, time
apart = sys.argv[2] == "apart"
child = subprocess.Popen(["sleep", "60"], start_new_session=apart)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def supervisor(home: Path) -> Iterator[ProcessSupervisor]:
    supervisor = ProcessSupervisor(Home(home))
    yield supervisor
    supervisor.stop_all()


def sleep(**options: Any) -> Launch:
    return Launch(["sleep", "60"], **{"ready": lambda: True, **options})


def python(code: str, *arguments: str, **options: Any) -> Launch:
    argv = [sys.executable, "-c", code, *arguments]
    return Launch(argv, **{"ready": lambda: True, **options})


LISTEN = (
    "import socket, sys, time; s = socket.socket(); "
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); time.sleep(60)"
)


@contextmanager
def _listening() -> Iterator[int]:
    """A port of 127.0.0.1 on which this process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within ten seconds"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_was_stopped_counts_as_started_no_more(
    supervisor: ProcessSupervisor,
) -> None:
    supervisor.start("a", sleep())
    supervisor.start("b", sleep())
    supervisor.stop("a")
    assert supervisor.started == ["b"]


def test_an_interruption_right_after_the_launch_leaves_nothing_behind(
    supervisor: ProcessSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    launch = ProcessSupervisor._launch

    def interrupted(self: ProcessSupervisor, name: str, how: Launch) -> ProcessRecord:
        launched.append(launch(self, name, how))
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessSupervisor, "_launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        supervisor.start("a", sleep())
    assert gone(launched[0].pid)
    assert supervisor.started == []
    assert supervisor.records() == {}


def test_a_start_returns_once_the_process_is_ready(
    supervisor: ProcessSupervisor, tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    code = "import pathlib, sys, time; time.sleep(.2); pathlib.Path(sys.argv[1]).touch()"
    record = supervisor.start(
        "slow", python(code + "; time.sleep(60)", str(sign), ready=sign.exists)
    )
    assert sign.exists()
    assert record.alive


def test_a_stranger_on_its_port_is_not_taken_for_the_process(
    supervisor: ProcessSupervisor,
) -> None:
    with _listening() as port, pytest.raises(ServiceError, match="not ready after"):
        supervisor.start("one", sleep(port=port, timeout=0.3))


def test_a_process_whose_child_listens_on_its_port_is_ready(
    supervisor: ProcessSupervisor,
) -> None:
    parent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    )
    port = free_port()
    record = supervisor.start("one", python(parent, LISTEN, str(port), port=port))
    assert record.alive


def test_a_process_that_finds_its_port_taken_is_started_on_another(
    supervisor: ProcessSupervisor,
) -> None:
    with _listening() as taken:
        chosen = supervisor.start_on_free_ports(
            "one",
            lambda fresh: (free_port() if fresh else taken,),
            lambda ports: python(LISTEN, str(ports[0]), port=ports[0]),
        )
        assert chosen != (taken,)
    assert listens(supervisor.records()["one"].pid, chosen[0])


def test_a_process_that_ends_for_another_reason_is_started_once(
    supervisor: ProcessSupervisor, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    with pytest.raises(ServiceError, match="exit status 3"):
        supervisor.start_on_free_ports(
            "one",
            lambda _: (free_port(),),
            lambda _: python(code, str(starts), ready=lambda: False),
        )
    assert starts.read_text(encoding="utf-8") == "x"


def test_a_process_has_a_session_of_its_own(supervisor: ProcessSupervisor) -> None:
    record = supervisor.start("one", sleep())
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


def test_a_stopped_process_is_gone_and_forgotten(supervisor: ProcessSupervisor) -> None:
    record = supervisor.start("one", sleep())
    assert supervisor.stop("one")
    assert not psutil.pid_exists(record.pid)
    assert supervisor.records() == {}


def test_stopping_what_does_not_run_says_so(supervisor: ProcessSupervisor) -> None:
    assert not supervisor.stop("one")


def test_another_command_can_stop_it(supervisor: ProcessSupervisor, home: Path) -> None:
    record = supervisor.start("one", sleep())
    assert ProcessSupervisor(Home(home)).stop_all() == ["one"]
    assert gone(record.pid)


def test_a_running_process_is_not_started_again(supervisor: ProcessSupervisor, home: Path) -> None:
    first = supervisor.start("one", sleep())
    second = ProcessSupervisor(Home(home))
    assert second.start("one", sleep()) == first
    assert second.started == []


def test_a_process_running_on_another_address_is_left_alone(
    supervisor: ProcessSupervisor,
) -> None:
    first = supervisor.start("one", sleep(address="http://127.0.0.1:1"))
    other = sleep(address="http://127.0.0.1:2", ready=lambda: False)
    assert supervisor.start("one", other) == first


def test_only_what_was_started_is_stopped(supervisor: ProcessSupervisor, home: Path) -> None:
    theirs = supervisor.start("theirs", sleep())
    mine = ProcessSupervisor(Home(home))
    mine.start("theirs", sleep())
    record = mine.start("mine", sleep())
    mine.hand_over()
    mine.stop_orphaned()
    assert theirs.alive
    assert not record.alive


def test_a_process_that_dies_is_reported_with_the_end_of_its_log(
    supervisor: ProcessSupervisor,
) -> None:
    launch = python("print('no such disk'); raise SystemExit(3)", ready=lambda: False)
    with pytest.raises(ProcessEndedError, match=r"(?s)one ended \(exit status 3\).*no such disk"):
        supervisor.start("one", launch)
    assert supervisor.records() == {}


def test_the_log_of_an_earlier_run_is_not_quoted(supervisor: ProcessSupervisor) -> None:
    for word in ("apples", "pears"):
        with pytest.raises(ProcessEndedError) as caught:
            supervisor.start("one", python(f"raise SystemExit('{word}')", ready=lambda: False))
    assert "pears" in str(caught.value)
    assert "apples" not in str(caught.value)


def test_a_web_server_is_asked_without_the_proxy_of_the_environment(
    supervisor: ProcessSupervisor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    port = Home(home).port("web")
    url = f"http://127.0.0.1:{port}/"
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    supervisor.start("web", Launch(argv, lambda: http_ready(url)))
    assert not http_ready(f"{url}no/such/page")


def test_a_process_that_is_never_ready_is_ended(supervisor: ProcessSupervisor) -> None:
    pids = []

    def ready() -> bool:
        pids.append(supervisor.records()["one"].pid)
        return False

    with pytest.raises(ServiceError, match="not ready after 0 seconds"):
        supervisor.start("one", sleep(ready=ready, timeout=0.1))
    assert gone(pids[0])
    assert supervisor.records() == {}


def test_an_interrupted_start_leaves_nothing(supervisor: ProcessSupervisor) -> None:
    pids = []

    def ready() -> bool:
        pids.append(supervisor.records()["one"].pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervisor.start("one", sleep(ready=ready))
    assert gone(pids[0])
    assert supervisor.records() == {}
    assert supervisor.started == []


def test_a_cancelled_start_leaves_nothing(supervisor: ProcessSupervisor) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(StartCancelledError):
        supervisor.start("one", sleep(ready=lambda: False), cancelled)
    assert supervisor.records() == {}


def test_a_program_that_is_missing_is_named(supervisor: ProcessSupervisor) -> None:
    with pytest.raises(ServiceError, match="/no/such/program"):
        supervisor.start("one", Launch(["/no/such/program"], lambda: True))


@pytest.mark.parametrize("where", ["beside", "apart"])
def test_the_children_of_a_process_end_with_it(
    supervisor: ProcessSupervisor, tmp_path: Path, where: str
) -> None:
    note = tmp_path / "child"
    supervisor.start(
        "one",
        python(PARENT, str(note), where, ready=lambda: bool(note.exists() and note.read_text())),
    )
    child = int(note.read_text())
    assert psutil.pid_exists(child)
    supervisor.stop("one")
    assert gone(child)


def test_the_children_of_a_killed_process_are_ended_too(
    supervisor: ProcessSupervisor, tmp_path: Path
) -> None:
    note = tmp_path / "child"
    record = supervisor.start(
        "one",
        python(PARENT, str(note), "beside", ready=lambda: bool(note.exists() and note.read_text())),
    )
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: not record.alive)
    assert not supervisor.stop("one")
    assert gone(int(note.read_text()))


def test_a_process_that_ignores_the_request_is_killed(
    supervisor: ProcessSupervisor, tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    code = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    record = supervisor.start("one", python(code, str(sign), ready=sign.exists, stop_timeout=0.2))
    assert supervisor.stop("one")
    assert gone(record.pid)


def test_a_recycled_pid_is_not_signalled(supervisor: ProcessSupervisor, home: Path) -> None:
    record = supervisor.start("one", sleep())
    earlier = f"{record.identity.rpartition('|')[0]}|1"
    Home(home).update_state(lambda state: state["processes"]["one"].update(identity=earlier))
    try:
        assert supervisor.running("one") is None
        assert not supervisor.stop("one")
        assert record.alive
        assert supervisor.records() == {}
    finally:
        end_tree(record)


def test_a_process_that_ended_by_itself_can_be_started_again(
    supervisor: ProcessSupervisor,
) -> None:
    first = supervisor.start("one", sleep())
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not first.alive)
    assert supervisor.start("one", sleep()).pid != first.pid


def test_a_process_reads_what_it_is_fed(supervisor: ProcessSupervisor, home: Path) -> None:
    supervisor.run("one", python("print(input()[::-1])", stdin=b"desserts\n"))
    assert Home(home).log("one").read_text() == "stressed\n"


def test_a_command_that_fails_is_reported_with_its_output(supervisor: ProcessSupervisor) -> None:
    with pytest.raises(ServiceError, match=r"(?s)python.* status 1.*no space left"):
        supervisor.run("one", python("raise SystemExit('no space left')"))


def test_a_command_that_takes_too_long_is_ended(supervisor: ProcessSupervisor) -> None:
    with pytest.raises(ServiceError, match=re.escape("one took longer than 0 seconds")):
        supervisor.run("one", sleep(timeout=0.1))
    assert supervisor.records() == {}
