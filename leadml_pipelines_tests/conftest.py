"""Real services for the tests, each started when the first test asks for it, once per session.

A service that the environment names is used instead of an embedded one. Its Redis database and
its graph are emptied by the tests, so both must be empty to begin with. A service that can't be
started is an error of every test that needs it, never a skip. Only a Neo4j server, which is no part
of LeadML, is done without where it can't be had: tests of the graph run on both graph servers.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import psycopg
import pytest
from psycopg import sql

from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.postgres import migrate
from leadml_pipelines.services.external import external_settings
from leadml_pipelines.services.home import Home
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines_tests.neo4j_server.server import Neo4jUnavailableError, neo4j_server

# A busy machine must not decide a test: no example has a deadline.
hypothesis.settings.register_profile("leadml", deadline=None)
hypothesis.settings.load_profile("leadml")

_DELETE_BATCH = 5_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays together where the tests are shared out: a module, and all demonstrations.

    Their fixtures are made once; each worker starts servers of its own.
    """
    for item in items:
        together = "end_to_end" if item.get_closest_marker("end_to_end") else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(together))


_NAMED = external_settings(Home(Path(tempfile.gettempdir()) / "no-home"))
"""What the environment named at the start: a test may change it before a service is needed."""

_GRAPH_SERVERS = (
    ["named"] if "graph" in _NAMED else ["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)]
)


# What the tests import and compile are a million objects that stay: Python would walk through them
# every few seconds to find nothing.
gc.set_threshold(50_000, 20, 50)


class SessionServices:
    """The settings of each service, which is started when they are first asked for."""

    def __init__(self, home: Path, at_end: ExitStack) -> None:
        self._home = home
        self._at_end = at_end
        self._known: dict[str, dict[str, str]] = {}
        self._no_neo4j: str | None = None

    def settings(self, name: str) -> dict[str, str]:
        """The `LEADML_...` variables of the service `postgres`, `redis` or `graph`."""
        if name not in self._known:
            self._known[name] = _NAMED.get(name) or self._start(name)
        return self._known[name]

    def graph_settings(self, server: str) -> dict[str, str]:
        """The variables of the graph server `embedded` or `neo4j`; of the named one, if there is.

        Skips the test where there is no Neo4j to be had.
        """
        if server != "neo4j" or self.is_external("graph"):
            return self.settings("graph")
        if self._no_neo4j is not None:
            pytest.skip(self._no_neo4j)
        if "neo4j" not in self._known:
            folder = self._at_end.enter_context(tempfile.TemporaryDirectory(prefix="leadml-neo4j-"))
            try:
                started = self._at_end.enter_context(neo4j_server(Path(folder)))
            except Neo4jUnavailableError as error:
                self._no_neo4j = str(error)
                pytest.skip(self._no_neo4j)
            self._known["neo4j"] = started
        return self._known["neo4j"]

    def is_external(self, name: str) -> bool:
        return name in _NAMED

    def _start(self, name: str) -> dict[str, str]:
        stack = ServiceStack(self._home)
        with pytest.MonkeyPatch.context() as patch:
            for variable in [v for v in os.environ if v.startswith("LEADML_")]:
                patch.delenv(variable)
            stack.start(only=[name])
            self._at_end.callback(stack.stop)
            environment = stack.environment()
        if name == "postgres":
            _forget_durability(environment["LEADML_POSTGRES_URL"])
        return environment


@pytest.fixture(scope="session")
def session_services() -> Iterator[SessionServices]:
    """The services of this test session; nothing runs until one is asked for."""
    with (
        _ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="leadml-") as folder,
        ExitStack() as at_end,
    ):
        at_end.callback(ServiceStack(Path(folder)).remove)
        yield SessionServices(Path(folder), at_end)


@pytest.fixture(scope="session")
def _postgres_server(session_services: SessionServices) -> str:
    return session_services.settings("postgres")["LEADML_POSTGRES_URL"]


@pytest.fixture(scope="session")
def _postgres_template(_postgres_server: str) -> Iterator[str]:
    with _database(_postgres_server, "leadml_template") as name:
        # A database that is copied must have no connections: this one is closed again.
        migrate(_url(_postgres_server, name))
        yield name


@pytest.fixture(scope="module")
def postgres_url(_postgres_server: str, _postgres_template: str) -> Iterator[str]:
    """URL of a fresh, migrated database of this test module."""
    with _database(_postgres_server, "leadml_test", _postgres_template) as name:
        yield _url(_postgres_server, name)


@pytest.fixture(scope="session")
def _redis_server(session_services: SessionServices) -> str:
    import redis

    url = session_services.settings("redis")["LEADML_REDIS_URL"]
    if session_services.is_external("redis"):
        with redis.Redis.from_url(url) as client:
            keys = client.dbsize()
        if keys:
            raise RuntimeError(
                f"LEADML_REDIS_URL names a database with {keys} keys, and the tests would delete "
                "them; name an empty one, as in redis://host:port/9"
            )
    return url


@pytest.fixture
def redis_url(_redis_server: str) -> Iterator[str]:
    """URL of an emptied Redis database."""
    with _emptied(_redis_server):
        yield _redis_server


@pytest.fixture(scope="module")
def module_redis_url(_redis_server: str) -> Iterator[str]:
    """URL of a Redis database that is emptied before and after a module, whose tests share it."""
    with _emptied(_redis_server):
        yield _redis_server


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    """The online store on an emptied Redis."""
    with OnlineStore(redis_url) as store:
        yield store


@pytest.fixture
def pointers(redis_url: str) -> Iterator[ModelPointers]:
    """The pointers to models on an emptied Redis."""
    with ModelPointers(redis_url) as pointers:
        yield pointers


@pytest.fixture(scope="session", params=_GRAPH_SERVERS)
def graph_server(request: pytest.FixtureRequest) -> str:
    """Which graph server the test runs on: `embedded`, `neo4j`, or `named` by the environment."""
    return str(request.param)


@pytest.fixture(scope="session")
def _graph_driver(
    session_services: SessionServices, graph_server: str
) -> Iterator[tuple[Any, dict[str, str]]]:
    from neo4j import GraphDatabase

    settings = session_services.graph_settings(graph_server)
    auth = (settings["LEADML_NEO4J_USER"], settings["LEADML_NEO4J_PASSWORD"])
    with GraphDatabase.driver(settings["LEADML_NEO4J_URI"], auth=auth) as driver:
        nodes = _count_nodes(driver, settings["LEADML_NEO4J_DATABASE"])
        if nodes and session_services.is_external("graph"):
            raise RuntimeError(
                f"LEADML_NEO4J_URI names a graph with {nodes} nodes, and the tests would delete "
                "them; name an empty one"
            )
        yield driver, settings


@pytest.fixture
def graph_settings(
    _graph_driver: tuple[Any, dict[str, str]],
) -> Iterator[tuple[str, str, str, str]]:
    """URI, user, password and database of an emptied graph."""
    with _emptied_graph(*_graph_driver) as address:
        yield address


@pytest.fixture(scope="module")
def module_graph_settings(
    _graph_driver: tuple[Any, dict[str, str]],
) -> Iterator[tuple[str, str, str, str]]:
    """The same of a graph that is emptied before and after a module, whose tests share it."""
    with _emptied_graph(*_graph_driver) as address:
        yield address


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh home folder, not made yet."""
    return tmp_path / "home"


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the session in order, for a killed session would leave its servers behind."""

    def end(number: int, frame: FrameType | None) -> None:
        pytest.exit("terminated", returncode=128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _emptied(redis_url: str) -> Iterator[None]:
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    yield
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


@contextmanager
def _database(server: str, prefix: str, template: str = "template1") -> Iterator[str]:
    name = f"{prefix}_{secrets.token_hex(4)}"
    identifier = sql.Identifier(name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(identifier, sql.Identifier(template))
        )
    yield name
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def _forget_durability(server: str) -> None:
    """Let a server of the tests wait for no disk: nobody needs its data after it has ended."""
    with psycopg.connect(server, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")


def _url(server: str, database: str) -> str:
    return urlsplit(server)._replace(path=f"/{database}").geturl()


@contextmanager
def _emptied_graph(driver: Any, settings: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    database = settings["LEADML_NEO4J_DATABASE"]
    _empty_graph(driver, database)
    yield (
        settings["LEADML_NEO4J_URI"],
        settings["LEADML_NEO4J_USER"],
        settings["LEADML_NEO4J_PASSWORD"],
        database,
    )
    _empty_graph(driver, database)


def _count_nodes(driver: Any, database: str) -> int:
    records, _, _ = driver.execute_query("MATCH (n) RETURN count(n) AS nodes", database_=database)
    return int(records[0]["nodes"])


def _empty_graph(driver: Any, database: str) -> None:
    while _count_nodes(driver, database):
        driver.execute_query(
            "MATCH (n) WITH n LIMIT $batch DETACH DELETE n",
            batch=_DELETE_BATCH,
            database_=database,
        )
