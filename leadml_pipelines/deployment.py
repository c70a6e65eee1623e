"""One deployment on this machine: the servers, Dagster and the HTTP app, wired to each other."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from leadml_pipelines.postgres import migrate
from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.processes import http_ready
from leadml_pipelines.services.records import Launch
from leadml_pipelines.services.stack import ServiceStack

HTTP = "http"
WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"

_WORKSPACE = """\
load_from:
  - python_module:
      module_name: leadml_pipelines.definitions
      location_name: leadml
"""


class Deployment:
    """Everything that runs for one home folder.

    As a context manager it stops, on leaving, exactly what it started; `keep()` lets that run on.

    Args:
        home: The folder of all state.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.stack = ServiceStack(self.home)
        self._kept = False

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            with uninterrupted():
                self.stack.stop()

    def keep(self) -> None:
        """Let everything run on after this command."""
        self._kept = True

    def start_services(self, only: Sequence[str] | None = None) -> None:
        """Start the servers, tell this process their addresses, bring the database up to date.

        Args:
            only: Names of those that are needed; all when None.
        """
        self.stack.start(only=only)
        os.environ.update(self.stack.environment())
        write_dagster_home(Path(os.environ["DAGSTER_HOME"]))
        migrate(os.environ["LEADML_POSTGRES_URL"])

    def start_http(self, port: int | None = None) -> str:
        """Start the HTTP app and return its address.

        Args:
            port: Where to listen; a free port, the same as last time where possible, when None.
        """
        chosen = port or self.stack.home.port(HTTP)
        address = f"http://127.0.0.1:{chosen}"
        self._start(
            HTTP,
            [sys.executable, "-m", "leadml_pipelines.serving"],
            address,
            ready=f"{address}/readyz",
            LEADML_HTTP_HOST="127.0.0.1",
            LEADML_HTTP_PORT=str(chosen),
        )
        return self._address(HTTP)

    def start_dagster(self, port: int | None = None) -> str:
        """Start Dagster's webserver and daemon and return the address of the UI."""
        chosen = port or self.stack.home.port(WEBSERVER)
        address = f"http://127.0.0.1:{chosen}"
        workspace = str(Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml")
        self._start(
            WEBSERVER,
            [_script(WEBSERVER), "-h", "127.0.0.1", "-p", str(chosen), "-w", workspace],
            address,
            ready=f"{address}/server_info",
        )
        self._start(DAEMON, [_script(DAEMON), "run", "-w", workspace], "")
        return self._address(WEBSERVER)

    def _start(
        self, name: str, argv: Sequence[str], address: str, ready: str | None = None, **env: str
    ) -> None:
        self.stack.supervisor.start(
            name,
            Launch(
                argv,
                ready=(lambda: http_ready(ready)) if ready else (lambda: True),
                env={**os.environ, **env},
                cwd=self.home,
                address=address,
                timeout=120.0,
            ),
        )

    def _address(self, name: str) -> str:
        """Where a process answers, which may have been running before."""
        record = self.stack.supervisor.running(name)
        if record is None:
            raise ServiceError(f"{name} ended; see {self.home}/logs/{name}.log")
        return record.address


def write_dagster_home(folder: Path) -> None:
    """Put Dagster's instance and workspace files where `DAGSTER_HOME` points."""
    folder.mkdir(parents=True, exist_ok=True)
    instance = resources.files("leadml_pipelines") / "dagster.yaml"
    (folder / "dagster.yaml").write_text(instance.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "workspace.yaml").write_text(_WORKSPACE, encoding="utf-8")


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this command as Ctrl-C does: an exception, then clean-up."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back further signals while things are being stopped, so that nothing is left running."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _script(name: str) -> str:
    """The command of this environment, else the one on the path."""
    beside = str(Path(sys.executable).parent)
    path = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        raise ServiceError(
            f"the command {name} is not installed; run "
            "`pip install -c constraints.txt -e '.[local]'`"
        )
    return path
