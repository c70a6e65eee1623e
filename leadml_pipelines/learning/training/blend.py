"""Several members instead of one, where together they are better on rows that none was fitted on.

The members' raw scores are summed with weights, so that the blend is explained exactly as they are.
The weights are chosen on one half of the entities and judged on the other; only a blend that wins
there, on average over both ways, is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.training.rows import Vector

STEPS = 10
"""Weights are multiples of one over this."""

Scorer = Callable[[Vector, Vector], float]
"""From labels and raw scores to a score; greater is better."""


def choose_weights(
    raw: Mapping[str, Vector], labels: Vector, groups: npt.NDArray[np.int64], scorer: Scorer
) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights of the members, summing to 1; all of it on the first unless a blend wins.

    Args:
        raw: Name of a member -> float64[n], its raw scores; the first is the one to beat.
        labels: float64[n].
        groups: int64[n], the entity of each row.
        scorer: What to win by.

    Returns:
        The weights of those members that have any, and what was seen: the score of the first
        member alone and of the blend, each on the halves that did not choose it.
    """
    names = list(raw)
    if len(names) == 1:
        return {names[0]: 1.0}, {}
    stacked = np.column_stack([raw[name] for name in names])
    grid = _simplex(len(names))
    half = groups % 2 == 0
    alone, blended = [], []
    for mine in (half, ~half):
        weights = _best(grid, stacked[mine], labels[mine], scorer)
        blended.append(scorer(labels[~mine], stacked[~mine] @ weights))
        alone.append(scorer(labels[~mine], stacked[~mine][:, 0]))
    single, together = float(np.mean(alone)), float(np.mean(blended))
    seen = {"members": names, "alone": single, "blend": together}
    if not together > single:
        return {names[0]: 1.0}, {**seen, "won": False}
    weights = _best(grid, stacked, labels, scorer)
    chosen = {name: float(w) for name, w in zip(names, weights, strict=True) if w > 0}
    return chosen, {**seen, "won": True, "weights": chosen}


def _best(grid: Sequence[Vector], stacked: Any, labels: Vector, scorer: Scorer) -> Vector:
    return max(grid, key=lambda weights: scorer(labels, stacked @ weights))


def _simplex(members: int) -> list[Vector]:
    """All weights in steps, those with more on the first members first."""

    def parts(left: int, places: int) -> list[list[int]]:
        if places == 1:
            return [[left]]
        return [
            [first, *rest]
            for first in range(left, -1, -1)
            for rest in parts(left - first, places - 1)
        ]

    return [np.array(part) / STEPS for part in parts(STEPS, members)]
