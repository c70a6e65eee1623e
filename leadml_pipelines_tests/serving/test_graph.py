"""One entity in the graph over HTTP: from a real graph and PostgreSQL, and with either away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from leadml_pipelines.graph.bolt import open_graph
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import graph_lookup
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.features.world import World as Rows
from leadml_pipelines_tests.serving.conftest import NOBODY_LISTENS, World, serve

Address = tuple[str, str, str, str]
Serving = Callable[[Settings], httpx.Client]

PATH = "/api/v1/features/graph"
NOW = utc_now()
MONDAYS = [NOW - timedelta(days=21), NOW - timedelta(days=14)]


def _named(settings: Settings, graph: Address, **more: Any) -> Settings:
    uri, user, password, database = graph
    named = {
        "neo4j_uri": uri,
        "neo4j_user": user,
        "neo4j_password": SecretStr(password),
        "neo4j_database": database,
    }
    return settings.model_copy(update=named | more)


@pytest.fixture(scope="module")
def world(kept_world: World) -> World:
    return kept_world


@pytest.fixture(scope="module")
def settings(world: World, module_graph_settings: Address) -> Settings:
    """An app over a small family in the graph and two weeks of metrics of lead a."""
    with open_graph(module_graph_settings) as bolt:
        bolt.write(
            "CREATE (a:Lead {lead_id: 'a'})-[:ASSIGNED_TO {since: $since}]->"
            "(:Agent {agent_id: 'x'})"
            " CREATE (a)-[:MEMBER_OF {since: $since}]->(h:Household {household_id: 'h'})"
            " CREATE (:Lead {lead_id: 'b'})-[:MEMBER_OF {since: $since}]->(h)"
            " CREATE (a)-[:REFERRED {at: $since}]->(:Lead {lead_id: 'c/d e'})",
            since=NOW - timedelta(days=1),
        )
    with connect(world.settings.require_postgres(), autocommit=True) as connection:
        connection.execute("DELETE FROM leadml.graph_metrics")
        for week, monday in enumerate(MONDAYS):
            rows = Rows().add(
                "graph_metrics", entity_id="a", as_of=monday, degree=week, community="lead:a"
            )
            row = rows.tables["graph_metrics"][0]
            connection.execute(
                f"INSERT INTO leadml.graph_metrics ({', '.join(row)}) "
                f"VALUES ({', '.join(['%s'] * len(row))})",
                list(row.values()),
            )
    return _named(world.settings, module_graph_settings)


@pytest.fixture(scope="module", autouse=True)
def patient_metrics() -> Iterator[None]:
    """PostgreSQL under the load of other tests gets more time than in a customer's request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_lookup, "METRICS_SECONDS", 20.0)
        yield


@contextmanager
def _patient_graph() -> Iterator[None]:
    """So does the graph, by apps that start meanwhile."""
    original = graph_lookup.LiveGraph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_lookup, "LiveGraph", lambda address: original(address, 20.0))
        yield


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A client of one app for all tests that only ask."""
    with ExitStack() as stack:
        with _patient_graph():
            client = stack.enter_context(serve(settings))
        yield client


def _data(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


def _refused(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_a_lead_is_answered_from_graph_and_latest_snapshot(client: httpx.Client) -> None:
    data = _data(client.get(f"{PATH}/a"))
    assert data["degree"] == {"ASSIGNED_TO": 1, "REFERRED": 1, "MEMBER_OF": 1, "CAME_FROM": 0}
    assert {n["entity_id"] for n in data["neighbours"]} == {"x", "h", "c/d e"}
    assert data["household"]["members"] == ["b"]
    assert [n["entity_id"] for n in data["referred"]] == ["c/d e"]
    assert data["current_agent"]["entity_id"] == "x"
    assert data["community"] == "lead:a"
    assert data["metrics_missing"] is None
    assert data["metrics"]["as_of"] == MONDAYS[-1].isoformat()
    stored = Rows().add("graph_metrics", entity_id="a", as_of=MONDAYS[-1])
    keys = {"entity_type", "entity_id", "as_of", "computed_at"}
    expected = {k: v for k, v in stored.tables["graph_metrics"][0].items() if k not in keys}
    assert data["metrics"]["values"] == {**expected, "degree": 1, "community": "lead:a"}


def test_an_answer_follows_the_contract(client: httpx.Client) -> None:
    from leadml_pipelines.serving.contract import GraphResponse

    answer = client.get(f"{PATH}/a").json()
    described = GraphResponse.model_validate(answer, extra="forbid").model_dump(mode="json")
    assert set(described["data"]) == set(answer["data"])


def test_a_metric_that_a_later_migration_adds_is_answered_too(
    client: httpx.Client, settings: Settings
) -> None:
    _data(client.get(f"{PATH}/a"))
    with connect(settings.require_postgres(), autocommit=True) as connection:
        connection.execute("ALTER TABLE leadml.graph_metrics ADD brand_new double precision")
        try:
            connection.execute("UPDATE leadml.graph_metrics SET brand_new = 0.5")
            values = _data(client.get(f"{PATH}/a"))["metrics"]["values"]
        finally:
            connection.execute("ALTER TABLE leadml.graph_metrics DROP brand_new")
    assert values["brand_new"] == 0.5


def test_an_agent_is_answered_by_its_type(client: httpx.Client) -> None:
    data = _data(client.get(f"{PATH}/x", params={"entity_type": "agent"}))
    assert [(n["entity_id"], n["direction"]) for n in data["neighbours"]] == [("a", "in")]
    assert (data["metrics"], data["metrics_missing"]) == (None, "no_snapshot")


def test_an_id_with_a_slash_is_an_id(client: httpx.Client) -> None:
    data = _data(client.get(f"{PATH}/c%2Fd%20e"))
    assert data["entity_id"] == "c/d e"
    assert [n["entity_id"] for n in data["referrers"]] == ["a"]


def test_an_unknown_entity_is_named(client: httpx.Client) -> None:
    message = _refused(client.get(f"{PATH}/nobody"), 404, "unknown_entity")
    assert "no lead with the id nobody" in message


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({"entity_type": "household"}, "entity_type"),
        ({"limit": 501}, "limit"),
        ({"limit": 0}, "limit"),
    ],
)
def test_what_can_not_be_asked_is_refused(
    client: httpx.Client, asked: dict[str, Any], part: str
) -> None:
    assert part in _refused(client.get(f"{PATH}/a", params=asked), 422, "invalid_request")


def test_the_limit_bounds_the_list_and_not_the_count(client: httpx.Client) -> None:
    data = _data(client.get(f"{PATH}/a", params={"limit": 1}))
    assert (len(data["neighbours"]), data["relationships"]) == (1, 3)


def test_postgres_away_is_said_and_the_rest_is_answered(
    settings: Settings, serving: Serving
) -> None:
    away = SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none")
    with _patient_graph():
        client = serving(settings.model_copy(update={"postgres_url": away}))
    for _ in range(2):
        data = _data(client.get(f"{PATH}/a"))
        assert (data["metrics"], data["community"]) == (None, None)
        assert data["metrics_missing"] == "postgres_unavailable"
        assert data["degree"]["REFERRED"] == 1


def test_a_connection_that_postgres_closed_is_made_anew(
    client: httpx.Client, settings: Settings
) -> None:
    _data(client.get(f"{PATH}/a"))
    url = settings.require_postgres()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert _data(client.get(f"{PATH}/a"))["metrics"] is not None


def test_without_a_graph_it_is_said_how_to_name_one(world: World, serving: Serving) -> None:
    response = serving(world.settings).get(f"{PATH}/a")
    message = _refused(response, 503, "graph_not_configured")
    assert "LEADML_NEO4J_URI is not set; set it" in message


def test_a_graph_that_is_away_is_a_503_by_its_kind_and_the_log_tells_which(
    world: World, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    away = _named(world.settings, (f"bolt://{NOBODY_LISTENS}", "me", "secret-word", "neo4j"))
    client = serving(away)
    # Asked, and then left alone: both say the same.
    for _ in range(2):
        message = _refused(client.get(f"{PATH}/a"), 503, "graph_unavailable")
        assert message == "the graph did not answer (ServiceUnavailable); try again shortly"
    logged = capsys.readouterr().out
    assert f"the graph at bolt://{NOBODY_LISTENS} (database neo4j, user me)" in logged
    assert "LEADML_NEO4J_URI" in logged
    assert "secret-word" not in logged
    assert 'leadml_online_failures_total{store="graph"}' in client.get("/metrics").text


def test_a_graph_that_is_silent_holds_no_request(world: World, serving: Serving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"bolt://127.0.0.1:{mute.getsockname()[1]}"
        client = serving(_named(world.settings, (address, "me", "word", "neo4j")))
        started = time.monotonic()
        answers = [client.get(f"{PATH}/a") for _ in range(3)]
        took = time.monotonic() - started
    assert [answer.status_code for answer in answers] == [503] * 3
    # Without a limit of its own, the driver waits for a minute.
    assert took < 10


def test_openapi_describes_the_answer(world: World, serving: Serving) -> None:
    paths = serving(world.settings).get("/openapi.json").json()["paths"]
    described = paths[f"{PATH}/{{entity_id}}"]["get"]
    answer = described["responses"]["200"]["content"]["application/json"]
    assert answer["schema"]["$ref"].endswith("GraphResponse")
    assert {"404", "503"} <= set(described["responses"])
    assert {p["name"] for p in described["parameters"]} == {"entity_id", "entity_type", "limit"}
