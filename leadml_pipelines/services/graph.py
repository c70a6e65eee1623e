"""Embedded Bolt graph: ArcadeDB from the arcadedb-embedded wheel, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

from leadml_pipelines.services.errors import ServiceError, require_installed
from leadml_pipelines.services.graph_server import COMPLETE
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.processes import ProcessSupervisor
from leadml_pipelines.services.records import Launch

USER = "root"
DATABASE = "leadml"

_SMALLEST_HEAP_MB = 512
_LARGEST_HEAP_MB = 4096


class GraphService:
    """A graph server that the official Neo4j driver talks to, on the loopback interface only."""

    name = "graph"
    title = "Bolt graph"
    port_names: tuple[str, ...] = ("graph", "graph-http")
    program = "graph_server"

    def folder(self, home: Home) -> Path:
        """Its data folder."""
        return home.path / "graph"

    def prepare(
        self, home: Home, supervisor: ProcessSupervisor, cancelled: threading.Event
    ) -> list[str]:
        """Make the folder; one whose first start was interrupted holds no data yet and goes."""
        del supervisor, cancelled
        require_installed("arcadedb_embedded", "arcadedb-embedded")
        folder = self.folder(home)
        if folder.exists() and not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        return []

    def launch(self, home: Home, ports: tuple[int, ...]) -> Launch:
        """Start the process of `leadml_pipelines.services.graph_server`."""
        password = home.secret(self.name)
        given = {
            "root": str(self.folder(home)),
            "password": password,
            "database": DATABASE,
            "bolt_port": ports[0],
            "http_port": ports[1],
            "heap": f"{_heap_megabytes()}m",
        }
        return Launch(
            # -P: nothing in the data folder may pass for a Python module.
            [sys.executable, "-P", "-m", "leadml_pipelines.services.graph_server"],
            lambda: _answers(ports[0], password),
            # Java and Python may need any of it, but none of LeadML's keys and passwords.
            env={
                name: value
                for name, value in os.environ.items()
                if not name.upper().startswith("LEADML_")
            },
            cwd=self.folder(home),
            stdin=json.dumps(given).encode(),
            address=f"bolt://127.0.0.1:{ports[0]}",
            port=ports[0],
            timeout=120.0,
            stop_timeout=30.0,
        )

    def finish(self, home: Home, port: int) -> None:
        """Nothing is left to do."""

    def environment(self, home: Home, port: int) -> dict[str, str]:
        """URI, user, password and database."""
        return {
            "LEADML_NEO4J_URI": f"bolt://127.0.0.1:{port}",
            "LEADML_NEO4J_USER": USER,
            "LEADML_NEO4J_PASSWORD": home.secret(self.name),
            "LEADML_NEO4J_DATABASE": DATABASE,
        }

    def remove(self, home: Home) -> None:
        """Delete the data."""
        if self.folder(home).exists():
            shutil.rmtree(self.folder(home))


def _answers(port: int, password: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    from neo4j import GraphDatabase
    from neo4j.exceptions import AuthError, DriverError, Neo4jError

    try:
        with (
            GraphDatabase.driver(
                f"bolt://127.0.0.1:{port}",
                auth=(USER, password),
                connection_timeout=3,
                connection_acquisition_timeout=5,  # Something mute may have taken the port.
            ) as driver,
            driver.session(database=DATABASE) as session,
        ):
            session.run("RETURN 1").consume()
    except AuthError as error:
        raise ServiceError(
            f"what listens on port {port} is not the graph of this home: it refuses its password"
        ) from error
    except (Neo4jError, DriverError):
        # The port opens a moment before the database is there.
        return False
    return True


def _heap_megabytes() -> int:
    """An eighth of the machine's memory, within bounds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    return max(_SMALLEST_HEAP_MB, min(_LARGEST_HEAP_MB, memory // 8))
