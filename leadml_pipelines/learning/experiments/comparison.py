"""The challenger of an experiment beside the champion.

A new champion may come about every night, and no champion of a day has an outcome yet. So the
champion is a role: the challenger is held against whoever was champion while it ran. Versions that
were trained for another question than today's do not count, nor does anybody at such a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.experiments.posterior import Figure, posterior_of
from leadml_pipelines.learning.experiments.report import Arm, Experiment
from leadml_pipelines.learning.experiments.verdict import needed_entities, verdict_of
from leadml_pipelines.learning.questions import refused_text
from leadml_pipelines.learning.served_versions import served_versions
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

INSTEAD_OF_ECE = "brier"
"""By which models that declare `ece` are compared: a mean over rows, calibration included."""


def compare(
    spec: ModelSpec,
    rows: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    data_end: datetime,
    not_comparable: Mapping[str, str],
    *,
    seed: int = 7,
) -> Experiment:
    """Compare the challenger with whoever was champion while it ran.

    Args:
        spec: Declares the model.
        rows: The columns of `leadml.predictions`, of one experiment, and `label`.
        counts: Predictions and entities of each role.
        data_end: Up to when outcomes are known.
        not_comparable: Of model ids, why they are not to be judged by these labels.
        seed: Of the draws.
    """
    metric = INSTEAD_OF_ECE if spec.metric == "ece" else spec.metric
    counted = rows[_comparable(rows, not_comparable)]
    sides, known = (
        {role: its for role in ("champion", "challenger") if len(its := of[of["role"] == role])}
        for of in (rows, counted[counted["label"].notna()])
    )
    known = {role: known.get(role, its[:0]) for role, its in sides.items()}
    posterior = posterior_of(spec, known, seed)
    arms = {
        role: _arm(role, sides[role], its, counts, posterior.figures(role))
        for role, its in known.items()
    }
    chance = posterior.chance_better(metric)
    champion, challenger = arms.get("champion"), arms.get("challenger")
    needed = needed_entities(spec, list(known.values()))
    met = set(rows["model_id"])
    refused = {model_id: why for model_id, why in not_comparable.items() if model_id in met}
    verdict = verdict_of(spec, metric, champion, challenger, known, chance, needed)
    return Experiment(
        spec.name,
        metric,
        champion,
        challenger,
        rows["predicted_at"].min().to_pydatetime() if len(rows) else None,
        rows["predicted_at"].max().to_pydatetime() if len(rows) else None,
        require_utc(data_end, "data_end"),
        posterior.differences(),
        chance,
        needed,
        refused,
        len(rows) - len(counted),
        "; ".join([verdict, *_refusal(refused, len(rows) - len(counted))]),
    )


def _comparable(rows: pd.DataFrame, not_comparable: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Which rows are of times when both sides answered today's question.

    With a champion of another question go the challenger's rows of its time: the two sides would
    else speak for different times.
    """
    kept = np.ones(len(rows), np.bool_)
    for version in served_versions(rows[rows["model_id"].isin(list(not_comparable))]):
        kept &= ~rows["predicted_at"].between(version.first_at, version.last_at).to_numpy(bool)
    return kept


def _refusal(refused: Mapping[str, str], rows: int) -> list[str]:
    if not refused:
        return []
    named = refused_text(refused)
    return [f"not comparable, so that {rows:,} rows of their times do not count: {named}"]


def _arm(
    role: str,
    its: pd.DataFrame,
    known: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    figures: Mapping[str, Figure],
) -> Arm:
    versions = served_versions(its)
    predictions, entities = counts.get(role, (len(its), its["entity_id"].nunique()))
    return Arm(
        versions[-1].model_id,
        versions,
        role,
        predictions,
        entities,
        len(known),
        int(known["entity_id"].nunique()),
        int((known["label"] > 0).sum()),
        figures,
    )
