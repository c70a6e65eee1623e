"""What the three embedded services have in common."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from leadml_pipelines.services.home import Home
from leadml_pipelines.services.identity import end_processes, processes_in
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import Launch


class Service(Protocol):
    """An embedded server of one home.

    Attributes:
        name: Its name in the state, in `leadml status` and of its log.
        title: Its name for people.
        port_names: The ports it listens on; the first is the one clients connect to.
        program: A word in the command line of its processes.
    """

    name: str
    title: str
    port_names: tuple[str, ...]
    program: str

    def folder(self, home: Home) -> Path:
        """Its data folder, which is also the working directory of its process."""

    def prepare(
        self, home: Home, supervisor: ProcessSupervisor, cancelled: threading.Event
    ) -> list[str]:
        """Make its data folder where it is missing. Can be interrupted anywhere and repeated.

        Returns:
            What a person should know, as sentences.
        """

    def launch(self, home: Home, ports: tuple[int, ...]) -> Launch:
        """How to start it on these ports."""

    def finish(self, home: Home, port: int) -> None:
        """What is to be done once it answers, for example making its databases."""

    def environment(self, home: Home, port: int) -> dict[str, str]:
        """The settings by which everything else reaches it."""

    def remove(self, home: Home) -> None:
        """Delete its data; it must not be running."""


def end_unrecorded(service: Service, home: Home) -> None:
    """End processes that work in the service's data folder but are not in the state.

    There are some when a command was killed in the instant between starting a process and writing
    it down, or when a server was killed and its children live on.
    """
    folder = service.folder(home)
    if folder.exists():
        end_processes(processes_in(folder, service.program), grace=10.0)
