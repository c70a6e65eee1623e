"""How good two models are, with intervals, on the entities that a lot gave each of them.

Rows count by the inverse of the chance with which their model got them, so that both models speak
for the same entities at the same times also where the share was changed on the way (Horvitz and
Thompson, JASA 47, 1952; divided by the sum of the weights as by Hajek, 1971).

Intervals and the chance that the challenger is better come from the same draws of one method, the
Bayesian bootstrap (Rubin, The Annals of Statistics 9(1), 1981, pages 130-134): the entities'
weights are drawn from the uniform Dirichlet distribution, which is exponential draws divided by
their sum, and each draw of the weights gives a draw of the figure from its posterior. It holds for
any figure of the rows, also for ranks, where a beta-binomial knows only rates; and it draws an
entity with all of its predictions, which are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import HIGHER_IS_BETTER, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
"""Draws of the posterior: they tell a chance to a hundredth or two."""
LEVEL = 0.95
"""How probably an interval holds the true figure."""
OUTCOME = "outcome"
"""Mean of the labels: what happened to those whom the model answered for."""
COMPARED = frozenset(HIGHER_IS_BETTER) - {"ece"}
"""The metrics of an experiment. Noise always adds to a calibration error, to that of the smaller
side more: between equal models the larger side would be ahead."""

_CELLS = 250_000
"""Weights computed at once."""

Values = npt.NDArray[np.float64]
Figure = dict[str, float]
"""`value`, `low`, `high`."""


@dataclass(frozen=True)
class Posterior:
    """How good each side is, and how sure that is.

    Attributes:
        point: Of each role the value of each metric, and of `outcome`; undefined ones are absent.
        draws: Likewise the draws of each value, float64[DRAWS].
    """

    point: Mapping[str, Mapping[str, float]]
    draws: Mapping[str, Mapping[str, Values]]

    def figures(self, role: str) -> dict[str, Figure]:
        """The figures of a role; none if nothing is known of it."""
        point = self.point.get(role, {})
        return {name: _figure(value, self.draws[role][name]) for name, value in point.items()}

    def differences(self) -> dict[str, Figure]:
        """Challenger minus champion, of each metric that both have."""
        old, new = self.point.get("champion", {}), self.point.get("challenger", {})
        return {
            name: _figure(new[name] - old[name], self._gap(name)) for name in new if name in old
        }

    def chance_better(self, metric: str) -> float | None:
        """Probability that the challenger's metric is the better one; None while a side lacks it.

        In a draw in which both are equal, each is the better one by half.
        """
        if any(metric not in self.point.get(role, {}) for role in ("champion", "challenger")):
            return None
        gap = self._gap(metric)
        gap = gap[np.isfinite(gap)]
        ahead = gap if HIGHER_IS_BETTER[metric] else -gap
        return float(np.mean(ahead > 0) + np.mean(ahead == 0) / 2)

    def _gap(self, metric: str) -> Values:
        return self.draws["challenger"][metric] - self.draws["champion"][metric]


def posterior_of(
    spec: ModelSpec,
    known: Mapping[str, pd.DataFrame],
    seed: int,
) -> Posterior:
    """The posterior of both sides.

    Args:
        spec: Declares the model.
        known: Of each role the rows whose label is known: the columns of `leadml.predictions`, and
            `label`.
        seed: Of the draws.
    """
    sides = {role: its for role, its in known.items() if len(its)}
    names = sorted({name for its in sides.values() for name in its["entity_id"]})
    codes = {name: at for at, name in enumerate(names)}
    scored, labels, weights, places = {}, {}, {}, {}
    for role, its in sides.items():
        labels[role] = its["label"].to_numpy(np.float64)
        values = its["value"].to_numpy(np.float64)
        given = its["prediction"].to_numpy(np.float64)
        scored[role] = Scored.answered(spec.objective, labels[role], values, given)
        share = its["traffic_share"].to_numpy(np.float64)
        weights[role] = 1 / (share if role == "challenger" else 1 - share)
        places[role] = its["entity_id"].map(codes).to_numpy(np.intp)

    def measure(role: str, factors: Values) -> dict[str, Values]:
        each = factors * weights[role]
        found = scored[role].measure(each, COMPARED)
        return found | {OUTCOME: each @ labels[role] / each.sum(-1)}

    point = {
        role: {
            name: float(value[0])
            for name, value in measure(role, np.ones((1, len(its)))).items()
            if np.isfinite(value[0])
        }
        for role, its in sides.items()
    }
    rng = np.random.default_rng(seed)
    rows = max((len(its) for its in sides.values()), default=0)
    step = max(1, _CELLS // max(rows, len(names), 1))
    parts: dict[str, list[dict[str, Values]]] = {role: [] for role in sides}
    for start in range(0, DRAWS if sides else 0, step):
        # An entity that was moved from one model to the other weighs the same with both.
        drawn = rng.standard_exponential((min(step, DRAWS - start), len(names)))
        for role in sides:
            parts[role].append(measure(role, drawn[:, places[role]]))
    draws = {
        role: {name: np.concatenate([part[name] for part in found]) for name in point[role]}
        for role, found in parts.items()
    }
    return Posterior(point, draws)


def _figure(value: float, draws: Values) -> Figure:
    tail = (1 - LEVEL) / 2
    low, high = (float(end) for end in np.nanquantile(draws, [tail, 1 - tail]))
    return {"value": value, "low": low, "high": high}
