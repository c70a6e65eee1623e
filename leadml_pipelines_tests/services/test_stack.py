"""The three embedded servers together, started for real."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from neo4j import GraphDatabase

from leadml_pipelines.services.stack import ServiceStack

pytestmark = pytest.mark.usefixtures("embedded_only")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, embedded_only: None) -> Iterator[ServiceStack]:
    stack = ServiceStack(tmp_path_factory.mktemp("stack") / "home")
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def environment(stack: ServiceStack) -> dict[str, str]:
    return stack.environment()


def family(stack: ServiceStack) -> list[psutil.Process]:
    """Every process of the home's servers."""
    leaders = [psutil.Process(record.pid) for record in stack.supervisor.records().values()]
    return [p for leader in leaders for p in (leader, *leader.children(recursive=True))]


def graph_value(environment: dict[str, str], query: str) -> object:
    auth = (environment["LEADML_NEO4J_USER"], environment["LEADML_NEO4J_PASSWORD"])
    with GraphDatabase.driver(environment["LEADML_NEO4J_URI"], auth=auth) as driver:
        records, _, _ = driver.execute_query(query, database_=environment["LEADML_NEO4J_DATABASE"])
    return records[0][0] if records else None


def test_postgresql_answers_in_utc(environment: dict[str, str]) -> None:
    with psycopg.connect(environment["LEADML_POSTGRES_URL"]) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
        assert connection.execute("SELECT current_database()").fetchone() == ("leadml",)


def test_dagster_has_a_database_of_its_own(environment: dict[str, str]) -> None:
    url = environment["LEADML_DAGSTER_URL"]
    assert url.startswith("postgresql+psycopg2://")
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("dagster",)


def test_redis_answers(environment: dict[str, str]) -> None:
    with redis.Redis.from_url(environment["LEADML_REDIS_URL"]) as client:
        assert client.ping()


def test_the_graph_answers(environment: dict[str, str]) -> None:
    assert graph_value(environment, "RETURN 7") == 7


def test_nobody_enters_postgresql_without_the_password(environment: dict[str, str]) -> None:
    url = environment["LEADML_POSTGRES_URL"].replace("@", "x@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_nobody_enters_redis_without_the_password(environment: dict[str, str]) -> None:
    address = environment["LEADML_REDIS_URL"].rpartition("@")[2]
    with (
        redis.Redis.from_url(f"redis://{address}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_servers_listen_on_the_loopback_interface_only(stack: ServiceStack) -> None:
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in family(stack)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_no_password_is_on_a_command_line(stack: ServiceStack) -> None:
    lines = [" ".join(process.cmdline()) for process in family(stack)]
    assert len(lines) >= 3
    for secret in stack.home.secrets().values():
        assert not [line for line in lines if secret in line]


def test_no_password_is_in_state_or_logs_or_status(stack: ServiceStack) -> None:
    shown = [repr(stack.status()), (stack.home.path / "state.json").read_text()]
    shown += [log.read_text() for log in (stack.home.path / "logs").iterdir()]
    assert len(stack.home.secrets()) == 3
    for secret in stack.home.secrets().values():
        assert not [text for text in shown if secret in text]


def test_no_file_with_a_password_can_be_read_by_others(stack: ServiceStack) -> None:
    secrets = [secret.encode() for secret in stack.home.secrets().values()]
    for path in stack.home.path.rglob("*"):
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_status_tells_where_the_servers_run_and_since_when(stack: ServiceStack) -> None:
    lines = stack.status()
    assert [line.name for line in lines] == ["postgres", "redis", "graph"]
    assert {line.state for line in lines} == {"running"}
    for line in lines:
        assert line.pid is not None
        assert psutil.pid_exists(line.pid)
        assert "127.0.0.1:" in line.address
        assert line.since is not None
        assert line.since.utcoffset() is not None


def test_a_second_start_starts_nothing_and_stops_nothing(stack: ServiceStack) -> None:
    before = stack.supervisor.records()
    second = ServiceStack(stack.home.path)
    second.start()
    assert second.started == ()
    second.stop()
    assert stack.supervisor.records() == before
    assert all(record.alive for record in before.values())


def test_a_second_start_makes_up_for_a_first_that_was_killed_at_the_end(
    stack: ServiceStack, environment: dict[str, str]
) -> None:
    with psycopg.connect(environment["LEADML_POSTGRES_URL"], autocommit=True) as connection:
        connection.execute("DROP DATABASE dagster")
    ServiceStack(stack.home.path).start()
    url = environment["LEADML_DAGSTER_URL"]
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        connection.execute("SELECT 1")


def test_a_shell_with_the_printed_variables_still_sees_the_servers_as_its_own(
    stack: ServiceStack, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert {line.state for line in ServiceStack(stack.home.path).status()} == {"running"}
    assert stack.environment() == environment


def test_after_everything_was_killed_it_starts_again_with_its_data(
    tmp_path: Path, embedded_only: None
) -> None:
    stack = ServiceStack(tmp_path / "home")
    try:
        stack.start()
        environment = stack.environment()
        with psycopg.connect(environment["LEADML_POSTGRES_URL"]) as connection:
            connection.execute("CREATE TABLE kept (n integer)")
        with redis.Redis.from_url(environment["LEADML_REDIS_URL"]) as client:
            client.set("kept", "1")
        graph_value(environment, "CREATE (n:Kept) RETURN n")
        for process in family(stack):
            os.kill(process.pid, signal.SIGKILL)
        with stack._users.leaving():
            pass  # So does the kernel for a command that was killed as well.
        again = ServiceStack(tmp_path / "home")
        again.start()
        assert sorted(again.started) == ["graph", "postgres", "redis"]
        assert again.environment() == environment
        with psycopg.connect(environment["LEADML_POSTGRES_URL"]) as connection:
            connection.execute("SELECT n FROM kept")
        with redis.Redis.from_url(environment["LEADML_REDIS_URL"]) as client:
            assert client.get("kept") == b"1"
        assert graph_value(environment, "MATCH (n:Kept) RETURN count(n)") == 1
        processes = family(again)
        again.stop()
        assert not [process for process in processes if process.is_running()]
        assert {line.state for line in again.status()} == {"stopped"}
    finally:
        stack.remove()
