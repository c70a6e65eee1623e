"""The rules that the models replace, measured on the same test rows.

Where a rule answers on another scale than the label, it gets the best linear rescaling that the
training rows allow: more than anybody gave it in use, so that the comparison is fair to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.spec import ModelSpec, SpecError

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]
Heuristic = Callable[["pd.DataFrame", "pd.DataFrame", int], Values]
"""From the training rows (with labels), the test rows and a seed to a value per test row."""


def _random(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Values:
    return np.random.default_rng(seed).random(len(test))


def _base_rate(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Values:
    return np.full(len(test), float(train["label"].mean()))


def _quality_threshold(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Values:
    return np.where(_quality(test) > 75, 0.8, 0.3).astype(np.float64)


def _quality_rescaled(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Values:
    old = np.minimum(100, 1.2 * _quality(train))
    labels = train["label"].to_numpy(np.float64)
    if np.ptp(old) == 0:
        return np.full(len(test), labels.mean())
    slope, level = np.polyfit(old, labels, 1)
    return level + slope * np.minimum(100, 1.2 * _quality(test))


def _quality(frame: pd.DataFrame) -> Values:
    """The quality score; the rules take a missing one for 0."""
    return np.asarray(frame["quality_score"].astype("Float64").fillna(0.0), np.float64)


HEURISTICS: Mapping[str, Heuristic] = {
    "random": _random,
    "base_rate": _base_rate,
    "quality_threshold": _quality_threshold,
    "quality_rescaled": _quality_rescaled,
}
"""`random`: a random number. `base_rate`: the mean label of the training rows.
`quality_threshold`: 0.8 when the quality score is over 75, else 0.3. `quality_rescaled`:
min(100, 1.2 x quality score)."""


RULE_THRESHOLD = 0.5
"""From which value a rule says yes: who used one called nobody under it. A threshold that fits a
model's costs would make of a rule that says 0.3 or 0.8 one that calls everybody."""


def heuristic_values(
    spec: ModelSpec, train: pd.DataFrame, test: pd.DataFrame, *, seed: int
) -> Values:
    """What the rule that `spec` replaces says of the test rows.

    Args:
        spec: Names the rule.
        train: Training rows with labels.
        test: Test rows.
        seed: For a rule that throws dice.

    Returns:
        float64[test rows].

    Raises:
        SpecError: the spec names a rule that does not exist.
    """
    if spec.heuristic not in HEURISTICS:
        raise SpecError(
            f"{spec.name}: {spec.heuristic!r} is no heuristic; take one of {', '.join(HEURISTICS)}"
        )
    return HEURISTICS[spec.heuristic](train, test, seed)
