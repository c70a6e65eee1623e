from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from leadml_pipelines.graph import queries
from leadml_pipelines.graph.bolt import open_graph, to_micros_utc
from leadml_pipelines.graph.metrics import metrics_as_of
from leadml_pipelines.graph.queries import read_graph
from leadml_pipelines_tests.graph.builders import as_sets, at

Address = tuple[str, str, str, str]


def test_an_empty_graph_is_read_as_typed_empty_frames(graph_settings: Address) -> None:
    data = read_graph(graph_settings)
    assert list(data.nodes) == ["entity_type", "entity_id", "created_at"]
    assert list(data.edges) == ["src", "dst", "relation", "since", "until"]
    assert data.nodes.empty
    assert str(data.edges["since"].dtype) == "datetime64[us, UTC]"
    assert metrics_as_of(data, at(0)).empty


def test_a_graph_owned_by_the_customer_is_read_as_it_is(graph_settings: Address) -> None:
    paris = timezone(timedelta(hours=2))
    with open_graph(graph_settings) as bolt:
        bolt.write(
            "CREATE (a:Lead:Person {lead_id: 'a', created_at: $local, mood: 'fine'})"
            " CREATE (b:Lead {lead_id: 'b'}) CREATE (:Lead {name: 'no key'})"
            " CREATE (a)-[:REFERRED]->(b) CREATE (b)-[:LIKES]->(a)",
            local=datetime(2026, 5, 1, 2, 0, 0, 7, tzinfo=paris),
        )
    assert as_sets(read_graph(graph_settings)) == (
        {("lead", "a", datetime(2026, 5, 1, 0, 0, 0, 7, tzinfo=UTC)), ("lead", "b", None)},
        {("a", "b", "REFERRED", None, None)},
    )


def test_a_graph_larger_than_a_chunk_is_read_whole(
    graph_settings: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "CHUNK_ROWS", 7)
    with open_graph(graph_settings) as bolt:
        bolt.write("UNWIND range(1, 50) AS n CREATE (:Agent {agent_id: toString(n)})")
    nodes = read_graph(graph_settings).nodes
    assert sorted(nodes["entity_id"]) == sorted(str(n) for n in range(1, 51))


@pytest.mark.parametrize("year", [1912, 1969, 1999, 2026, 2199])
def test_microseconds_survive_the_way_to_the_graph_and_back(
    graph_settings: Address, year: int
) -> None:
    moment = datetime(year, 3, 29, 1, 59, 59, 999_999, tzinfo=UTC)
    with open_graph(graph_settings) as bolt:
        bolt.write("CREATE (:Lead {lead_id: 'a', created_at: $moment})", moment=moment)
    assert read_graph(graph_settings).nodes["created_at"].tolist() == [moment]


def test_a_property_that_is_no_time_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="2026-01-01"):
        to_micros_utc("2026-01-01")
