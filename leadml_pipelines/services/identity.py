"""Which process is meant: a pid together with what tells it from a later process of that pid."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from leadml_pipelines.services.errors import require_module

if TYPE_CHECKING:
    import psutil

_LINUX = sys.platform.startswith("linux")


def process_identity(pid: int) -> str | None:
    """What distinguishes this process from any other that had or will have its pid.

    On Linux the boot and the tick in which it started: wall-clock times shift when the clock is
    set. Elsewhere its creation time.

    Returns:
        None when there is no such process, or when it has ended and only waits to be reaped.
    """
    if not _LINUX:
        return _identity_from_psutil(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, so count from the last closing one.
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X") and not _has_threads(pid):
        return None
    return f"{_boot()}|{fields[19]}"


def is_of_this_boot(identity: str) -> bool:
    """Whether pids still mean what they meant when this identity was taken."""
    return _LINUX and identity.rpartition("|")[0] == _boot()


def is_alive(pid: int, identity: str) -> bool:
    """Whether exactly this process still runs."""
    return process_identity(pid) == identity


def descendants(pid: int) -> list[psutil.Process]:
    """The children of a process, their children and so on, whatever session they are in."""
    psutil = require_module("psutil", "psutil")
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def listens(pid: int, port: int) -> bool:
    """Whether a process, or one that it started, listens on a TCP port.

    Where the system does not let us look (a hardened container, another user), it is taken for
    granted.
    """
    psutil = require_module("psutil", "psutil")
    try:
        for process in (psutil.Process(pid), *descendants(pid)):
            for socket in process.net_connections(kind="tcp"):
                if socket.status == psutil.CONN_LISTEN and socket.laddr.port == port:
                    return True
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return False


def session_members(session: int) -> list[psutil.Process]:
    """The processes whose session was opened by the process of this pid, without that process."""
    psutil = require_module("psutil", "psutil")
    members = []
    for process in psutil.process_iter():
        try:
            if process.pid != session and os.getsid(process.pid) == session:
                members.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def processes_in(folder: Path, word: str) -> list[psutil.Process]:
    """The processes that work in a folder and have a word in their command line.

    Finds a server that was started but never recorded, or that lost its parent, by its data
    folder: every server here runs with that as its working directory.
    """
    psutil = require_module("psutil", "psutil")
    target = os.path.realpath(folder)
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == target and any(word in part for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_processes(processes: Iterable[psutil.Process], grace: float) -> None:
    """End processes with SIGTERM and, after `grace` seconds, with SIGKILL.

    psutil compares creation times before it signals, so a recycled pid is never hit.
    """
    psutil = require_module("psutil", "psutil")
    remaining = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in remaining:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        remaining = _wait_for_end(remaining, grace)
        if not remaining:
            return


def _wait_for_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while True:
        alive = [process for process in processes if process_identity(process.pid) is not None]
        # A pid that was recycled meanwhile looks alive here; psutil's own check settles it.
        alive = [process for process in alive if process.is_running()]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.02)


def _has_threads(pid: int) -> bool:
    # The first thread may have ended while others still hold the process's files and ports.
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except FileNotFoundError:
        return False


@cache
def _boot() -> str:
    # A restarted container keeps the boot of its host but counts pids anew.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _identity_from_psutil(pid: int) -> str | None:
    psutil = require_module("psutil", "psutil")
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
