"""Processes that outlive the command that starts them: start, wait until ready, record, stop.

A supervised process runs in a session of its own, so that Ctrl-C in a terminal reaches only the
command, which then stops what it started in order. What runs is written in the home's state with
the process's identity, so that a later command finds it and a recycled pid is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from leadml_pipelines.services.children import end_tree, exit_status, feed, spawn
from leadml_pipelines.services.errors import (
    ProcessEndedError,
    ServiceError,
    StartCancelledError,
)
from leadml_pipelines.services.home import Home, port_is_free
from leadml_pipelines.services.identity import listens, process_identity
from leadml_pipelines.services.records import Launch, ProcessRecord
from leadml_pipelines.signals import uninterrupted
from leadml_pipelines.times import utc_now

_LOG_TAIL_LINES = 20
_PORT_TRIES = 3
_POLL = 0.03
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without the proxy that the environment may name: what we start is on this machine."""


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
            known = self.wait_until_ready(name, launch, cancelled)
            if known is not None:
                return known
            self._forget_ended(name)
            offset = _log_size(self.home.log(name))
            try:
                self.started.append(name)
                record = self._launch(name, launch)
                feed(record, launch.stdin)
                _wait_until_ready(record, launch, offset, cancelled)
            except BaseException:
                # Also on Ctrl-C: nothing half started may stay behind.
                with uninterrupted():
                    self._forget_ended(name)
                    self._drop(name)
                raise
            return record

    def start_on_free_ports(
        self,
        name: str,
        choose: Callable[[bool], tuple[int, ...]],
        launch: Callable[[tuple[int, ...]], Launch],
        cancelled: threading.Event | None = None,
    ) -> tuple[int, ...]:
        """Start a process on ports that are free, and return them.

        Somebody may take a port between our look and the process's; then it is started again on
        others.

        Args:
            name: Unique in the home.
            choose: The ports; is told True where those of the last time were taken.
            launch: How to start it on these ports.
            cancelled: Gives the start up when it is set.

        Raises:
            ServiceError: as `start` says.
        """
        for attempt in range(_PORT_TRIES):
            ports = choose(attempt > 0)
            try:
                self.start(name, launch(ports), cancelled)
            except ProcessEndedError:
                if attempt == _PORT_TRIES - 1 or all(port_is_free(port) for port in ports):
                    raise
                continue
            return ports
        raise AssertionError("the last attempt either returns or raises")

    def wait_until_ready(
        self, name: str, launch: Launch, cancelled: threading.Event | None = None
    ) -> ProcessRecord | None:
        """Wait until a process that runs is ready; return None if there is none, or it ends.

        It was ready when it was started, unless its starter was killed meanwhile. If it runs on
        another address than that of `launch`, `ready` says nothing about it and is not asked.
        """
        known = self.running(name)
        if known is None or known.address != launch.address:
            return known
        try:
            _wait_until_ready(known, launch, _log_size(Path(known.log)), cancelled)
        except ProcessEndedError:
            return None
        return known

    def run(self, name: str, launch: Launch, cancelled: threading.Event | None = None) -> None:
        """Run a command to its end, recorded like any other process meanwhile.

        Raises:
            ServiceError: it failed or took longer than `launch.timeout`; the message quotes it.
            StartCancelledError: `cancelled` was set.
        """
        self._forget_ended(name)
        offset = _log_size(self.home.log(name))
        record = self._launch(name, launch)
        try:
            feed(record, launch.stdin)
            status = _wait_for_status(record, launch.timeout, cancelled)
        finally:
            with uninterrupted():
                self._end(record)
        if status != 0:
            raise ServiceError(
                f"{Path(launch.argv[0]).name} ended with status {status}"
                f"{_quoted_log(Path(record.log), offset)}"
            )

    def stop(self, name: str) -> bool:
        """Stop a process and everything it started; return whether it was running."""
        with self.home.lock(name):
            record = self.record(name)
            was_alive = record is not None and record.alive
            if record is not None:
                self._end(record)
            self._drop(name)
            return was_alive

    def keep(self) -> None:
        """Let every process of the home run on until `stop_all`."""
        self._mark("kept", set(self.records()))

    def hand_over(self) -> None:
        """Leave what this object started to whoever uses the home last."""
        self._mark("orphaned", set(self.started))
        self.started.clear()

    def stop_orphaned(self) -> None:
        """Stop what was handed over and not kept, the latest first."""
        for record in self._latest_first():
            if record.orphaned and not record.kept:
                self.stop(record.name)

    def stop_all(self) -> list[str]:
        """Stop every process of the home, the latest first, and return the names of those."""
        stopped = [record.name for record in self._latest_first() if self.stop(record.name)]
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

    def _latest_first(self) -> list[ProcessRecord]:
        return sorted(self.records().values(), key=lambda r: r.started_at, reverse=True)

    def _mark(self, flag: str, names: set[str]) -> None:
        def mark(state: dict[str, Any]) -> None:
            for name, entry in state.get("processes", {}).items():
                if name in names:
                    entry[flag] = True

        self.home.update_state(mark)

    def _launch(self, name: str, launch: Launch) -> ProcessRecord:
        """Start and record a process.

        A thread does it: signals interrupt only the main thread, so that Ctrl-C can't come between
        starting and recording.
        """
        self.home.create()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._launch_in_thread, name, launch)
            try:
                return future.result()
            except BaseException:
                with uninterrupted():
                    wait([future])
                    if future.exception() is None:
                        self._end(future.result())
                raise

    def _launch_in_thread(self, name: str, launch: Launch) -> ProcessRecord:
        log = self.home.open_log(name)
        try:
            pid = spawn(launch, log)
        finally:
            os.close(log)
        record = ProcessRecord(
            name=name,
            pid=pid,
            # There is none if it has ended already; its pid stays its own until we reap it.
            identity=process_identity(pid) or "ended",
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
            end_tree(record)
            raise
        return record

    def _forget_ended(self, name: str) -> None:
        """End and forget what is left of a process of this name."""
        known = self.record(name)
        if known is not None:
            self._end(known)

    def _drop(self, name: str) -> None:
        with contextlib.suppress(ValueError):  # Its starter may have dropped it already.
            self.started.remove(name)

    def _end(self, record: ProcessRecord) -> None:
        end_tree(record)
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
        with _DIRECTLY.open(url, timeout=2) as answer:
            return int(answer.status) < HTTPStatus.BAD_REQUEST
    except (urllib.error.URLError, OSError):
        return False


def _wait_until_ready(
    record: ProcessRecord, launch: Launch, offset: int, cancelled: threading.Event | None
) -> None:
    deadline = time.monotonic() + launch.timeout
    while True:
        status = exit_status(record)
        if status is not None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise ProcessEndedError(
                f"{record.name} ended ({how}) before it was ready"
                f"{_quoted_log(Path(record.log), offset)}"
            )
        if launch.ready() and (launch.port is None or listens(record.pid, launch.port)):
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
    deadline = time.monotonic() + timeout
    while True:
        status = exit_status(record)
        if status is not None:
            return status
        if cancelled is not None and cancelled.is_set():
            raise StartCancelledError(f"{record.name} was cancelled")
        if time.monotonic() > deadline:
            raise ServiceError(f"{record.name} took longer than {timeout:.0f} seconds")
        time.sleep(_POLL)


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
