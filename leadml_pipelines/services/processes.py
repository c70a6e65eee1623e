"""Processes that outlive the command that starts them: start, wait until ready, record, stop.

A supervised process runs in a session of its own, so that Ctrl-C in a terminal reaches only the
command, which then stops what it started in order. What runs is written in the home's state with
the process's identity, so that a later command finds it and a recycled pid is never signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from leadml_pipelines.services.errors import (
    ProcessEndedError,
    ServiceError,
    StartCancelledError,
)
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.identity import (
    descendants,
    end_processes,
    is_alive,
    is_of_this_boot,
    process_identity,
    session_members,
)
from leadml_pipelines.times import utc_now

_LOG_TAIL_LINES = 20
_POLL = 0.03

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this interpreter that may still run: who starts a process must also reap it."""


@dataclass(frozen=True)
class ProcessRecord:
    """A supervised process as the home's state remembers it.

    Attributes:
        name: Unique in its home, for example `postgres` or `dagster-webserver`.
        pid: Its process id, which is also the id of its session and process group.
        identity: See `leadml_pipelines.services.identity.process_identity`.
        started_at: When it was started, ISO 8601 in UTC.
        address: Where it answers, without any password; empty if it has no address.
        stop_signal: Number of the signal that asks it to end.
        stop_timeout: Seconds it gets for that before it is killed.
        log: Its log file.
    """

    name: str
    pid: int
    identity: str
    started_at: str
    address: str
    stop_signal: int
    stop_timeout: float
    log: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return is_alive(self.pid, self.identity)

    @property
    def since(self) -> datetime:
        """When it was started, in UTC."""
        return datetime.fromisoformat(self.started_at)


@dataclass(frozen=True)
class User:
    """A system user a process runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Launch:
    """How to start a process and how to know that it works.

    Attributes:
        argv: The command; never holds a secret, for every user can read command lines.
        ready: Called again and again; True once the process answers. It returns False for "not
            yet" and raises `ServiceError` when waiting is useless.
        env: The whole environment; that of the caller if None.
        cwd: Working directory.
        stdin: What the process reads from its standard input, the place for secrets.
        user: Another user to run as; only root can.
        address: Shown to people.
        timeout: Seconds until it must be ready.
        stop_signal: Asks the process to end.
        stop_timeout: Seconds it gets for that before it is killed.
    """

    argv: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] | None = None
    cwd: Path = Path("/")
    stdin: bytes | None = None
    user: User | None = None
    address: str = ""
    timeout: float = 60.0
    stop_signal: int = signal.SIGTERM
    stop_timeout: float = 20.0


@dataclass
class ProcessSupervisor:
    """Starts and stops the processes of one home.

    Attributes:
        home: The home folder.
        started: Names of the processes that this object started, in that order.
    """

    home: Home
    started: list[str] = field(default_factory=list)

    def start(
        self, name: str, launch: Launch, cancelled: threading.Event | None = None
    ) -> ProcessRecord:
        """Start a process and wait until it is ready; one that runs already is left as it is.

        Args:
            name: Unique in the home.
            launch: How.
            cancelled: Gives the start up when it is set.

        Raises:
            ProcessEndedError: it ended before it was ready; the message quotes its log.
            ServiceError: it was not ready in time, or its program can't be started.
            StartCancelledError: `cancelled` was set.
        """
        with self.home.lock(name, cancelled):
            running = self.running(name)
            if running is not None:
                _wait_until_ready(running, launch, _log_size(self.home.log(name)), cancelled)
                return running
            offset = _log_size(self.home.log(name))
            record = self._launch(name, launch)
            try:
                _feed(record, launch.stdin)
                _wait_until_ready(record, launch, offset, cancelled)
            except BaseException:
                # Also on Ctrl-C: nothing half started may stay behind.
                self._end(record)
                raise
            self.started.append(name)
            return record

    def start_process(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        ready: Callable[[], bool],
        timeout: float = 60.0,
        **options: Any,
    ) -> ProcessRecord:
        """`start` with the parts of a `Launch` given one by one."""
        return self.start(name, Launch(argv, ready, env=env, timeout=timeout, **options))

    def run(self, name: str, launch: Launch, cancelled: threading.Event | None = None) -> None:
        """Run a command to its end, recorded like any other process meanwhile.

        Raises:
            ServiceError: it failed or took longer than `launch.timeout`; the message quotes it.
            StartCancelledError: `cancelled` was set.
        """
        offset = _log_size(self.home.log(name))
        record = self._launch(name, launch)
        try:
            _feed(record, launch.stdin)
            status = _wait_for_status(record, launch.timeout, cancelled)
        except BaseException:
            self._end(record)
            raise
        self._forget(record)
        if status != 0:
            raise ServiceError(
                f"{Path(launch.argv[0]).name} ended with status {status}"
                f"{_quoted_log(Path(record.log), offset)}"
            )

    def stop(self, name: str) -> bool:
        """Stop a process and everything it started; return whether it was running."""
        with self.home.lock(name):
            record = self.record(name)
            if record is None:
                return False
            was_alive = record.alive
            self._end(record)
            return was_alive

    def stop_started(self) -> None:
        """Stop what this object started, the latest first."""
        for name in reversed(self.started):
            self.stop(name)
        self.started.clear()

    def stop_all(self) -> list[str]:
        """Stop every process of the home, the latest first, and return the names of those."""
        records = sorted(self.records().values(), key=lambda r: r.started_at, reverse=True)
        stopped = [record.name for record in records if self.stop(record.name)]
        self.started.clear()
        return stopped

    def record(self, name: str) -> ProcessRecord | None:
        """What the state says about a process, whether or not it still runs."""
        return self.records().get(name)

    def records(self) -> dict[str, ProcessRecord]:
        """What the state says about all processes, by name."""
        entries = self.home.state().get("processes", {})
        return {name: ProcessRecord(**entry) for name, entry in entries.items()}

    def running(self, name: str) -> ProcessRecord | None:
        """The record of a process that runs."""
        record = self.record(name)
        return record if record is not None and record.alive else None

    def _launch(self, name: str, launch: Launch) -> ProcessRecord:
        self.home.create()
        log = self.home.open_log(name)
        try:
            child = _spawn(launch, log)
        finally:
            os.close(log)
        _children[child.pid] = child
        record = ProcessRecord(
            name=name,
            pid=child.pid,
            # None if it has ended already; it can't be mistaken then, for we did not reap it.
            identity=process_identity(child.pid) or "ended",
            started_at=utc_now().isoformat(),
            address=launch.address,
            stop_signal=int(launch.stop_signal),
            stop_timeout=launch.stop_timeout,
            log=str(self.home.log(name)),
        )

        def remember(state: dict[str, Any]) -> None:
            state.setdefault("processes", {})[name] = asdict(record)

        try:
            self.home.update_state(remember)
        except BaseException:
            _end_tree(record)
            raise
        return record

    def _end(self, record: ProcessRecord) -> None:
        _end_tree(record)
        self._forget(record)

    def _forget(self, record: ProcessRecord) -> None:
        def forget(state: dict[str, Any]) -> None:
            processes = state.get("processes", {})
            if processes.get(record.name, {}).get("identity") == record.identity:
                del processes[record.name]

        self.home.update_state(forget)


def http_ready(url: str) -> bool:
    """Whether an HTTP server answers this URL with a status below 400."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return int(answer.status) < HTTPStatus.BAD_REQUEST
    except (urllib.error.URLError, OSError):
        return False


def _spawn(launch: Launch, log: int) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {}
    if launch.user is not None:
        options = {"user": launch.user.uid, "group": launch.user.gid, "extra_groups": []}
    try:
        return subprocess.Popen(
            [str(part) for part in launch.argv],
            env=None if launch.env is None else dict(launch.env),
            cwd=launch.cwd,
            stdin=subprocess.DEVNULL if launch.stdin is None else subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **options,
        )
    except OSError as error:
        who = "" if launch.user is None else f" as user {launch.user.name}"
        raise ServiceError(f"{launch.argv[0]} can't be started{who}: {error}") from error


def _feed(record: ProcessRecord, text: bytes | None) -> None:
    child = _children.get(record.pid)
    if text is None or child is None or child.stdin is None:
        return
    try:
        child.stdin.write(text)
        child.stdin.close()
    except BrokenPipeError:
        # It has ended; the wait that follows says why from its log.
        return


def _wait_until_ready(
    record: ProcessRecord, launch: Launch, offset: int, cancelled: threading.Event | None
) -> None:
    deadline = time.monotonic() + launch.timeout
    while True:
        status = _exit_status(record)
        if status is not None:
            raise ProcessEndedError(
                f"{record.name} ended ({status}) before it was ready"
                f"{_quoted_log(Path(record.log), offset)}"
            )
        if launch.ready():
            return
        if cancelled is not None and cancelled.is_set():
            raise StartCancelledError(f"the start of {record.name} was cancelled")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{record.name} was not ready after {launch.timeout:.0f} seconds"
                f"{_quoted_log(Path(record.log), offset)}"
            )
        time.sleep(_POLL)


def _wait_for_status(
    record: ProcessRecord, timeout: float, cancelled: threading.Event | None
) -> int:
    child = _children[record.pid]
    deadline = time.monotonic() + timeout
    while True:
        status = child.poll()
        if status is not None:
            del _children[record.pid]
            return status
        if cancelled is not None and cancelled.is_set():
            raise StartCancelledError(f"{record.name} was cancelled")
        if time.monotonic() > deadline:
            raise ServiceError(f"{record.name} took longer than {timeout:.0f} seconds")
        time.sleep(_POLL)


def _exit_status(record: ProcessRecord) -> str | None:
    """How the process ended, in words; None while it runs."""
    child = _children.get(record.pid)
    if child is None:
        return None if record.alive else "it is gone"
    status = child.poll()
    if status is None:
        return None
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _end_tree(record: ProcessRecord) -> None:
    """End the process, politely at first, and then whatever it left behind."""
    left = []
    ours = record.alive or record.pid in _children or is_of_this_boot(record.identity)
    if record.alive:
        left = descendants(record.pid)
        _signal(record, record.stop_signal)
        if not _wait_for_end(record, record.stop_timeout):
            left.extend(descendants(record.pid))
            _signal(record, signal.SIGKILL)
            _wait_for_end(record, record.stop_timeout)
    elif process_identity(record.pid) is not None:
        return  # The pid belongs to somebody else now.
    _reap(record)
    if ours:
        # A session keeps its id reserved while it has members: its leader may be long dead.
        left.extend(session_members(record.pid))
    end_processes(left, grace=5.0)


def _signal(record: ProcessRecord, number: int) -> None:
    if record.alive:
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return


def _wait_for_end(record: ProcessRecord, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _reap(record: ProcessRecord) -> None:
    child = _children.pop(record.pid, None)
    if child is None:
        return
    if child.stdin is not None and not child.stdin.closed:
        try:
            child.stdin.close()
        except BrokenPipeError:
            # What was still buffered is lost, as is its reader.
            pass
    child.wait()


def _log_size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _quoted_log(log: Path, offset: int) -> str:
    """The last lines that were written after `offset`, as the end of an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset if offset <= _log_size(log) else 0)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    if not lines:
        return f"; it wrote nothing to {log}"
    return f"; the end of {log}:\n" + "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:])
