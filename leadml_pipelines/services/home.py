"""The home folder: its locks, its secrets, its state and its remembered ports.

`state.json` says which processes run and on which ports, `secrets.json` (readable by its owner
only) holds the generated passwords, `locks/` lets one command at a time start or stop a process,
and `logs/` holds what the processes wrote. Both JSON files are replaced atomically.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leadml_pipelines.services.errors import ServiceError, StartCancelledError
from leadml_pipelines.services.identity import is_alive

_LOCK_TIMEOUT = 180.0
"""Seconds to wait for another command in the same home; longer than any start may take."""

_LOCK_POLL = 0.05
_LOG_LIMIT = 20_000_000
"""Bytes after which a log is put aside when its process starts again."""


class Home:
    """One home folder.

    Args:
        path: The folder; it is made when something is first written to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))

    def create(self) -> None:
        """Make the folder, closed to other users; one that is there already keeps its mode."""
        if not self.path.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        for name in ("locks", "logs"):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        """Where the process of this name writes its log."""
        return self.path / "logs" / f"{name}.log"

    def open_log(self, name: str) -> int:
        """A file descriptor that appends to the process's log; a very long log is put aside."""
        path = self.log(name)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.old"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @contextmanager
    def lock(self, name: str, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Hold the lock of this name, across threads and across processes.

        The kernel releases it when its holder dies, however it dies.

        Args:
            name: What is locked, usually a process's name.
            cancelled: Stops the waiting when it is set.

        Raises:
            ServiceError: another command holds it for minutes.
            StartCancelledError: `cancelled` was set while waiting.
        """
        self.create()
        path = self.path / "locks" / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_TIMEOUT
            while not _try_lock(descriptor):
                if cancelled is not None and cancelled.is_set():
                    raise StartCancelledError(f"gave up waiting for the lock of {name}")
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"another command has been starting or stopping {name} in {self.path} "
                        f"for {_LOCK_TIMEOUT:.0f} seconds; end that command and try again"
                    )
                time.sleep(_LOCK_POLL)
            yield
        finally:
            os.close(descriptor)

    def state(self) -> dict[str, Any]:
        """What is written in `state.json`; empty where there is none."""
        return self._read("state.json")

    def update_state(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Let `change` edit the state in place, alone, and write the result."""
        with self.lock("state"):
            state = self.state()
            change(state)
            self._write("state.json", state)

    def secrets(self) -> dict[str, str]:
        """The generated passwords by name; empty where there are none yet."""
        return self._read("secrets.json")

    def secret(self, name: str) -> str:
        """The password of this name, generated when first asked for (URL-safe characters only)."""
        with self.lock("secrets"):
            known = self.secrets()
            if name not in known:
                known[name] = secrets.token_urlsafe(24)
                self._write("secrets.json", known)
            return known[name]

    def port(self, name: str, *, fresh: bool = False) -> int:
        """A free loopback port, the same as last time where that one is still free.

        While a process of this name runs, it is the port that was chosen for it.

        Args:
            name: What the port is for.
            fresh: Choose another one than last time.
        """
        known = self.remembered_port(name)
        if known is not None and not fresh and (self._runs(name) or port_is_free(known)):
            return known
        chosen = free_port()

        def remember(state: dict[str, Any]) -> None:
            state.setdefault("ports", {})[name] = chosen

        self.update_state(remember)
        return chosen

    def remembered_port(self, name: str) -> int | None:
        """The port that was last chosen under this name."""
        port = self.state().get("ports", {}).get(name)
        return None if port is None else int(port)

    def _runs(self, name: str) -> bool:
        entry = self.state().get("processes", {}).get(name)
        return entry is not None and is_alive(entry["pid"], entry["identity"])

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise ServiceError(
                f"{path} belongs to another user; use a home of your own with --home"
            ) from error
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ServiceError(
                f"{path} is not JSON ({error}); put it aside and start again"
            ) from error
        if not isinstance(content, dict):
            raise ServiceError(f"{path} does not hold a JSON object; put it aside and start again")
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # mkstemp makes the file readable by its owner only.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this, connections that linger after a stop would make the port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
