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

BEYOND_NOISE = 2.0
"""Standard errors by which a group's cheapest threshold must be cheaper than the ideal one."""


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
    leads: npt.NDArray[np.int64],
    cost: Cost,
) -> tuple[list[float], dict[str, Any]]:
    """The threshold of each group, by its own cost, on its own rows.

    It is the one that would be best if the chances were perfect, unless the cheapest on these rows
    is cheaper beyond noise. A group may have few leads of a class, and the cheapest of all
    thresholds is then the one that suits those few best.

    Args:
        groups: The groups of a spec.
        codes: intp[n], the place of each row's group; -1 where it is in none.
        chances: As for `best_threshold`.
        labels: As for `best_threshold`.
        leads: int64[n], whose each row is; the rows of a lead are alike.
        cost: Of a group that states none.

    Returns:
        The thresholds in the order of the groups; by word what was seen, as `best_threshold` tells
        it, with `value` and `rows`.
    """
    values, records = [], {}
    for at, group in enumerate(groups):
        its, own = codes == at, group.cost or cost
        value = ideal_threshold(own)
        record: dict[str, Any] = {"ideal_if_calibrated": value}
        if its.any():
            cheapest, record = best_threshold(chances[its], labels[its], own)
            record["cheapest"] = cheapest
            spent = [_costs(t, chances[its], labels[its], own) for t in (value, cheapest)]
            record["cost_per_row"] = float(spent[0].mean())
            if _is_saving(spent[0] - spent[1], leads[its]):
                value, record["cost_per_row"] = cheapest, float(spent[1].mean())
        values.append(value)
        records[group.word] = {"value": value, "rows": int(its.sum()), **record}
    return values, records


def _costs(threshold: float, chances: Vector, labels: Vector, cost: Cost) -> Vector:
    """float64[n]: what the answer to each row costs."""
    yes, happened = chances >= threshold, labels > 0
    return cost.miss * (happened & ~yes) + cost.false_alarm * (yes & ~happened)


def _is_saving(saved: Vector, leads: npt.NDArray[np.int64]) -> bool:
    """Whether what is saved, row by row, is more than chance among the leads."""
    _, places = np.unique(leads, return_inverse=True)
    each = np.bincount(places, weights=saved)
    return bool(each.sum() > BEYOND_NOISE * each.std() * np.sqrt(len(each)))


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
