"""The surroundings of one entity, on a server that answers, refuses, hangs and comes back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from leadml_pipelines.graph.bolt import GraphUnavailableError, open_graph
from leadml_pipelines.graph.live import GraphContentError, LiveGraph, Surroundings
from leadml_pipelines.times import utc_now

Address = tuple[str, str, str, str]

NOW = utc_now()
PAST = NOW - timedelta(days=90)
RECENT = NOW - timedelta(days=10)
FUTURE = NOW + timedelta(days=3650)

# A server under the load of other tests is given more time than a customer's request.
PATIENCE = 20.0


@pytest.fixture
def live(graph_settings: Address) -> Iterator[LiveGraph]:
    graph = LiveGraph(graph_settings, PATIENCE)
    yield graph
    graph.close()


def write(graph: Address, cypher: str, **parameters: Any) -> None:
    times = {"past": PAST, "recent": RECENT, "future": FUTURE}
    with open_graph(graph) as bolt:
        bolt.write(cypher, **times, **parameters)


def around(live: LiveGraph, entity_type: str, entity_id: str, limit: int = 50) -> Surroundings:
    found = live.surroundings(entity_type, entity_id, limit)
    assert found is not None
    return found


FAMILY = (
    "CREATE (a:Lead {lead_id: 'a'})-[:ASSIGNED_TO {since: $past, until: $recent}]->"
    "(x:Agent {agent_id: 'x'})"
    " CREATE (a)-[:ASSIGNED_TO {since: $recent}]->(:Agent {agent_id: 'y'})"
    " CREATE (a)-[:MEMBER_OF {since: $past}]->(h:Household {household_id: 'h'})"
    " CREATE (b:Lead {lead_id: 'b'})-[:MEMBER_OF {since: $past}]->(h)"
    " CREATE (:Lead {lead_id: 'left'})-[:MEMBER_OF {since: $past, until: $recent}]->(h)"
    " CREATE (a)-[:REFERRED {at: $past}]->(b)"
    " CREATE (:Lead {lead_id: 'c'})-[:REFERRED {at: $recent}]->(a)"
    " CREATE (a)-[:CAME_FROM {at: $past}]->(:Campaign {campaign_id: 'k'})"
    " CREATE (a)-[:LIKES]->(:Colour {name: 'green'})"
)


def test_a_lead_is_shown_with_all_that_is_around_it(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(graph_settings, FAMILY)
    found = around(live, "lead", "a")
    shown = {(n.relation, n.direction, n.entity_type, n.entity_id) for n in found.neighbours}
    assert shown == {
        ("ASSIGNED_TO", "out", "agent", "x"),
        ("ASSIGNED_TO", "out", "agent", "y"),
        ("MEMBER_OF", "out", "household", "h"),
        ("REFERRED", "out", "lead", "b"),
        ("REFERRED", "in", "lead", "c"),
        ("CAME_FROM", "out", "campaign", "k"),
    }
    assert found.degree == {"ASSIGNED_TO": 1, "REFERRED": 2, "MEMBER_OF": 1, "CAME_FROM": 1}
    assert found.relationships == 6
    assert found.household is not None
    assert (found.household.household_id, found.household.members) == ("h", ["b"])
    assert [n.entity_id for n in found.referrers] == ["c"]
    assert [n.entity_id for n in found.referred] == ["b"]
    assert found.current_agent is not None
    assert (found.current_agent.entity_id, found.current_agent.since) == ("y", RECENT)


def test_what_has_ended_comes_last_with_its_end(live: LiveGraph, graph_settings: Address) -> None:
    write(graph_settings, FAMILY)
    last = around(live, "lead", "a").neighbours[-1]
    assert (last.entity_id, last.since, last.until, last.holds) == ("x", PAST, RECENT, False)


def test_an_agent_is_shown_with_its_leads(live: LiveGraph, graph_settings: Address) -> None:
    write(graph_settings, FAMILY)
    for agent, holding in (("x", 0), ("y", 1)):
        found = around(live, "agent", agent)
        assert [(n.entity_id, n.direction) for n in found.neighbours] == [("a", "in")]
        assert found.degree["ASSIGNED_TO"] == holding
        assert (found.household, found.current_agent, found.referred) == (None, None, [])


def test_a_lead_alone_has_no_neighbours_and_an_unknown_one_is_none(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(graph_settings, "CREATE (:Lead {lead_id: 'a'})")
    assert around(live, "lead", "a").neighbours == []
    assert live.surroundings("lead", "b", 50) is None
    assert live.surroundings("agent", "a", 50) is None


def test_the_limit_keeps_those_that_hold_and_the_newest(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(
        graph_settings,
        "CREATE (x:Agent {agent_id: 'x'}) WITH x UNWIND $rows AS row"
        " CREATE (:Lead {lead_id: row.id})"
        "-[:ASSIGNED_TO {since: row.since, until: row.until}]->(x)",
        rows=[
            {
                "id": f"l{n}",
                "since": PAST + timedelta(hours=n),
                "until": None if n % 2 else RECENT,
            }
            for n in range(20)
        ],
    )
    found = around(live, "agent", "x", limit=3)
    assert [n.entity_id for n in found.neighbours] == ["l19", "l17", "l15"]
    assert (found.relationships, found.degree["ASSIGNED_TO"]) == (20, 10)


def test_what_begins_in_the_future_does_not_hold_yet(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(
        graph_settings,
        "CREATE (:Lead {lead_id: 'a'})-[:ASSIGNED_TO {since: $future}]->(:Agent {agent_id: 'x'})",
    )
    found = around(live, "lead", "a")
    assert (found.current_agent, found.degree["ASSIGNED_TO"]) == (None, 0)
    assert [n.holds for n in found.neighbours] == [False]


def test_times_without_a_zone_in_a_graph_of_the_customer_are_taken_as_utc(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(
        graph_settings,
        "CREATE (a:Lead {lead_id: 'a'})-[:ASSIGNED_TO {since: localdatetime('2020-01-01T10:00:00'),"
        " until: localdatetime('2020-02-01T10:00:00')}]->(:Agent {agent_id: 'x'})"
        " CREATE (a)-[:ASSIGNED_TO {since: localdatetime('2020-02-01T10:00:00')}]->"
        "(:Agent {agent_id: 'y'})",
    )
    found = around(live, "lead", "a")
    assert found.current_agent is not None
    assert found.current_agent.entity_id == "y"
    assert found.current_agent.since == datetime(2020, 2, 1, 10, tzinfo=UTC)
    assert found.degree["ASSIGNED_TO"] == 1


def test_relationships_of_a_lead_with_itself_are_none(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(graph_settings, "CREATE (a:Lead {lead_id: 'a'})-[:REFERRED {at: $past}]->(a)")
    found = around(live, "lead", "a")
    assert (found.relationships, found.neighbours) == (0, [])


@pytest.mark.parametrize(
    "name", ["'}) DETACH DELETE n //", "$id", "$moment", "Łódź 🦊", "a/b", "\\", "zwei\nZeilen"]
)
def test_any_text_is_an_id(live: LiveGraph, graph_settings: Address, name: str) -> None:
    write(
        graph_settings,
        "CREATE (:Lead {lead_id: $name})-[:REFERRED {at: $past}]->(:Lead {lead_id: 'b'})",
        name=name,
    )
    assert around(live, "lead", name).entity_id == name
    assert [n.entity_id for n in around(live, "lead", "b").referrers] == [name]


def test_a_time_that_is_none_is_named_with_its_relation(
    live: LiveGraph, graph_settings: Address
) -> None:
    write(
        graph_settings,
        "CREATE (:Lead {lead_id: 'a'})-[:REFERRED {at: '2026-01-01'}]->(:Lead {lead_id: 'b'})",
    )
    with pytest.raises(GraphContentError, match=r"REFERRED.*2026-01-01"):
        live.surroundings("lead", "a", 50)


def test_many_threads_may_ask_at_once(live: LiveGraph, graph_settings: Address) -> None:
    write(graph_settings, FAMILY)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: around(live, "lead", "a").degree, range(60)))
    assert answers == [answers[0]] * 60


@pytest.mark.parametrize("part", [1, 2, 3], ids=["user", "password", "database"])
def test_a_graph_that_lets_us_not_in_is_named_without_its_password(
    graph_settings: Address, part: int
) -> None:
    wrong = list(graph_settings)
    wrong[part] = "wrong-word"
    graph = LiveGraph((wrong[0], wrong[1], wrong[2], wrong[3]), PATIENCE)
    try:
        with pytest.raises(GraphUnavailableError, match="LEADML_NEO4J_URI") as caught:
            graph.surroundings("lead", "a", 50)
    finally:
        graph.close()
    assert graph_settings[2] not in str(caught.value)
    assert ("wrong-word" in str(caught.value)) == (part != 2)


class Wire:
    """A connection to a server that can be cut, or fall silent, and be mended."""

    def __init__(self, address: Address) -> None:
        target = urlsplit(address[0])
        assert target.hostname is not None
        self._target = (target.hostname, target.port or 7687)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._talks = threading.Event()
        self._talks.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        port = self._listener.getsockname()[1]
        self.address = (f"bolt://127.0.0.1:{port}", *address[1:])

    def silence(self) -> None:
        self._talks.clear()

    def mend(self) -> None:
        self._talks.set()

    def cut(self) -> None:
        while self._sockets:
            # The other side may have closed it already.
            with self._sockets.pop() as end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.mend()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._talks.wait()
                sink.sendall(data)
        except OSError:
            return


@contextmanager
def wire(address: Address) -> Iterator[Wire]:
    opened = Wire(address)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def asked(address: Any, seconds: float) -> Iterator[LiveGraph]:
    graph = LiveGraph(address, seconds)
    graph.open()
    try:
        yield graph
    finally:
        graph.close()


def test_a_server_that_was_started_again_is_asked_again_at_once(graph_settings: Address) -> None:
    write(graph_settings, "CREATE (:Lead {lead_id: 'a'})")
    with wire(graph_settings) as cable, asked(cable.address, PATIENCE) as graph:
        around(graph, "lead", "a")
        cable.cut()
        around(graph, "lead", "a")


def test_a_server_that_falls_silent_is_given_up_in_time_and_found_again(
    graph_settings: Address,
) -> None:
    write(graph_settings, "CREATE (:Lead {lead_id: 'a'})")
    with wire(graph_settings) as cable, asked(cable.address, 2.0) as graph:
        _until_answered(graph)
        cable.silence()
        with pytest.raises(GraphUnavailableError, match="no answer in 2 s"):
            graph.surroundings("lead", "a", 50)
        # Nothing waits for a server that has just failed.
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(GraphUnavailableError):
                graph.surroundings("lead", "a", 50)
        assert time.monotonic() - started < 2.0
        cable.mend()
        _until_answered(graph)


def _until_answered(graph: LiveGraph) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            around(graph, "lead", "a")
        except GraphUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_a_server_that_is_not_there_is_named() -> None:
    with (
        asked(("bolt://127.0.0.1:1", "me", "secret-word", "neo4j"), 1.0) as graph,
        pytest.raises(GraphUnavailableError, match=r"bolt://127\.0\.0\.1:1 ") as caught,
    ):
        graph.surroundings("lead", "a", 50)
    assert "secret-word" not in str(caught.value)


def test_each_who_asks_during_the_rest_gets_an_error_of_its_own_with_the_same_cause() -> None:
    with asked(("bolt://127.0.0.1:1", "me", "word", "neo4j"), 1.0) as graph:
        errors = []
        for _ in range(3):
            with pytest.raises(GraphUnavailableError) as caught:
                graph.surroundings("lead", "a", 50)
            errors.append(caught.value)
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3
    assert len({type(error.__cause__) for error in errors}) == 1


def test_nothing_is_connected_before_the_first_question() -> None:
    before = threading.active_count()
    LiveGraph(("bolt://127.0.0.1:1", "me", "word", "neo4j"))
    assert threading.active_count() == before
