"""What to make of an experiment, in plain words, and how much must be known before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text
from leadml_pipelines.learning.experiments.report import Arm
from leadml_pipelines.learning.served_versions import versions_text
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.times import duration_text

if TYPE_CHECKING:
    import pandas as pd

NEEDED = 200
"""Entities of each model whose outcome must be known before anything is concluded. The intervals
tell how much these are worth; with fewer they are themselves not to be trusted."""
NEEDED_OF_EACH = 10
"""Entities among them of each outcome, for classification."""
SURE = 0.95
"""Chance from which the challenger is called better; worse from as great a chance of that."""


def needed_entities(spec: ModelSpec, known: list[pd.DataFrame]) -> int:
    """Entities with a known outcome that each side needs, by how rare the rarer outcome is."""
    rows = sum(len(its) for its in known)
    positive = sum(int((its["label"] > 0).sum()) for its in known)
    rarer = min(positive, rows - positive)
    if spec.objective != "classification" or not rarer:
        return NEEDED
    return max(NEEDED, math.ceil(NEEDED_OF_EACH * rows / rarer))


def _enough(spec: ModelSpec, known: pd.DataFrame) -> bool:
    happened = known.groupby("entity_id")["label"].max() > 0
    enough = len(happened) >= NEEDED
    if spec.objective == "classification":
        fewest = min(int(happened.sum()), int((~happened).sum()))
        enough = enough and fewest >= NEEDED_OF_EACH
    return enough


def verdict_of(
    spec: ModelSpec,
    metric: str,
    champion: Arm | None,
    challenger: Arm | None,
    known: Mapping[str, pd.DataFrame],
    chance: float | None,
    needed: int,
) -> str:
    """The verdict as a sentence, with what to do next.

    Args:
        spec: Declares the model.
        metric: By which the two are compared.
        champion: One side; None while it has no prediction.
        challenger: The other side, likewise.
        known: Of each role the rows whose label is known.
        chance: Probability that the challenger is the better one; None while a side has no figure.
        needed: Entities with a known outcome that each side needs, about.
    """
    if champion is None or challenger is None:
        lacking = "champion" if champion is None else "challenger"
        return f"not enough outcomes yet: the {lacking} has made no prediction in this experiment"
    if chance is None or not all(_enough(spec, its) for its in known.values()):
        fewer = min(champion, challenger, key=lambda arm: arm.known_entities)
        return (
            f"not enough outcomes yet: {fewer.known_entities} of about {needed} needed, of the "
            f"{fewer.role}; an outcome is known {duration_text(spec.horizon)} after the prediction"
        )
    figures = [metric_text(metric, arm.figures[metric]["value"]) for arm in (challenger, champion)]
    told = f"{METRIC_NAMES[metric]} {figures[0]} against {figures[1]}"
    if len(champion.versions) > 1:
        told += f" of the champion ({versions_text(champion.versions)})"
    if chance >= SURE:
        return (
            f"the challenger is better with a chance of {_percent(chance)}: {told}; "
            f"leadml models promote {challenger.model_id} makes it the champion"
        )
    if chance <= 1 - SURE:
        return (
            f"the challenger is worse with a chance of {_percent(1 - chance)}: {told}; "
            f"leadml models end-challenge {spec.name} ends it"
        )
    return (
        "no difference is shown yet: the challenger is better with a chance of "
        f"{_percent(chance)}, {told}; wait for more outcomes, or take the two for equal"
    )


def _percent(chance: float) -> str:
    return "over 99 %" if chance > 0.99 else f"{100 * chance:.0f} %"
