"""Metrics by Neo4j's Graph Data Science, beside those of igraph on the same graph."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import igraph
import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.graph import gds, metrics
from leadml_pipelines.graph.bolt import Bolt, open_graph
from leadml_pipelines.graph.gds import NoGdsError, gds_metrics_as_of, has_gds, measure_graph
from leadml_pipelines.graph.model import CAME_FROM, EDGE_KINDS, LEAD, NODE_KINDS, GraphData
from leadml_pipelines.graph.queries import read_open_graph
from leadml_pipelines.graph.timeline import ENTITY_TYPES, RELATIONS, Timeline
from leadml_pipelines_tests.graph.builders import at

Address = tuple[str, str, str, str]

on_neo4j = [
    pytest.mark.neo4j,
    pytest.mark.parametrize("graph_server", ["neo4j"], indirect=True),
]

KINDS = {kind.entity_type: kind for kind in NODE_KINDS}
RELATED = {kind.relation: kind for kind in EDGE_KINDS}
COMMUNITY = {"community", "community_size", "community_share"}


@pytest.fixture
def opened(graph_settings: Address) -> Iterator[Bolt]:
    with open_graph(graph_settings) as bolt:
        if not has_gds(bolt):
            pytest.skip("the graph named by the environment has no Graph Data Science library")
        yield bolt


def write(bolt: Bolt, nodes: list[tuple[Any, ...]], edges: list[tuple[Any, ...]]) -> GraphData:
    """Put `(type, id, created)` and `(src, dst, relation, since, until)` into the graph."""
    for kind in NODE_KINDS:
        rows = [{"id": key, "born": born} for type_, key, born in nodes if KINDS[type_] is kind]
        born = f", {kind.born}: row.born" if kind.born else ""
        bolt.write(
            f"UNWIND $rows AS row CREATE (:{kind.label} {{{kind.key}: row.id{born}}})", rows=rows
        )
    for edge in EDGE_KINDS:
        chosen = [row for row in edges if RELATED[row[2]] is edge]
        rows = [{"a": a, "b": b, "start": since, "end": until} for a, b, _, since, until in chosen]
        end = f", {edge.end}: row.end" if edge.end else ""
        bolt.write(
            f"UNWIND $rows AS row MATCH (a:{LEAD.label}) WHERE a.{LEAD.key} = row.a"
            f" MATCH (b:{edge.target.label}) WHERE b.{edge.target.key} = row.b"
            f" CREATE (a)-[:{edge.relation} {{{edge.start}: row.start{end}}}]->(b)",
            rows=rows,
        )
    return read_open_graph(bolt)


def random_graph(seed: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Lives that begin and end around day 10, some of them unknown; all that a graph may hold."""
    random = np.random.default_rng(seed)

    def moment(unknown: float) -> datetime | None:
        return None if random.random() < unknown else at(int(random.integers(0, 20)))

    ids = {"lead": 30, "agent": 4, "household": 8, "campaign": 3}
    nodes = [
        (type_, f"{type_[0]}{n}", moment(0.3) if KINDS[type_].born else None)
        for type_, count in ids.items()
        for n in range(count)
    ]
    edges = []
    for relation, count in (
        ("ASSIGNED_TO", 40),
        ("REFERRED", 30),
        ("MEMBER_OF", 25),
        ("CAME_FROM", 15),
    ):
        kind = RELATED[relation]
        target = kind.target.entity_type
        for _ in range(count):
            since = moment(0.15)
            ended = kind.end is not None and random.random() < 0.4
            start = at(0) if since is None else since
            until = start + timedelta(days=int(random.integers(0, 10))) if ended else None
            source = f"l{random.integers(0, ids['lead'])}"
            edges.append(
                (source, f"{target[0]}{random.integers(0, ids[target])}", relation, since, until)
            )
    return nodes, edges


def by_igraph(data: GraphData, as_of: datetime) -> pd.DataFrame:
    """What the frame of metrics may lack, straight from igraph."""
    timeline = Timeline.of(data)
    nodes, edges = timeline.alive(as_of)
    people = np.flatnonzero(nodes & (timeline.node_type != ENTITY_TYPES.index("campaign")))
    social = edges & (timeline.relation != RELATIONS.index(CAME_FROM.relation))
    number = {node: place for place, node in enumerate(people)}
    pairs = {
        tuple(sorted((number[a], number[b])))
        for a, b in zip(timeline.src[social], timeline.dst[social], strict=True)
    }
    ties = igraph.Graph(n=len(people), edges=sorted(pairs))
    n = len(people)
    found = pd.DataFrame(
        {
            "entity_type": np.array(ENTITY_TYPES, dtype=object)[timeline.node_type[people]],
            "entity_id": timeline.node_id[people],
            "betweenness": np.array(ties.betweenness(directed=False))
            * (2 / max((n - 1) * (n - 2), 1)),
            "closeness": np.nan_to_num(ties.harmonic_centrality()),
            "clustering": ties.transitivity_local_undirected(mode="zero"),
            "core": ties.coreness(),
        }
    )
    return found[found["entity_type"].isin(["lead", "agent"])].reset_index(drop=True)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, *, without: set[str]) -> None:
    shared = [name for name in found if name in expected and name not in without]
    pd.testing.assert_frame_equal(
        found[shared], expected[shared], check_dtype=False, rtol=1e-6, atol=1e-9
    )


class TestOnNeo4j:
    pytestmark = on_neo4j

    def test_the_library_is_found(self, opened: Bolt) -> None:
        assert has_gds(opened)

    @pytest.mark.parametrize("seed", range(4))
    def test_metrics_are_those_of_igraph(self, opened: Bolt, seed: int) -> None:
        data = write(opened, *random_graph(seed))
        for as_of in (at(10), at(4) - timedelta(microseconds=1)):
            found = gds_metrics_as_of(opened, as_of)
            assert_same(found, metrics.metrics_as_of(data, as_of), without=COMMUNITY)
            assert_same(found, by_igraph(data, as_of), without=set())

    def test_the_names_are_those_of_igraph(self, opened: Bolt) -> None:
        found = gds_metrics_as_of(opened, at(0))
        assert tuple(found) == gds.COLUMNS
        expected = metrics.metrics_as_of(read_open_graph(opened), at(0))
        both = [name for name in found if name in expected]
        assert (
            found[both].dtypes.astype(str).to_dict() == expected[both].dtypes.astype(str).to_dict()
        )

    def test_counts_are_those_that_were_drawn(self, opened: Bolt) -> None:
        nodes = [("lead", key, at(0)) for key in "abcd"]
        nodes += [("agent", "x", at(0)), ("household", "h", None)]
        edges = [
            ("a", "b", "REFERRED", at(1), None),
            ("a", "c", "REFERRED", at(1), None),
            ("b", "a", "REFERRED", at(1), None),
            ("a", "x", "ASSIGNED_TO", at(1), None),
            ("a", "x", "ASSIGNED_TO", at(2), None),
            ("b", "x", "ASSIGNED_TO", at(1), at(3)),
            ("a", "h", "MEMBER_OF", at(1), None),
            ("b", "h", "MEMBER_OF", at(1), None),
        ]
        write(opened, nodes, edges)
        found = gds_metrics_as_of(opened, at(5)).set_index("entity_id")
        counts = [
            "degree",
            "degree_referral_made",
            "degree_referral_received",
            "degree_referral",
            "degree_assignment",
            "degree_household",
            "household_size",
            "agent_load",
            "nodes",
        ]
        assert found.loc["a", counts].tolist() == [6, 2, 1, 3, 2, 1, 2, 0, 6]
        assert found.loc["d", counts].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 6]
        assert found.loc["x", counts].tolist() == [2, 0, 0, 0, 2, 0, 0, 1, 6]

    def test_two_circles_are_two_communities_named_after_their_smallest_lead(
        self, opened: Bolt
    ) -> None:
        circles = ("abcde", "vwxyz")
        nodes = [("lead", key, at(0)) for circle in circles for key in circle]
        nodes.append(("lead", "alone", at(0)))
        edges = [
            (a, b, "REFERRED", at(1), None) for circle in circles for a in circle for b in circle
        ]
        edges.append(("e", "v", "REFERRED", at(1), None))
        write(opened, nodes, edges)
        first, again = (gds_metrics_as_of(opened, at(2)) for _ in range(2))
        pd.testing.assert_frame_equal(first, again)
        named = first.set_index("entity_id")
        assert set(named.loc[list("abcde"), "community"]) == {"lead:a"}
        assert set(named.loc[list("vwxyz"), "community"]) == {"lead:v"}
        assert named.loc["alone", "community"] == "lead:alone"
        assert named.loc["a", ["community_size", "community_share"]].tolist() == [5, 5 / 11]

    @pytest.mark.parametrize("nodes", [[], [("lead", "a", at(0))], [("household", "h", None)]])
    def test_a_graph_without_ties_is_measured(
        self, opened: Bolt, nodes: list[tuple[Any, ...]]
    ) -> None:
        data = write(opened, nodes, [])
        found = gds_metrics_as_of(opened, at(1))
        assert_same(found, metrics.metrics_as_of(data, at(1)), without=set())
        assert not found.isna().to_numpy().any()

    def test_a_large_graph_is_sampled_and_has_no_closeness(
        self, opened: Bolt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leads = [f"l{n}" for n in range(40)]
        nodes = [("lead", key, at(0)) for key in leads]
        star = [(key, "x", "ASSIGNED_TO", at(1), None) for key in leads]
        write(opened, [*nodes, ("agent", "x", at(0))], star)
        exact = gds_metrics_as_of(opened, at(2)).set_index("entity_id")
        monkeypatch.setattr(gds, "PIVOTS", 10)
        sampled = gds_metrics_as_of(opened, at(2), exact_work=0).set_index("entity_id")
        assert sampled["closeness"].isna().all()
        assert exact.loc["x", "betweenness"] == pytest.approx(1.0)
        # The middle may be among the ten, and learns nothing from its own search.
        assert sampled.loc["x", "betweenness"] == pytest.approx(1.0, rel=0.15)

    def test_nothing_stays_in_the_memory_of_the_server(self, opened: Bolt) -> None:
        write(opened, [("lead", "a", at(0))], [])
        gds_metrics_as_of(opened, at(1))
        assert list(opened.read("CALL gds.graph.list() YIELD graphName")) == []

    def test_times_without_a_zone_are_taken_as_utc(self, opened: Bolt) -> None:
        opened.write(
            "CREATE (:Lead {lead_id: 'a', created_at: localdatetime('2026-01-01T00:00:00')})"
            " CREATE (:Lead {lead_id: 'b', created_at: localdatetime('2026-12-01T00:00:00')})"
        )
        assert gds_metrics_as_of(opened, at(0))["entity_id"].tolist() == ["a"]

    def test_the_larger_graph_goes_to_the_library(
        self, opened: Bolt, graph_settings: Address
    ) -> None:
        write(opened, [("lead", "a", at(0)), ("lead", "b", at(0))], [])
        small = measure_graph(graph_settings, at(1), largest_pull=2)
        large = measure_graph(graph_settings, at(1), largest_pull=1)
        chosen = measure_graph(graph_settings, at(1), engine="igraph", largest_pull=1)
        assert (tuple(small), tuple(chosen)) == (metrics.COLUMNS, metrics.COLUMNS)
        assert tuple(large) == gds.COLUMNS


@pytest.mark.parametrize("graph_server", ["embedded"], indirect=True)
def test_without_the_library_igraph_measures_and_gds_is_refused(graph_settings: Address) -> None:
    with open_graph(graph_settings) as bolt:
        if has_gds(bolt):
            pytest.skip("the graph named by the environment has the library")
        bolt.write("CREATE (:Lead {lead_id: 'a', created_at: $born})", born=at(0))
    assert tuple(measure_graph(graph_settings, at(1), largest_pull=0)) == metrics.COLUMNS
    with pytest.raises(NoGdsError, match="install its plugin"):
        measure_graph(graph_settings, at(1), engine="gds")
