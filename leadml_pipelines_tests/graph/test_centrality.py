from __future__ import annotations

from collections import deque
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph import centrality
from leadml_pipelines.graph.centrality import (
    betweenness_and_closeness,
    clustering,
    core_numbers,
    sampled,
)
from leadml_pipelines.graph.ties import Ties
from leadml_pipelines.graph.timeline import mix

NODES = 9
HASHES = mix(np.arange(5_000))
pairs = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=20)


def ties_of(edges: list[tuple[int, int]], nodes: int = NODES) -> Ties:
    """Ties among the first `nodes` numbers; loops are left out."""
    src, dst = np.array([e for e in edges if e[0] != e[1]], dtype=int).reshape(-1, 2).T
    return Ties.among(np.ones(nodes, dtype=bool), src, dst)


def neighbours(ties: Ties) -> list[set[int]]:
    near: list[set[int]] = [set() for _ in range(ties.count)]
    for a, b in ties.pairs.tolist():
        near[a].add(b)
        near[b].add(a)
    return near


def distances(near: list[set[int]], start: int) -> dict[int, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in near[node] - found.keys():
            found[other] = found[node] + 1
            queue.append(other)
    return found


def shortest_paths(near: list[set[int]], start: int, end: int) -> list[tuple[int, ...]]:
    """Every shortest path between two nodes, written out."""
    away = distances(near, start)
    if end not in away:
        return []
    paths: list[tuple[int, ...]] = [(end,)]
    for step in range(away[end] - 1, -1, -1):
        paths = [
            (node, *path) for path in paths for node in near[path[0]] if away.get(node) == step
        ]
    return paths


def brute_betweenness(near: list[set[int]]) -> list[float]:
    count = len(near)
    through = [0.0] * count
    for start, end in combinations(range(count), 2):
        paths = shortest_paths(near, start, end)
        for path in paths:
            for node in path[1:-1]:
                through[node] += 1 / len(paths)
    return [part / ((count - 1) * (count - 2) / 2) for part in through]


def brute_closeness(near: list[set[int]]) -> list[float]:
    return [
        sum(1 / d for d in distances(near, node).values() if d) / (len(near) - 1)
        for node in range(len(near))
    ]


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_betweenness_and_closeness_are_those_of_all_shortest_paths_written_out(
    edges: list[tuple[int, int]],
) -> None:
    ties = ties_of(edges)
    near = neighbours(ties)
    between, close = betweenness_and_closeness(ties, HASHES[:NODES], 7)
    assert between.tolist() == pytest.approx(brute_betweenness(near))
    assert close.tolist() == pytest.approx(brute_closeness(near))


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_searches_from_every_node_with_a_tie_give_the_exact_values(
    edges: list[tuple[int, int]],
) -> None:
    ties = ties_of(edges)
    near = neighbours(ties)
    between, close = sampled(ties, np.flatnonzero(ties.degrees))
    assert between.tolist() == pytest.approx(brute_betweenness(near))
    assert close.tolist() == pytest.approx(brute_closeness(near))


@pytest.mark.parametrize("dense_share", [0.0, 2.0])
def test_a_step_on_some_rows_equals_a_step_on_the_whole_matrix(
    dense_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    ties = ties_of([tuple(p) for p in random.integers(0, 60, (90, 2)).tolist()], 60)
    expected = betweenness_and_closeness(ties, HASHES[:60], 7)
    monkeypatch.setattr(centrality, "_DENSE_SHARE", dense_share)
    found = sampled(ties, np.flatnonzero(ties.degrees))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-12)


def test_a_sample_is_right_on_average_over_its_choices() -> None:
    """Every choice of two pivots of seven: unbiased means that the mean is exact."""
    ties = ties_of([(0, 1), (1, 2), (2, 3), (3, 4), (4, 1), (5, 2), (6, 5)], NODES)
    tied = np.flatnonzero(ties.degrees)
    exact = betweenness_and_closeness(ties, HASHES[:NODES], 7)
    choices = [sampled(ties, np.array(choice)) for choice in combinations(tied.tolist(), 2)]
    np.testing.assert_allclose(np.mean([c[0] for c in choices], axis=0), exact[0], atol=1e-12)
    np.testing.assert_allclose(np.mean([c[1] for c in choices], axis=0), exact[1], atol=1e-12)


def large() -> Ties:
    random = np.random.default_rng(5)
    to = random.integers(1, 3_000, 12_000)
    return ties_of(list(zip((to * random.random(12_000) ** 2).astype(int), to, strict=True)), 3_100)


def test_in_a_large_graph_a_sample_stays_near_and_in_range() -> None:
    ties = large()
    assert np.count_nonzero(ties.degrees) * len(ties.pairs) > centrality.EXACT_WORK
    between, close = betweenness_and_closeness(ties, HASHES[:3_100], 7)
    tied = np.flatnonzero(ties.degrees)
    exact_close = np.asarray(ties.graph.harmonic_centrality())
    assert np.abs(close[tied] / exact_close[tied] - 1).mean() < 0.05
    exact_between = np.asarray(ties.graph.betweenness(directed=False)) * 2 / (3_099 * 3_098)
    assert np.corrcoef(between, exact_between)[0, 1] > 0.95
    for values in (between, close):
        assert ((values >= 0) & (values <= 1)).all()
        assert not values[ties.degrees == 0].any()


def test_the_sample_depends_on_the_seed_and_on_nothing_else() -> None:
    ties = large()
    hashes = HASHES[:3_100]
    first = betweenness_and_closeness(ties, hashes, 7)
    np.testing.assert_array_equal(betweenness_and_closeness(ties, hashes, 7)[1], first[1])
    assert not np.array_equal(betweenness_and_closeness(ties, hashes, 8)[1], first[1])


def test_most_pivots_stay_when_the_graph_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[set[int]] = []
    monkeypatch.setattr(
        centrality, "sampled", lambda _, pivots: chosen.append(set(pivots.tolist()))
    )
    ties = large()
    more = ties_of([*map(tuple, ties.pairs.tolist()), (3_050, 3_060), (3_070, 3_080)], 3_100)
    for graph in (ties, more):
        betweenness_and_closeness(graph, HASHES[:3_100], 7)
    assert len(chosen[0]) == centrality.PIVOTS
    assert len(chosen[0] & chosen[1]) >= centrality.PIVOTS - 4


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_clustering_is_the_share_of_neighbours_that_know_each_other(
    edges: list[tuple[int, int]],
) -> None:
    ties = ties_of(edges)
    near = neighbours(ties)
    expected = [
        np.mean([b in near[a] for a, b in combinations(sorted(around), 2)])
        if len(around) > 1
        else 0.0
        for around in near
    ]
    assert clustering(ties).tolist() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_core_numbers_are_those_of_peeling_node_by_node(edges: list[tuple[int, int]]) -> None:
    ties = ties_of(edges)
    expected = [0] * NODES
    for k in range(1, NODES):
        near = neighbours(ties)
        left = set(range(NODES))
        while thin := {node for node in left if len(near[node] & left) < k}:
            left -= thin
        for node in left:
            expected[node] = k
    assert core_numbers(ties).tolist() == expected


@pytest.mark.parametrize("nodes", [0, 1, 2])
def test_tiny_graphs_have_values_and_no_division_by_zero(nodes: int) -> None:
    ties = ties_of([(0, 1)] if nodes == 2 else [], nodes)
    between, close = betweenness_and_closeness(ties, HASHES[:nodes], 7)
    assert between.tolist() == [0.0] * nodes
    assert close.tolist() == [float(nodes == 2)] * nodes
    assert clustering(ties).tolist() == [0.0] * nodes
    assert core_numbers(ties).tolist() == [int(nodes == 2)] * nodes


def test_a_long_chain_of_ties_is_searched_to_its_end() -> None:
    ties = ties_of([(n, n + 1) for n in range(299)], 300)
    between, close = sampled(ties, np.arange(300))
    position = np.arange(300)
    assert between.tolist() == pytest.approx(
        (position * (299 - position) / (299 * 298 / 2)).tolist()
    )
    assert close[0] == pytest.approx(sum(1 / d for d in range(1, 300)) / 299)
