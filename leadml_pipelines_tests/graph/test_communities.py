from __future__ import annotations

import numpy as np
import pytest

from leadml_pipelines.graph import communities as module
from leadml_pipelines.graph.communities import communities
from leadml_pipelines.graph.ties import Ties


def ring_of_circles(circles: int = 6, size: int = 6) -> Ties:
    """Circles where everyone knows everyone, each with one tie to the next."""
    pairs = [
        (circle * size + a, circle * size + b)
        for circle in range(circles)
        for a in range(size)
        for b in range(a)
    ]
    pairs += [(c * size, (c + 1) % circles * size + 1) for c in range(circles)]
    src, dst = np.array(pairs).T
    return Ties.among(np.ones(circles * size, dtype=bool), src, dst)


@pytest.mark.parametrize("small", [module.SMALL_TIES, 0])
def test_circles_are_found_in_few_rounds_as_in_many(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_TIES", small)
    found = communities(ring_of_circles(), 7).reshape(6, 6)
    assert (found == found[:, :1]).all()
    assert len(set(found[:, 0])) == 6


def test_without_ties_everyone_is_alone() -> None:
    nobody = np.empty(0, dtype=int)
    assert communities(Ties.among(np.ones(3, dtype=bool), nobody, nobody), 7).tolist() == [0, 1, 2]


def test_a_search_leaves_no_seed_behind_for_others() -> None:
    """igraph has one generator; a seed that stayed would tie other users of it together."""
    import igraph

    communities(ring_of_circles(), 7)
    first = igraph.Graph.Erdos_Renyi(n=50, m=100).get_edgelist()
    communities(ring_of_circles(), 7)
    assert igraph.Graph.Erdos_Renyi(n=50, m=100).get_edgelist() != first
