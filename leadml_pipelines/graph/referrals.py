"""Who brought whom: the chain of referrers above a lead, and the leads that came through it.

A lead is brought by its first referrer: the earliest referral that it received, of several at one
time that of the smallest lead id. Every lead has one referrer at most, then, so that each is
counted once, a later referral changes nothing, and all of it takes time proportional to the leads.

Referrals may form a circle, each having brought the next. A chain ends where it would meet a lead
for the second time.

* Depth: how many different leads there are above, in the chain of referrers. 0: nobody brought it.
* Descendants: how many different leads there are for which this one is in the chain above.

On a circle of `c` leads each has depth `c - 1`, and all the others among its descendants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def depth_and_descendants(
    size: int, src: np.ndarray, dst: np.ndarray, since: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Length of the chain above, and number of leads below, of each of `size` nodes.

    Chains are followed by doubling: after each step a node knows its ancestor twice as far up, and
    so the longest chain takes as many steps as its length has binary digits.

    Args:
        size: Number of nodes.
        src: The node that referred.
        dst: The node that was referred.
        since: When.
    """
    import numpy as np

    up = _first_referrers(size, src, dst, since)
    head, length = _circles(up)
    # A circle becomes one node, its head, with nobody above it.
    on_circle = length > 0
    parent = np.where(on_circle, size, head[up])
    weight = np.where(on_circle & (head != np.arange(size + 1)), 0, np.maximum(length, 1))
    weight[size] = 0
    depth = (parent < size).astype(np.int64)
    below = weight.astype(np.float64)
    top = np.where(parent < size, parent, np.arange(size + 1))
    jump = parent
    while (jump < size).any():
        depth += depth[jump]
        below += np.bincount(jump, weights=below, minlength=size + 1)
        below[size] = 0
        top = top[top]
        jump = jump[jump]
    above = np.where(on_circle, length - 1, depth + np.maximum(length[top] - 1, 0))
    return above[:size], (below[head] - 1).astype(np.int64)[:size]


def _first_referrers(size: int, src: np.ndarray, dst: np.ndarray, since: np.ndarray) -> np.ndarray:
    """The first referrer of each node, `size` for none; one entry more stands for "none"."""
    import numpy as np

    up = np.full(size + 1, size, dtype=np.int64)
    order = np.lexsort((src, since, dst))
    referred, first = np.unique(dst[order], return_index=True)
    up[referred] = src[order][first]
    return up


def _circles(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest node of the circle that each node lies on (itself off one), and its length."""
    import numpy as np

    size = len(up) - 1
    far, steps = up, 1
    while steps < size and (far < size).any():
        far = far[far]
        steps *= 2
    # So far up there is only "none", or a circle, and every node of it is met.
    on_circle = np.zeros(size + 1, dtype=bool)
    on_circle[far] = True
    on_circle[size] = False
    head = np.arange(size + 1)
    length = np.zeros(size + 1, dtype=np.int64)
    ring = np.flatnonzero(on_circle)
    jump, steps = up, 1
    while len(ring) and steps < 2 * len(ring):
        head[ring] = np.minimum(head[ring], head[jump[ring]])
        jump = jump[jump]
        steps *= 2
    members = np.bincount(head[ring], minlength=size + 1)
    length[ring] = members[head[ring]]
    return head, length
