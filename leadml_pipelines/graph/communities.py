"""Circles of acquaintance among the ties of a moment.

A community is found by the Leiden algorithm (Traag, Waltman & van Eck 2019) on modularity
(Newman & Girvan 2004), resolution 1, unweighted ties, from a seed. A node without ties is alone in
its own.

Leiden goes in rounds, each starting from what the last one found. Up to `SMALL_TIES` ties it goes
`ROUNDS` of them; above, `LARGE_ROUNDS`: on the graph of `benchmarks/graph_metrics.py`, 1 M nodes
and 5 M ties, one round took 31 s and found modularity 0.306, two took 58 s (0.333), three 82 s
(0.339), ten 241 s (0.355).
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from leadml_pipelines.graph.ties import Ties

if TYPE_CHECKING:
    import numpy as np

ROUNDS = 10
SMALL_TIES = 1_000_000
LARGE_ROUNDS = 2

_RANDOM = threading.Lock()
"""igraph has one random number generator for the process."""


def communities(ties: Ties, seed: int) -> np.ndarray:
    """The community of each node, as a number from 0 on."""
    import igraph
    import numpy as np

    if not len(ties.pairs):
        return np.arange(ties.count)
    rounds = ROUNDS if len(ties.pairs) <= SMALL_TIES else LARGE_ROUNDS
    with _RANDOM:
        igraph.set_random_number_generator(random.Random(seed))  # noqa: S311
        try:
            found = ties.graph.community_leiden(
                objective_function="modularity", n_iterations=rounds
            )
        finally:
            igraph.set_random_number_generator(None)
    return np.asarray(found.membership, dtype=np.int64)
