"""From which chance the answer is yes: where wrong answers cost least, not 0.5 by habit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import Cost

Vector = npt.NDArray[np.float64]


def best_threshold(chances: Vector, labels: Vector, cost: Cost) -> tuple[float, dict[str, Any]]:
    """The threshold that costs least on rows that the model was not fitted on.

    Of thresholds that cost the same, the one nearest to the one that would be best if the chances
    were perfect, `false_alarm / (false_alarm + miss)`.

    Args:
        chances: float64[n], calibrated.
        labels: float64[n], 0 or 1.
        cost: What wrong answers cost.

    Returns:
        The threshold, just over 1 when nobody should be called; and what was seen: its cost per
        row, and that of calling everybody or nobody.
    """
    ideal = ideal_threshold(cost)
    edges, places = np.unique(chances, return_inverse=True)
    positive = np.bincount(places, weights=labels, minlength=len(edges))
    rows = np.bincount(places, minlength=len(edges)).astype(np.float64)
    # At the threshold edges[k] all rows from k on are called; one more place calls nobody.
    missed = np.concatenate([[0.0], np.cumsum(positive)])
    alarms = np.concatenate([np.cumsum((rows - positive)[::-1])[::-1], [0.0]])
    costs = (cost.miss * missed + cost.false_alarm * alarms) / len(chances)
    cuts = np.concatenate([edges, [np.nextafter(1.0, 2.0)]])
    # Between two neighbouring chances every cut is the same; the middle is the least fragile.
    middle = (edges[1:] + edges[:-1]) / 2
    cuts[1:-1] = np.where(middle > edges[:-1], middle, edges[1:])
    cheapest = np.flatnonzero(costs <= costs.min() + 1e-12)
    at = cheapest[np.argmin(np.abs(cuts[cheapest] - ideal))]
    record = {
        "cost": {"miss": cost.miss, "false_alarm": cost.false_alarm},
        "cost_per_row": float(costs[at]),
        "cost_of_yes_to_all": float(costs[0]),
        "cost_of_no_to_all": float(costs[-1]),
        "ideal_if_calibrated": ideal,
    }
    return float(cuts[at]), record


def ideal_threshold(cost: Cost) -> float:
    """The best threshold for perfect chances: where both answers cost the same on average."""
    return cost.false_alarm / (cost.false_alarm + cost.miss)
