"""The embedded services of one home together: which are needed, started, reached and stopped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from leadml_pipelines.services.errors import StartCancelledError
from leadml_pipelines.services.external import (
    address_of,
    dagster_url,
    external_settings,
    make_dagster_database,
    require_answer,
)
from leadml_pipelines.services.graph import GraphService
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.postgresql import PostgresService
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import ProcessRecord
from leadml_pipelines.services.redis_server import RedisService
from leadml_pipelines.services.service import Service, end_unrecorded
from leadml_pipelines.services.users import Users
from leadml_pipelines.signals import uninterrupted

SERVICES: tuple[Service, ...] = (PostgresService(), RedisService(), GraphService())

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
    """

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.supervisor = ProcessSupervisor(self.home)
        self._users = Users(self.home)

    @property
    def started(self) -> tuple[str, ...]:
        """The processes that this object started."""
        return tuple(self.supervisor.started)

    def start(self, progress: Progress | None = None, only: Iterable[str] | None = None) -> None:
        """Start, at the same time, each service that neither is external nor runs already.

        Either all of them answer when this returns, or those that were started are stopped again.
        From here until `stop`, or the end of this process, no other command's `stop` ends them.

        Args:
            progress: Is told when one is ready, and how long it took.
            only: Names of the services that are needed; all of them if None.

        Raises:
            ServiceError: one can't be started, or an external one does not answer.
        """
        tell = progress or _silent
        wanted = _services(only)
        external = external_settings(self.home)
        cancelled = threading.Event()
        used_before, before = self._users.joined, set(self.supervisor.started)
        embedded = [service for service in wanted if service.name not in external]
        try:
            self._users.join()
            (self.home.path / "dagster").mkdir(mode=0o700, exist_ok=True)
            for service in wanted:
                if service.name in external:
                    require_answer(service.name, external[service.name])
            if embedded:
                self._start_together(embedded, cancelled, tell)
            if "postgres" in external:
                make_dagster_database(self.home, external["postgres"])
        except BaseException:
            with uninterrupted():
                if used_before:
                    for name in [n for n in reversed(self.supervisor.started) if n not in before]:
                        self.supervisor.stop(name)
                else:
                    self.stop()
            raise

    def environment(self) -> dict[str, str]:
        """The settings by which a process reaches everything here; they hold passwords."""
        external = external_settings(self.home)
        environment = {
            "LEADML_HOME": str(self.home.path),
            "DAGSTER_HOME": str(self.home.path / "dagster"),
        }
        for service in SERVICES:
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
        """Stop what this object started, the latest first, unless other commands use the home.

        The last of them then stops it instead. What was kept runs on in any case.
        """
        if not self.started and not self._users.joined:
            return
        with uninterrupted():
            # Before the look at the others: the one that finds itself last must see it.
            self.supervisor.hand_over()
            with self._users.leaving() as last:
                if last:
                    self.supervisor.stop_orphaned()

    def keep(self) -> None:
        """Let everything that runs in the home run on until `stop_all`."""
        self.supervisor.keep()

    def stop_all(self) -> list[str]:
        """Stop every process of the home, the latest first; return the names of those that ran."""
        stopped = self.supervisor.stop_all()
        for service in SERVICES:
            end_unrecorded(service, self.home)
        if self._users.joined:
            with self._users.leaving():
                pass
        return stopped

    def status(self) -> list[ServiceStatus]:
        """The services, then the other processes of the home."""
        external = external_settings(self.home)
        records = self.supervisor.records()
        lines = []
        for service in SERVICES:
            record = records.pop(service.name, None)
            if service.name in external:
                address = address_of(next(iter(external[service.name].values())))
                lines.append(ServiceStatus(service.name, "external", address))
            if record is not None:
                lines.append(_process_status(record, self._note(service)))
            elif service.name not in external:
                lines.append(ServiceStatus(service.name, "stopped", note=self._note(service)))
        others = sorted(records.values(), key=lambda record: record.started_at)
        return lines + [_process_status(record, "") for record in others]

    def remove(self) -> None:
        """Stop everything and delete the services' data, also what lies outside of the home."""
        self.stop_all()
        for service in SERVICES:
            service.remove(self.home)

    def _start_together(
        self, services: list[Service], cancelled: threading.Event, tell: Progress
    ) -> None:
        pool = ThreadPoolExecutor(len(services), "leadml-service")
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
        finally:
            # Ctrl-C reaches only this thread; it must not leave before the others have given up.
            with uninterrupted():
                cancelled.set()
                pool.shutdown()

    def _start_one(self, service: Service, cancelled: threading.Event) -> list[str]:
        begin = time.monotonic()
        with self.home.lock(f"{service.name}-service", cancelled):
            if self.supervisor.running(service.name) is not None:
                ports = tuple(self.home.remembered_port(p) or 0 for p in service.port_names)
                launch = service.launch(self.home, ports)
                if self.supervisor.wait_until_ready(service.name, launch, cancelled) is not None:
                    # Its starter may have been killed before it could.
                    service.finish(self.home, ports[0])
                    return [f"{service.title} was running already."]
            end_unrecorded(service, self.home)
            notes = service.prepare(self.home, self.supervisor, cancelled)
            port, *_ = self.supervisor.start_on_free_ports(
                service.name,
                lambda fresh: tuple(self.home.port(p, fresh=fresh) for p in service.port_names),
                lambda ports: service.launch(self.home, ports),
                cancelled,
            )
            try:
                service.finish(self.home, port)
            except BaseException:
                self.supervisor.stop(service.name)
                raise
        return [*notes, f"{service.title} is ready after {time.monotonic() - begin:.1f} s."]

    def _note(self, service: Service) -> str:
        folder = service.folder(self.home)
        return f"data in {os.readlink(folder)}" if folder.is_symlink() else ""


def _process_status(record: ProcessRecord, note: str) -> ServiceStatus:
    if record.alive:
        return ServiceStatus(record.name, "running", record.address, record.pid, record.since, note)
    return ServiceStatus(
        record.name, "ended", since=record.since, note=f"it ended by itself; see {record.log}"
    )


def _services(names: Iterable[str] | None) -> list[Service]:
    if names is None:
        return list(SERVICES)
    wanted = set(names)
    unknown = wanted - {service.name for service in SERVICES}
    if unknown:
        raise ValueError(f"there is no service {', '.join(sorted(unknown))}")
    return [service for service in SERVICES if service.name in wanted]


def _silent(line: str) -> None:
    del line
