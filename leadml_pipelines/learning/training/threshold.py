"""From which chance the answer is yes: where wrong answers cost least, not 0.5 by habit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import Cost, Group, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]

LEAST_OF_A_CLASS = 30
"""Rows of each class that a threshold is chosen on; with fewer it would be noise."""


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


def group_thresholds(
    groups: Sequence[Group],
    codes: npt.NDArray[np.intp],
    chances: Vector,
    labels: Vector,
    cost: Cost,
) -> tuple[list[float], dict[str, Any]]:
    """The best threshold of each group, on its own rows, by its own cost.

    A group with few rows of a class has the one that is best for perfect chances.

    Args:
        groups: The groups of a spec.
        codes: intp[n], the place of each row's group; -1 where it is in none.
        chances: As for `best_threshold`.
        labels: As for `best_threshold`.
        cost: Of a group that states none.

    Returns:
        The thresholds in the order of the groups; by word what was seen, as `best_threshold` tells
        it, with `value` and `rows`.
    """
    values, records = [], {}
    for at, group in enumerate(groups):
        its = codes == at
        positive, own = int((labels[its] > 0).sum()), group.cost or cost
        record: dict[str, Any] = {"ideal_if_calibrated": ideal_threshold(own)}
        value = ideal_threshold(own)
        if min(positive, int(its.sum()) - positive) >= LEAST_OF_A_CLASS:
            value, record = best_threshold(chances[its], labels[its], own)
        values.append(value)
        records[group.word] = {"value": value, "rows": int(its.sum()), **record}
    return values, records


def ideal_threshold(cost: Cost) -> float:
    """The best threshold for perfect chances: where both answers cost the same on average."""
    return cost.false_alarm / (cost.false_alarm + cost.miss)


def row_costs(spec: ModelSpec, frame: pd.DataFrame) -> tuple[Vector, Vector]:
    """What a miss and a false alarm cost in each row, by its group: float64[n] twice.

    Args:
        spec: Declares costs and groups.
        frame: The rows, with the column `group_by` names.
    """
    miss = np.full(len(frame), spec.cost.miss)
    alarm = np.full(len(frame), spec.cost.false_alarm)
    for group in spec.groups:
        if group.cost is not None:
            its = (frame[spec.group_by].astype(object) == group.word).to_numpy(bool)
            miss[its], alarm[its] = group.cost.miss, group.cost.false_alarm
    return miss, alarm
