"""What is known about a process: how to start it, and what the state remembers of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from leadml_pipelines.services.identity import is_alive


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
        kept: Whether it shall run on when the commands that use it have ended.
        orphaned: Whether its starter has ended and left it to the other users.
    """

    name: str
    pid: int
    identity: str
    started_at: str
    address: str
    stop_signal: int
    stop_timeout: float
    log: str
    kept: bool = False
    orphaned: bool = False

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
        port: The TCP port on which it listens, if it does. It is ready only once it, or a child of
            it, does so: a stranger that took the port before shall not be taken for it.
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
    port: int | None = None
    timeout: float = 60.0
    stop_signal: int = signal.SIGTERM
    stop_timeout: float = 20.0
