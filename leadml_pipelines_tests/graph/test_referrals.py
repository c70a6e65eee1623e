from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph.referrals import depth_and_descendants

SIZE = 8
node = st.integers(0, SIZE - 1)
referrals = st.lists(st.tuples(node, node, st.integers(0, 4)), max_size=24).map(
    lambda rows: [row for row in rows if row[0] != row[1]]
)


def measured(rows: list[tuple[int, int, int]], size: int = SIZE) -> tuple[list[int], list[int]]:
    src, dst, since = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    depth, descendants = depth_and_descendants(size, src, dst, since)
    return depth.tolist(), descendants.tolist()


def walked(rows: list[tuple[int, int, int]]) -> tuple[list[int], list[int]]:
    """Each lead's chain, referrer by referrer."""
    first: dict[int, int] = {}
    for src, dst, _ in sorted(rows, key=lambda row: (row[2], row[0])):
        first.setdefault(dst, src)
    above: list[set[int]] = []
    for lead in range(SIZE):
        chain: list[int] = []
        while (up := first.get(chain[-1] if chain else lead)) not in (None, lead, *chain):
            chain.append(up)
        above.append(set(chain))
    return [len(chain) for chain in above], [
        sum(lead in chain for chain in above) for lead in range(SIZE)
    ]


@settings(max_examples=300, deadline=None)
@given(referrals)
def test_depth_and_descendants_are_those_of_a_walk_up_each_chain(
    rows: list[tuple[int, int, int]],
) -> None:
    assert measured(rows) == walked(rows)


@settings(max_examples=60, deadline=None)
@given(referrals, st.randoms(use_true_random=False))
def test_the_order_of_referrals_changes_nothing(
    rows: list[tuple[int, int, int]], random: object
) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert measured(mixed) == measured(rows)


def test_a_chain_of_three_has_depths_up_to_two() -> None:
    assert measured([(0, 1, 0), (1, 2, 0)], 3) == ([0, 1, 2], [2, 1, 0])


def test_a_second_referral_later_changes_nothing() -> None:
    chain = [(0, 1, 0), (1, 2, 1)]
    assert measured([*chain, (3, 2, 2)], 4) == measured(chain, 4)


def test_who_referred_each_other_are_both_above_and_below() -> None:
    assert measured([(0, 1, 0), (1, 0, 0)], 2) == ([1, 1], [1, 1])


def test_a_lead_below_a_circle_has_the_whole_circle_above() -> None:
    circle = [(0, 1, 0), (1, 2, 0), (2, 0, 5)]
    assert measured([*circle, (2, 3, 0), (3, 4, 0)], 5) == ([2, 2, 2, 3, 4], [4, 4, 4, 1, 0])


def test_a_chain_and_a_circle_of_many_thousands_end() -> None:
    size = 20_000
    depth, descendants = measured([(n, n + 1, 0) for n in range(size - 1)], size)
    assert (depth[-1], descendants[0]) == (size - 1, size - 1)
    depth, descendants = measured([(n, (n + 1) % size, 0) for n in range(size)], size)
    assert {*depth} == {*descendants} == {size - 1}


def test_no_nodes_and_no_referrals_are_no_error() -> None:
    assert measured([], 0) == ([], [])
    assert measured([], 2) == ([0, 0], [0, 0])
