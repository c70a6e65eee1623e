"""The embedded services of one home together: which are needed, started, reached and stopped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from leadml_pipelines.services.errors import ProcessEndedError, StartCancelledError
from leadml_pipelines.services.external import (
    address_of,
    dagster_url,
    external_settings,
    make_dagster_database,
    require_answer,
)
from leadml_pipelines.services.graph import GraphService
from leadml_pipelines.services.home import Home, port_is_free
from leadml_pipelines.services.postgresql import PostgresService
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.redis_server import RedisService
from leadml_pipelines.services.service import Service, end_unrecorded

SERVICES: tuple[Service, ...] = (PostgresService(), RedisService(), GraphService())

_PORT_TRIES = 3

Progress = Callable[[str], None]
"""Receives sentences about what happened."""


@dataclass(frozen=True)
class ServiceStatus:
    """One line of `leadml status`.

    Attributes:
        name: For example `postgres` or `dagster-webserver`.
        state: `external` if the settings name a server, `ended` if it ended without being stopped.
        address: Where it answers, without any password.
        pid: Its process id.
        since: When it was started, in UTC.
        note: What else a person should know, for example where its log is.
    """

    name: str
    state: Literal["running", "external", "stopped", "ended"]
    address: str = ""
    pid: int | None = None
    since: datetime | None = None
    note: str = ""


class ServiceStack:
    """The services of one home, embedded or named by the settings.

    Args:
        home: The home folder.
        names: The services that are wanted; all of them by default.
    """

    def __init__(self, home: Path, names: Iterable[str] | None = None) -> None:
        self.home = Home(home)
        self.supervisor = ProcessSupervisor(self.home)
        wanted = {service.name for service in SERVICES} if names is None else set(names)
        self._services = [service for service in SERVICES if service.name in wanted]
        unknown = wanted - {service.name for service in SERVICES}
        if unknown:
            raise ValueError(f"there is no service {', '.join(sorted(unknown))}")

    @property
    def started(self) -> tuple[str, ...]:
        """The processes that this object started."""
        return tuple(self.supervisor.started)

    def start(self, progress: Progress | None = None) -> None:
        """Start, at the same time, each service that neither is external nor runs already.

        Either all of them answer when this returns, or those that were started are stopped again.

        Args:
            progress: Is told when one is ready, and how long it took.

        Raises:
            ServiceError: one can't be started, or an external one does not answer.
        """
        tell = progress or _silent
        external = self._external()
        cancelled = threading.Event()
        before = len(self.supervisor.started)
        embedded = [service for service in self._services if service.name not in external]
        try:
            self.home.create()
            for name, settings in external.items():
                require_answer(name, settings)
            if embedded:
                self._start_together(embedded, cancelled, tell)
            self._prepare_dagster(external)
        except BaseException:
            for name in reversed(self.supervisor.started[before:]):
                self.supervisor.stop(name)
            del self.supervisor.started[before:]
            raise

    def environment(self) -> dict[str, str]:
        """The settings by which a process reaches everything here; they hold passwords."""
        external = self._external()
        environment = {
            "LEADML_HOME": str(self.home.path),
            "DAGSTER_HOME": str(self.home.path / "dagster"),
        }
        for service in self._services:
            if service.name in external:
                environment.update(external[service.name])
                continue
            port = self.home.remembered_port(service.port_names[0])
            if port is not None:
                environment.update(service.environment(self.home, port))
        dagster = dagster_url(self.home, environment, external="postgres" in external)
        if dagster is not None:
            environment["LEADML_DAGSTER_URL"] = dagster
        return environment

    def stop(self) -> None:
        """Stop exactly what this object started, the latest first."""
        self.supervisor.stop_started()

    def stop_all(self) -> list[str]:
        """Stop every process of the home, the latest first; return the names of those that ran."""
        stopped = self.supervisor.stop_all()
        for service in SERVICES:
            end_unrecorded(service, self.home)
        return stopped

    def status(self) -> list[ServiceStatus]:
        """The services, then the other processes of the home."""
        external = self._external()
        records = self.supervisor.records()
        lines = []
        for service in self._services:
            if service.name in external:
                settings = external[service.name]
                lines.append(
                    ServiceStatus(
                        service.name, "external", address_of(next(iter(settings.values())))
                    )
                )
            elif service.name not in records:
                lines.append(ServiceStatus(service.name, "stopped", note=self._note(service)))
        shown = {line.name for line in lines}
        for record in sorted(records.values(), key=lambda r: r.started_at):
            if record.name in shown:
                continue
            if record.alive:
                service = _by_name(record.name)
                lines.append(
                    ServiceStatus(
                        record.name,
                        "running",
                        record.address,
                        record.pid,
                        record.since,
                        "" if service is None else self._note(service),
                    )
                )
            else:
                lines.append(
                    ServiceStatus(
                        record.name,
                        "ended",
                        since=record.since,
                        note=f"it ended by itself; see {record.log}",
                    )
                )
        order = {service.name: number for number, service in enumerate(SERVICES)}
        return sorted(lines, key=lambda line: order.get(line.name, len(order)))

    def remove(self) -> None:
        """Stop everything and delete the services' data, also what lies outside of the home."""
        self.stop_all()
        for service in SERVICES:
            service.remove(self.home)

    def _start_together(
        self, services: list[Service], cancelled: threading.Event, tell: Progress
    ) -> None:
        with ThreadPoolExecutor(len(services), "leadml-service") as pool:
            futures: list[Future[list[str]]] = []
            try:
                futures = [pool.submit(self._start_one, service, cancelled) for service in services]
                failure: BaseException | None = None
                for future in as_completed(futures):
                    error = future.exception()
                    if error is None:
                        for line in future.result():
                            tell(line)
                    elif failure is None or isinstance(failure, StartCancelledError):
                        failure = error
                        cancelled.set()
                if failure is not None:
                    raise failure
            except BaseException:
                # Ctrl-C reaches only this thread; the pool waits for the others to give up.
                cancelled.set()
                raise

    def _start_one(self, service: Service, cancelled: threading.Event) -> list[str]:
        begin = time.monotonic()
        with self.home.lock(f"{service.name}-service", cancelled):
            if self.supervisor.running(service.name) is not None:
                ports = tuple(self.home.remembered_port(p) or 0 for p in service.port_names)
                self.supervisor.start(service.name, service.launch(self.home, ports), cancelled)
                return [f"{service.title} was running already."]
            end_unrecorded(service, self.home)
            notes = service.prepare(self.home, self.supervisor, cancelled)
            port = self._start_on_free_port(service, cancelled)
            try:
                service.finish(self.home, port)
            except BaseException:
                self.supervisor.stop(service.name)
                self.supervisor.started.remove(service.name)
                raise
        return [*notes, f"{service.title} is ready after {time.monotonic() - begin:.1f} s."]

    def _start_on_free_port(self, service: Service, cancelled: threading.Event) -> int:
        for attempt in range(_PORT_TRIES):
            ports = tuple(self.home.port(p, fresh=attempt > 0) for p in service.port_names)
            try:
                self.supervisor.start(service.name, service.launch(self.home, ports), cancelled)
            except ProcessEndedError:
                # Somebody may have taken the port between our look and the server's.
                if attempt == _PORT_TRIES - 1 or all(port_is_free(port) for port in ports):
                    raise
                continue
            return ports[0]
        raise AssertionError("the last attempt either returns or raises")

    def _prepare_dagster(self, external: dict[str, dict[str, str]]) -> None:
        (self.home.path / "dagster").mkdir(mode=0o700, exist_ok=True)
        if "postgres" in external:
            make_dagster_database(self.home, external["postgres"])

    def _external(self) -> dict[str, dict[str, str]]:
        named = external_settings(self.home)
        return {
            service.name: named[service.name] for service in self._services if service.name in named
        }

    def _note(self, service: Service) -> str:
        folder = service.folder(self.home)
        return f"data in {os.readlink(folder)}" if folder.is_symlink() else ""


def _by_name(name: str) -> Service | None:
    return next((service for service in SERVICES if service.name == name), None)


def _silent(line: str) -> None:
    del line
