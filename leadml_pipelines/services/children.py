"""Starting one process in a session of its own, and ending it with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.identity import (
    descendants,
    end_processes,
    is_of_this_boot,
    process_identity,
    session_members,
)
from leadml_pipelines.services.records import Launch, ProcessRecord

if TYPE_CHECKING:
    import psutil

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this interpreter that were not reaped yet: only who starts a process can do that."""


def spawn(launch: Launch, log: int) -> int:
    """Start a process and return its pid.

    Args:
        launch: How.
        log: File descriptor for everything it writes.

    Raises:
        ServiceError: its program can't be executed.
    """
    options: dict[str, Any] = {}
    if launch.user is not None:
        options = {"user": launch.user.uid, "group": launch.user.gid, "extra_groups": []}
    try:
        child = subprocess.Popen(
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
    _children[child.pid] = child
    return child.pid


def feed(record: ProcessRecord, text: bytes | None) -> None:
    """Write to the standard input of a process just started, and close it."""
    child = _children.get(record.pid)
    if text is None or child is None or child.stdin is None:
        return
    # If it has ended already, the wait that follows says why from its log.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(text)
        child.stdin.close()


def exit_status(record: ProcessRecord) -> int | None:
    """The exit status of a process: negative for a signal, None while it runs.

    Of a process that another command started only the end is known; that counts as status 1.
    """
    child = _children.get(record.pid)
    if child is None:
        return None if record.alive else 1
    return child.poll()


def end_tree(record: ProcessRecord) -> None:
    """End the process, politely at first, and then whatever it left behind."""
    left: list[psutil.Process] = []
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
        # What was still buffered is lost, as is its reader.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    child.wait()
