"""How central a node is among the ties of a moment, and how close-knit its surroundings are.

All values are shares of what is possible among the `n` nodes that exist, so that they compare
between moments of a growing graph. Formulas:

* PageRank (Page et al. 1999), undirected, damping 0.85, by igraph's PRPACK. Sums to 1.
* Betweenness (Freeman 1977): of the shortest paths between each two other nodes, the part that
  leads through the node; summed, divided by the (n - 1)(n - 2) / 2 pairs. From 0 to 1.
* Harmonic closeness (Marchiori & Latora 2000; Rochat 2009): the mean of 1 / distance to every
  other node, 0 for one that can't be reached. From 0 to 1.
* Local clustering coefficient (Watts & Strogatz 1998): of each two nodes that it is joined to,
  how many are joined to each other; 0 with fewer than two.
* Core number (Seidman 1983): the greatest k for which the node is in a part of the graph where
  everyone is joined to at least k others of the part.

Betweenness and closeness need a search from every node. They are exact while the nodes with ties
times the ties are at most `EXACT_WORK`. Above, the searches start from `PIVOTS` nodes with ties
only (Brandes & Pich 2007; for closeness Eppstein & Wang 2004) and the sums are scaled up:
unbiased, the closeness good to a few hundredths, the betweenness of a node that few paths use
mostly 0. The pivots are the nodes whose mixed hashes with the seed are smallest: a uniform sample
that is the same on every machine and changes little from week to week, so that a metric moves with
the graph and not with the draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leadml_pipelines.graph.ties import Ties
from leadml_pipelines.graph.timeline import mix

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse

EXACT_WORK = 30_000_000
"""Nodes with ties times ties up to which every node starts a search: about a second at most."""

PIVOTS = 64
"""Nodes that start a search in larger graphs."""

DAMPING = 0.85
"""Chance that PageRank's walker goes on along a tie instead of jumping anywhere."""

_BLOCK = 8
"""Searches that run side by side: one row of the arrays is one cache line."""

_DENSE_SHARE = 0.05
"""Share of the ties from which on a step works on the whole matrix instead of on some rows."""


def pagerank(ties: Ties) -> np.ndarray:
    """PageRank of each node."""
    import numpy as np

    if not ties.count:
        return np.zeros(0)
    return np.asarray(ties.graph.pagerank(directed=False, damping=DAMPING))


def clustering(ties: Ties) -> np.ndarray:
    """Local clustering coefficient of each node."""
    import numpy as np

    return np.asarray(ties.graph.transitivity_local_undirected(mode="zero"), dtype=np.float64)


def core_numbers(ties: Ties) -> np.ndarray:
    """Core number of each node."""
    import numpy as np

    return np.asarray(ties.graph.coreness(), dtype=np.int64)


def betweenness_and_closeness(
    ties: Ties, hashes: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Betweenness and harmonic closeness of each node; exact, or sampled in a large graph.

    Args:
        ties: The graph.
        hashes: A number for each node that does not depend on the others.
        seed: Which sample.
    """
    import numpy as np

    tied = np.flatnonzero(ties.degrees)
    if len(tied) * len(ties.pairs) <= EXACT_WORK or len(tied) <= PIVOTS:
        return _exact(ties)
    salt = mix(np.array([seed % 2**63]))
    order = np.argsort(mix(hashes[tied] ^ salt), kind="stable")
    return sampled(ties, np.sort(tied[order[:PIVOTS]]))


def _exact(ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    count = ties.count
    if count < 2 or not len(ties.pairs):
        return np.zeros(count), np.zeros(count)
    # igraph divides by the others of the whole graph too, and its pairs are unordered.
    closeness = np.asarray(ties.graph.harmonic_centrality(), dtype=np.float64)
    paths = np.asarray(ties.graph.betweenness(directed=False), dtype=np.float64)
    return paths * (2 / max((count - 1) * (count - 2), 1)), closeness


def sampled(ties: Ties, pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Betweenness and harmonic closeness, from searches that start at some nodes only.

    Args:
        ties: The graph.
        pivots: The nodes to start from, each once, each with a tie. All of them: the exact values.
    """
    import numpy as np

    count, tied = ties.count, np.count_nonzero(ties.degrees)
    paths, nearness = np.zeros(count), np.zeros(count)
    for start in range(0, len(pivots), _BLOCK):
        more_paths, more_nearness = _search(ties.matrix, pivots[start : start + _BLOCK])
        paths += more_paths
        nearness += more_nearness
    # A pivot learns nothing about itself from its own search.
    seen = np.full(count, len(pivots))
    seen[pivots] -= 1
    scale = np.where(ties.degrees > 0, (tied - 1) / np.maximum(seen, 1), 0.0)
    return (
        paths * scale / max((count - 1) * (count - 2), 1),
        nearness * scale / max(count - 1, 1),
    )


def _search(matrix: sparse.csr_array, pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brandes' algorithm (2001) from several nodes side by side, a column each.

    Breadth first outwards, counting shortest paths; then back, from the farthest nodes, adding up
    which part of the paths to all nodes behind leads through each.

    Returns:
        For each node the sums over the pivots of that part, and of 1 / distance.
    """
    import numpy as np

    shape = (matrix.shape[0], len(pivots))
    nodes, columns = np.arange(shape[0]), np.arange(len(pivots))
    distance = np.full(shape, -1, dtype=np.int32)
    paths = np.zeros(shape)
    distance[pivots, columns] = 0
    paths[pivots, columns] = 1
    # A level: the nodes that some column reaches after so many steps.
    levels = [np.sort(pivots)]
    while len(levels[-1]):
        rows, depth = levels[-1], len(levels)
        here = np.where(distance[rows] == depth - 1, paths[rows], 0.0)
        reached, sums = _spread(matrix, rows, here)
        fresh = (distance[reached] < 0) & (sums > 0)
        distance[reached] = np.where(fresh, depth, distance[reached])
        paths[reached] += np.where(fresh, sums, 0.0)
        levels.append(nodes[reached][fresh.any(axis=1)])
    through = np.zeros(shape)
    for depth in range(len(levels) - 2, 1, -1):
        rows = levels[depth]
        here = distance[rows] == depth
        share = np.where(here, (1 + through[rows]) / np.where(here, paths[rows], 1.0), 0.0)
        reached, sums = _spread(matrix, rows, share)
        before = distance[reached] == depth - 1
        through[reached] += np.where(before, sums * paths[reached], 0.0)
    nearness = np.zeros(shape[0])
    for column in columns:
        steps = distance[:, column]
        nearness += np.where(steps > 0, 1 / np.maximum(steps, 1), 0.0)
    return through.sum(axis=1), nearness


def _spread(
    matrix: sparse.csr_array, rows: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray | slice, np.ndarray]:
    """Give the values of some nodes to all their neighbours.

    Returns:
        The nodes that may have got something, and the sums that they got.
    """
    import numpy as np
    from scipy import sparse

    starts, ends = matrix.indptr[rows], matrix.indptr[rows + 1]
    if (ends - starts).sum() > _DENSE_SHARE * matrix.nnz:
        whole = np.zeros((matrix.shape[0], values.shape[1]))
        whole[rows] = values
        return slice(None), matrix @ whole
    some = matrix[rows]
    reached, place = np.unique(some.indices, return_inverse=True)
    part = sparse.csr_array((some.data, place, some.indptr), shape=(len(rows), len(reached)))
    return reached, part.T @ values
