from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph.metrics import COLUMNS, metrics_as_of
from leadml_pipelines.graph.model import GraphData
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.graph.builders import (
    at,
    extract,
    graph,
    graph_of,
    policies,
    shuffled,
)

TARGETS = {
    "ASSIGNED_TO": "agent",
    "REFERRED": "lead",
    "MEMBER_OF": "household",
    "CAME_FROM": "campaign",
}
DAYS = st.integers(0, 6).map(at)


@st.composite
def graphs(draw: st.DrawFn) -> GraphData:
    """Up to 7 leads and a few of the rest, with lives in days 0 to 6; ids clash between types."""
    sizes = {"lead": 7, "agent": 3, "household": 2, "campaign": 2}
    nodes = [
        (kind, f"n{number}", draw(st.none() | DAYS))
        for kind, most in sizes.items()
        for number in range(draw(st.integers(0, most)))
    ]
    edges = []
    for _ in range(draw(st.integers(0, 12))):
        relation = draw(st.sampled_from(list(TARGETS)))
        edges.append(
            (
                f"n{draw(st.integers(0, 7))}",
                f"n{draw(st.integers(0, 7))}",
                relation,
                draw(DAYS),
                draw(st.none() | DAYS),
            )
        )
    return graph(nodes, edges)


BOUGHT = st.lists(st.tuples(st.integers(0, 7), DAYS), max_size=8).map(
    lambda rows: policies(*((f"n{lead}", bound) for lead, bound in rows))
)
"""Policies of some of the leads of `graphs`."""


def one(frame: pd.DataFrame, entity_id: str, entity_type: str = "lead") -> pd.Series:
    """The row of one entity."""
    rows = frame[(frame["entity_type"] == entity_type) & (frame["entity_id"] == entity_id)]
    assert len(rows) == 1
    return rows.iloc[0]


def brute_force(data: GraphData, as_of: datetime) -> dict[tuple[str, str], dict[str, float]]:
    """Degrees and PageRank by the words of the definition, with loops."""
    given_births = {
        (kind, name): moment for kind, name, moment in data.nodes.itertuples(index=False)
    }
    edges = []
    for src, dst, relation, since, until in data.edges.itertuples(index=False):
        ends = (("lead", src), (TARGETS[relation], dst))
        edges.append((*ends, relation, since, until))
    edges = [e for e in edges if e[0] != e[1] and {e[0], e[1]} <= {*given_births}]
    born = dict(given_births)
    for node, moment in given_births.items():
        if pd.isna(moment):
            firsts = [
                max(m for m in (e[3], given_births[e[0]], given_births[e[1]]) if not pd.isna(m))
                for e in edges
                if node in e[:2]
            ]
            born[node] = min(firsts, default=pd.Timestamp.max.tz_localize("UTC"))
    alive = {node for node, moment in born.items() if moment <= as_of}
    now = [
        e
        for e in edges
        if e[0] in alive and e[1] in alive and e[3] <= as_of and (pd.isna(e[4]) or as_of < e[4])
    ]
    people = sorted(n for n in alive if n[0] != "campaign")
    ties = {frozenset(e[:2]) for e in now if e[2] != "CAME_FROM"}
    rank = dict.fromkeys(people, 1 / max(len(people), 1))
    for _ in range(300):
        fresh = dict.fromkeys(people, 0.0)
        for node in people:
            others = [next(iter(t - {node})) for t in ties if node in t]
            for other in others or people:
                fresh[other] += rank[node] / len(others or people)
        rank = {n: 0.15 / len(people) + 0.85 * fresh[n] for n in people}
    result = {}
    for node in people:
        if node[0] == "household":
            continue
        homes = {e[1] for e in now if e[0] == node and e[2] == "MEMBER_OF"}
        mates = [e[0] for home in homes for e in {(f[0], f[1]) for f in now if f[1] == home}]
        result[node] = {
            "degree_referral_made": sum(node == e[0] for e in now if e[2] == "REFERRED"),
            "degree_referral_received": sum(node == e[1] for e in now if e[2] == "REFERRED"),
            "degree_assignment": sum(node in e[:2] for e in now if e[2] == "ASSIGNED_TO"),
            "household_size": sum(mate != node for mate in mates) + 1 if homes else 0,
            "agent_load": len({e[0] for e in now if e[1] == node and e[2] == "ASSIGNED_TO"}),
            "nodes": len(people),
            "degree": sum((e[0] == node) + (e[1] == node) for e in now if e[2] != "CAME_FROM"),
            "degree_referral": sum(node in e[:2] for e in now if e[2] == "REFERRED"),
            "degree_household": sum(mate != node for mate in mates),
            "pagerank": rank[node],
        }
    return result


@settings(max_examples=80, deadline=None)
@given(graphs(), DAYS)
def test_degrees_and_pagerank_are_those_of_a_brute_force_count(
    data: GraphData, as_of: datetime
) -> None:
    found = metrics_as_of(data, as_of)
    expected = brute_force(data, as_of)
    assert list(zip(found["entity_type"], found["entity_id"], strict=True)) == sorted(
        expected, key=lambda node: (["lead", "agent"].index(node[0]), node[1])
    )
    for row in found.itertuples():
        wanted = expected[row.entity_type, row.entity_id]
        for name in wanted.keys() - {"pagerank"}:
            assert getattr(row, name) == wanted[name], (name, row)
        assert row.pagerank == pytest.approx(wanted["pagerank"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(graphs(), DAYS, BOUGHT, st.integers(0, 10))
def test_the_order_of_rows_changes_nothing(
    data: GraphData, as_of: datetime, bought: pd.DataFrame, seed: int
) -> None:
    pd.testing.assert_frame_equal(
        metrics_as_of(data, as_of, outcomes=bought),
        metrics_as_of(shuffled(data, seed), as_of, outcomes=bought.iloc[::-1]),
        check_exact=True,
    )


@settings(max_examples=60, deadline=None)
@given(graphs(), DAYS, BOUGHT)
def test_deleting_all_that_happened_afterwards_changes_nothing(
    data: GraphData, as_of: datetime, bought: pd.DataFrame
) -> None:
    nodes = data.nodes[~(data.nodes["created_at"] > as_of)]
    edges = data.edges[data.edges["since"] <= as_of]
    edges = edges.assign(until=edges["until"].where(edges["until"] <= as_of))
    known = bought[bought["bound_at"] <= as_of]
    pd.testing.assert_frame_equal(
        metrics_as_of(data, as_of, outcomes=bought),
        metrics_as_of(GraphData(nodes, edges), as_of, outcomes=known),
        check_exact=True,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-3, 3),
    st.integers(1, 5) | st.none(),
    st.integers(-3, 9),
    st.sampled_from(["REFERRED", "ASSIGNED_TO", "MEMBER_OF"]),
)
def test_an_edge_counts_from_its_start_to_just_before_its_end(
    start: int, length: int | None, query: int, relation: str
) -> None:
    micro = timedelta(microseconds=1)
    since = at(0) + start * micro
    until = None if length is None else since + length * micro
    as_of = at(0) + query * micro
    nodes = [("lead", "a", at(-1)), (TARGETS[relation], "b", at(-1))]
    found = metrics_as_of(graph(nodes, [("a", "b", relation, since, until)]), as_of)
    holds = since <= as_of and (until is None or as_of < until)
    assert one(found, "a")["degree"] == int(holds)


def test_pagerank_of_leads_agents_and_their_households_sums_to_one() -> None:
    leads = [("lead", f"l{n}", at(0)) for n in range(20)]
    edges = [(f"l{n}", f"l{n // 2}", "REFERRED", at(0), None) for n in range(1, 20)]
    found = metrics_as_of(graph([*leads, ("agent", "x", at(0))], edges), at(1))
    assert found["pagerank"].sum() == pytest.approx(1)
    assert found["nodes"].eq(21).all()


def test_an_empty_graph_has_no_rows_but_all_columns() -> None:
    found = metrics_as_of(graph([]), at(0))
    assert tuple(found.columns) == COLUMNS
    assert found.empty
    assert str(found["as_of"].dtype) == "datetime64[us, UTC]"
    some = metrics_as_of(graph([("lead", "a", at(0))]), at(0))
    assert found.dtypes.to_dict() == some.dtypes.to_dict()


def test_a_node_without_any_edge_appears_alone_in_its_community() -> None:
    row = one(metrics_as_of(graph([("lead", "a", at(0))]), at(0)), "a")
    assert (row["degree"], row["community"], row["community_size"]) == (0, "lead:a", 1)
    assert row["community_share"] == row["pagerank"] == 1
    none = ["betweenness", "closeness", "clustering", "core", "referral_depth", "household_size"]
    assert not row[none].any()


def test_a_lead_appears_at_the_microsecond_of_its_creation() -> None:
    data = graph([("lead", "a", at(0))])
    assert metrics_as_of(data, at(0) - timedelta(microseconds=1)).empty
    assert len(metrics_as_of(data, at(0))) == 1


def test_an_agent_of_unknown_hiring_exists_from_the_first_assignment_on() -> None:
    data = graph(
        [("lead", "a", at(0)), ("agent", "x", None)], [("a", "x", "ASSIGNED_TO", at(2), at(3))]
    )
    assert "agent" not in set(metrics_as_of(data, at(1))["entity_type"])
    assert one(metrics_as_of(data, at(2)), "x", "agent")["degree"] == 1
    assert one(metrics_as_of(data, at(4)), "x", "agent")["degree"] == 0


def test_a_lead_and_an_agent_of_the_same_id_are_two_nodes() -> None:
    data = graph(
        [("lead", "7", at(0)), ("lead", "8", at(0)), ("agent", "7", at(0))],
        [("7", "7", "ASSIGNED_TO", at(0), None), ("8", "7", "ASSIGNED_TO", at(0), None)],
    )
    found = metrics_as_of(data, at(1))
    assert one(found, "7")["degree"] == 1
    assert one(found, "7", "agent")["degree"] == 2


def two_circles() -> GraphData:
    """Two groups of five where everyone knows everyone, and one acquaintance between them."""
    groups = [[f"{letter}{n}" for n in range(5)] for letter in "ab"]
    edges = [
        (one_, other, "REFERRED", at(0), None)
        for group in groups
        for one_ in group
        for other in group
        if one_ < other
    ]
    edges.append(("a0", "b0", "REFERRED", at(0), None))
    return graph([("lead", name, at(0)) for group in groups for name in group], edges)


def test_communities_are_the_circles_of_acquaintance_named_by_their_smallest_lead() -> None:
    found = metrics_as_of(two_circles(), at(1))
    assert dict(zip(found["entity_id"], found["community"], strict=True)) == {
        **{f"a{n}": "lead:a0" for n in range(5)},
        **{f"b{n}": "lead:b0" for n in range(5)},
    }
    assert found["community_size"].eq(5).all()


def test_the_share_of_a_community_is_of_all_leads_and_agents_alive() -> None:
    found = metrics_as_of(two_circles(), at(1))
    assert found["community_share"].tolist() == [0.5] * 10


def test_a_referral_chain_and_a_circle_are_followed_as_of_the_moment() -> None:
    leads = [("lead", name, at(0)) for name in "abc"]
    edges = [
        ("a", "b", "REFERRED", at(1), None),
        ("b", "c", "REFERRED", at(2), None),
        ("c", "a", "REFERRED", at(3), None),
    ]
    columns = ["referral_depth", "referral_descendants"]
    measured = [
        metrics_as_of(graph(leads, edges), at(day))[columns].to_numpy().tolist()
        for day in (0, 1, 2, 3)
    ]
    assert measured == [
        [[0, 0], [0, 0], [0, 0]],
        [[0, 1], [1, 0], [0, 0]],
        [[0, 2], [1, 1], [2, 0]],
        [[2, 2], [2, 2], [2, 2]],
    ]


def test_communities_depend_on_the_seed_alone() -> None:
    random = np.random.default_rng(3)
    nodes = [("lead", f"l{n:03d}", at(0)) for n in range(150)]
    pairs = {tuple(sorted(random.integers(0, 150, 2).tolist())) for _ in range(300)}
    data = graph(nodes, [(f"l{a:03d}", f"l{b:03d}", "REFERRED", at(0), None) for a, b in pairs])
    first = metrics_as_of(data, at(1), seed=1)["community"]
    assert metrics_as_of(shuffled(data, 5), at(1), seed=1)["community"].equals(first)
    assert any(not metrics_as_of(data, at(1), seed=s)["community"].equals(first) for s in range(9))


def test_a_campaign_is_no_tie() -> None:
    data = graph(
        [("lead", "a", at(0)), ("lead", "b", at(0)), ("campaign", "c", None)],
        [("a", "c", "CAME_FROM", at(0), None), ("b", "c", "CAME_FROM", at(0), None)],
    )
    found = metrics_as_of(data, at(1))
    assert found["degree"].tolist() == [0, 0]
    assert found["community"].tolist() == ["lead:a", "lead:b"]
    assert found["pagerank"].tolist() == pytest.approx([0.5, 0.5])


def test_a_campaign_corrected_later_does_not_show_in_the_past(tmp_path: Path) -> None:
    leads = [("a", at(0), "right", None), ("b", at(0), "other", None)]
    first = [("a", at(0), "wrong", None), ("b", at(0), "other", None)]
    before = extract(tmp_path / "before", leads=leads, lead_versions=first)
    after = extract(
        tmp_path / "after", leads=leads, lead_versions=[*first, ("a", at(9), "right", None)]
    )
    pd.testing.assert_frame_equal(
        metrics_as_of(graph_of(before), at(1)), metrics_as_of(graph_of(after), at(1))
    )


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(NaiveTimeError, match="as_of"):
        metrics_as_of(graph([]), datetime(2026, 1, 1))
