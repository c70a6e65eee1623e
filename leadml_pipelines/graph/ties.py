"""The ties between people as of a moment: an undirected simple graph, in the forms libraries take.

CAME_FROM is no tie: a campaign is an advertisement, and as a hub it would make acquaintances of
thousands of strangers. Leads, agents and households are the nodes; two leads of one household are
two steps apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import igraph
    import numpy as np
    from scipy import sparse


@dataclass(frozen=True)
class Ties:
    """Nodes numbered 0 to `count - 1`, and every pair of them that is joined, once.

    Attributes:
        count: Number of nodes.
        pairs: The joined nodes, smaller number first, sorted: the same graph is the same array,
            whatever order its rows came in.
    """

    count: int
    pairs: np.ndarray

    @classmethod
    def among(cls, present: np.ndarray, src: np.ndarray, dst: np.ndarray) -> Ties:
        """The ties that edges make.

        Args:
            present: Which nodes exist, a boolean array.
            src: Node at one end of each edge; both ends exist and differ.
            dst: Node at the other.
        """
        import numpy as np

        count = int(np.count_nonzero(present))
        number = np.cumsum(present) - 1
        low, high = np.minimum(number[src], number[dst]), np.maximum(number[src], number[dst])
        joined = np.unique(low * count + high)
        return cls(count, np.column_stack([joined // max(count, 1), joined % max(count, 1)]))

    @cached_property
    def graph(self) -> igraph.Graph:
        """The ties as igraph knows them."""
        import igraph

        return igraph.Graph(n=self.count, edges=self.pairs)

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """The ties as a symmetric matrix of ones."""
        import numpy as np
        from scipy import sparse

        rows = np.concatenate([self.pairs[:, 0], self.pairs[:, 1]])
        columns = np.concatenate([self.pairs[:, 1], self.pairs[:, 0]])
        ones = np.ones(len(rows))
        return sparse.coo_array((ones, (rows, columns)), shape=(self.count, self.count)).tocsr()

    @cached_property
    def degrees(self) -> np.ndarray:
        """How many others each node is joined to."""
        import numpy as np

        return np.bincount(self.pairs.ravel(), minlength=self.count)
