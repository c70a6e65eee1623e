"""What an experiment has shown so far: two models, each on the entities that a lot gave it.

Rows count by the inverse of the chance with which their model got them, so that both models speak
for the same entities at the same times also where the share was changed on the way (Horvitz and
Thompson, JASA 47, 1952; divided by the sum of the weights as by Hajek, 1971).

Intervals and the chance that the challenger is better come from the same draws of one method, the
Bayesian bootstrap (Rubin, The Annals of Statistics 9(1), 1981, pages 130-134): the entities'
weights are drawn from the uniform Dirichlet distribution, which is exponential draws divided by
their sum, and each draw of the weights gives a draw of the figure from its posterior. It holds for
any figure of the rows, also for ranks, where a beta-binomial knows only rates; and it draws an
entity with all of its predictions, which are alike.

A new champion may come about every night, and no champion of a day has an outcome yet. So the
champion is a role: the challenger is held against whoever was champion while it ran. Versions that
were trained for another question than today's do not count, nor does anybody at such a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.logged_predictions import count_predictions, logged_predictions
from leadml_pipelines.learning.outcomes import with_outcomes
from leadml_pipelines.learning.questions import refused_text
from leadml_pipelines.learning.registry.model_records import json_ready
from leadml_pipelines.learning.served_versions import (
    ServedVersion,
    served_versions,
    versions_text,
)
from leadml_pipelines.learning.spec import HIGHER_IS_BETTER, ModelSpec
from leadml_pipelines.learning.spine import Engine
from leadml_pipelines.times import duration_text, require_utc

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
"""Draws of the posterior: they tell a chance to a hundredth or two."""
NEEDED = 200
"""Entities of each model whose outcome must be known before anything is concluded. The intervals
tell how much these are worth; with fewer they are themselves not to be trusted."""
NEEDED_OF_EACH = 10
"""Entities among them of each outcome, for classification."""
SURE = 0.95
"""Chance from which the challenger is called better; worse from as great a chance of that."""
LEVEL = 0.95
"""How probably an interval holds the true figure."""
OUTCOME = "outcome"
"""Mean of the labels: what happened to those whom the model answered for."""
COMPARED = frozenset(HIGHER_IS_BETTER) - {"ece"}
"""The metrics of an experiment. Noise always adds to a calibration error, to that of the smaller
side more: between equal models the larger side would be ahead."""
INSTEAD_OF_ECE = "brier"
"""By which models that declare `ece` are compared: a mean over rows, calibration included."""

_CELLS = 250_000
"""Weights computed at once."""

Values = npt.NDArray[np.float64]
Figure = dict[str, float]
"""`value`, `low`, `high`."""


class ExperimentError(UserError, LookupError):
    """There is no experiment to report of."""


@dataclass(frozen=True)
class Arm:
    """What one of the two sides did.

    Attributes:
        model_id: The model; of several champions the newest.
        versions: All that were in this role, by their first prediction.
        role: What it was in the experiment: champion or challenger.
        predictions: Predictions that a lot gave it.
        entities: Entities that these were about.
        rows: The first prediction of each entity and day whose outcome is known; the figures are
            of these.
        known_entities: Entities among them.
        positives: Rows among them whose label is over 0.
        figures: Each metric, and `outcome`, with its interval; undefined ones are absent.
    """

    model_id: str
    versions: tuple[ServedVersion, ...]
    role: str
    predictions: int
    entities: int
    rows: int
    known_entities: int
    positives: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Experiment:
    """What is known by now.

    Attributes:
        name: Name of the model.
        metric: The metric by which the two are compared: that of its declaration, but for `ece`.
        champion: One side; None while it has no prediction.
        challenger: The other side, likewise.
        first_at: The first prediction of the experiment; None if there is none.
        last_at: The last one.
        data_end: Up to when outcomes are known.
        differences: Challenger minus champion, by metric.
        chance_better: Probability that the challenger's metric is the better one; None while a side
            has no figure.
        needed: Entities with a known outcome that each side needs, about.
        not_comparable: By model id, why a version is not compared: it was trained for another
            question than today's.
        left_out: Rows that do not count because at their time one side was such a version.
        verdict: What to make of it, in plain words.
    """

    name: str
    metric: str
    champion: Arm | None
    challenger: Arm | None
    first_at: datetime | None
    last_at: datetime | None
    data_end: datetime
    differences: Mapping[str, Figure]
    chance_better: float | None
    needed: int
    not_comparable: Mapping[str, str]
    left_out: int
    verdict: str

    def document(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        document: dict[str, Any] = json_ready(asdict(self))
        return document


class Record(Protocol):
    """What has to be known of a registered model."""

    @property
    def model_id(self) -> str:
        """Its id."""

    @property
    def threshold(self) -> float | None:
        """Probability from which it says yes; None of a regression."""


class Registry(Protocol):
    """Who knows the models."""

    def alias(self, name: str, alias: str) -> Record | None:
        """The model that an alias points to."""

    def models(self, name: str | None = None) -> Sequence[Record]:
        """All models of a name."""


def challenger_of(
    registry: Registry, specs: Mapping[str, ModelSpec], name: str, model_id: str | None = None
) -> tuple[ModelSpec, str]:
    """The declaration of a model, and the challenger whose experiment is asked for.

    Args:
        registry: Knows who challenges.
        specs: The models by name.
        name: Name of the model.
        model_id: An earlier challenger; None for that of now.

    Raises:
        ExperimentError: there is no such model, or it has no challenger.
    """
    if name not in specs:
        raise ExperimentError(f"there is no model {name}; the models are {', '.join(specs)}")
    if model_id is not None:
        if all(record.model_id != model_id for record in registry.models(name)):
            raise ExperimentError(f"{model_id} is no registered version of {name}")
        return specs[name], model_id
    challenger = registry.alias(name, "challenger")
    if challenger is None:
        raise ExperimentError(
            f"{name} has no challenger; `leadml models challenge MODEL_ID --share 0.1` begins an "
            "experiment, and --challenger MODEL_ID asks for an earlier one"
        )
    return specs[name], challenger.model_id


def thresholds_of(registry: Registry, name: str) -> dict[str, float]:
    """The probability from which each version of a model says yes, by model id."""
    return {
        record.model_id: record.threshold
        for record in registry.models(name)
        if record.threshold is not None
    }


def examine_experiment(
    url: str,
    spec: ModelSpec,
    experiment: str,
    engine: Engine,
    data_end: datetime,
    thresholds: Mapping[str, float],
    not_comparable: Mapping[str, str],
    *,
    seed: int = 7,
) -> Experiment:
    """Report of an experiment from the log of predictions and what came true since.

    Args:
        url: PostgreSQL, migrated.
        spec: Declares the model.
        experiment: The challenger's model id.
        engine: Has the tables that the label reads.
        data_end: Up to when these tables tell what happened.
        thresholds: Of each model id, the probability from which it says yes; 0.5 if not given.
        not_comparable: Of model ids, why they are not to be judged by today's label (see
            `questions.other_questions`).
        seed: Of the draws.

    Raises:
        SpecError: the label's SQL does not answer with one value for each row.
    """
    rows = logged_predictions(url, spec.name, experiment=experiment, first_of_day=True)
    told = with_outcomes(rows, spec, engine, data_end)
    counts = count_predictions(url, spec.name, experiment)
    return compare(spec, told, counts, data_end, thresholds, not_comparable, seed=seed)


def compare(
    spec: ModelSpec,
    rows: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    data_end: datetime,
    thresholds: Mapping[str, float],
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
        thresholds: Of each model id.
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
    point, draws = _figures(spec, known, thresholds, seed)
    arms = {
        role: _arm(role, sides[role], its, counts, point.get(role, {}), draws.get(role, {}))
        for role, its in known.items()
    }
    differences, chance = _differences(metric, point, draws)
    champion, challenger = arms.get("champion"), arms.get("challenger")
    needed = _needed(spec, list(known.values()))
    met = set(rows["model_id"])
    refused = {model_id: why for model_id, why in not_comparable.items() if model_id in met}
    verdict = _verdict(spec, metric, champion, challenger, known, chance, needed)
    return Experiment(
        spec.name,
        metric,
        champion,
        challenger,
        rows["predicted_at"].min().to_pydatetime() if len(rows) else None,
        rows["predicted_at"].max().to_pydatetime() if len(rows) else None,
        require_utc(data_end, "data_end"),
        differences,
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


def _figures(
    spec: ModelSpec,
    known: Mapping[str, pd.DataFrame],
    thresholds: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Values]]]:
    """Of each role and metric the figure, and its draws, float64[DRAWS]."""
    sides = {role: its for role, its in known.items() if len(its)}
    names = sorted({name for its in sides.values() for name in its["entity_id"]})
    codes = {name: at for at, name in enumerate(names)}
    scored, labels, weights, places = {}, {}, {}, {}
    for role, its in sides.items():
        threshold = its["model_id"].map(lambda of: thresholds.get(of, 0.5)).to_numpy(np.float64)
        labels[role] = its["label"].to_numpy(np.float64)
        values = its["value"].to_numpy(np.float64)
        scored[role] = Scored(spec.objective, labels[role], values, threshold)
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
    return point, draws


def _arm(
    role: str,
    its: pd.DataFrame,
    known: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    point: Mapping[str, float],
    draws: Mapping[str, Values],
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
        {name: _figure(value, draws[name]) for name, value in point.items()},
    )


def _differences(
    metric: str,
    point: Mapping[str, Mapping[str, float]],
    draws: Mapping[str, Mapping[str, Values]],
) -> tuple[dict[str, Figure], float | None]:
    old, new = point.get("champion", {}), point.get("challenger", {})
    gaps = {n: draws["challenger"][n] - draws["champion"][n] for n in new if n in old}
    differences = {name: _figure(new[name] - old[name], gap) for name, gap in gaps.items()}
    if metric not in gaps:
        return differences, None
    gap = gaps[metric][np.isfinite(gaps[metric])]
    ahead = gap if HIGHER_IS_BETTER[metric] else -gap
    return differences, float(np.mean(ahead > 0) + np.mean(ahead == 0) / 2)


def _figure(value: float, draws: Values) -> Figure:
    tail = (1 - LEVEL) / 2
    low, high = (float(end) for end in np.nanquantile(draws, [tail, 1 - tail]))
    return {"value": value, "low": low, "high": high}


def _needed(spec: ModelSpec, known: list[pd.DataFrame]) -> int:
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


def _verdict(
    spec: ModelSpec,
    metric: str,
    champion: Arm | None,
    challenger: Arm | None,
    known: Mapping[str, pd.DataFrame],
    chance: float | None,
    needed: int,
) -> str:
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
