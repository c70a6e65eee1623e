"""How well served predictions came true, beside what the models' tests promised.

A new champion may come about every night, and an outcome is known only after the horizon, weeks
later. So a role is judged and not a version: all versions that were champion in the window, each
row held against the test of its own version. Versions that were trained for another question than
today's are left out, and that is said.

The predictions are those whose horizon is over, of each entity, version and role the first one of a
UTC day, so that a caller who asks again and again does not count for more. Rows of one entity are
no independent evidence, and some are asked about daily and others once; so noise comes from
resamples of entities with all of their rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import (
    RESAMPLES,
    Measured,
    Resamples,
    draw,
    interval,
    measure,
)
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.logged_predictions import logged_predictions
from leadml_pipelines.learning.outcomes import with_outcomes
from leadml_pipelines.learning.questions import refused_text
from leadml_pipelines.learning.registry.registry import ModelRecord
from leadml_pipelines.learning.served_versions import (
    ServedVersion,
    served_versions,
    versions_text,
)
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import Engine
from leadml_pipelines.monitoring.enough import NotEnough

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("accuracy", "roc_auc", "brier", "spearman", "mae")
"""What is measured, as far as it is defined for the kind of model."""
WATCHED = ("accuracy", "roc_auc", "spearman")
"""Metrics that are compared with the test, where a greater value is better."""
LEAST_OF_A_CLASS = 10
"""Entities of either outcome without which a classifier is not judged."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LiveMetric:
    """One metric, on served predictions and on the test rows.

    Attributes:
        live: On served predictions whose outcome is known.
        test: On the versions' test rows, the mean over the served rows of each version's figure;
            None where one was not measured.
        drop: By what share of the test's figure the live one is lower; negative when it is
            higher; None without a test, and for metrics that are not watched.
        noise: By what share it may be lower by chance: half the length of the 95 % interval of the
            difference; None where that can't be told.
    """

    live: float
    test: float | None = None
    drop: float | None = None
    noise: float | None = None

    def worse(self, limit: float) -> bool:
        """Whether it is lower by more than this share of the test's figure, and beyond noise."""
        return (
            self.drop is not None and self.noise is not None and self.drop > max(limit, self.noise)
        )


@dataclass(frozen=True)
class LivePerformance:
    """A role's versions on served predictions.

    Attributes:
        model_name: Name of the model.
        role: `champion` or `challenger`.
        since: Of predictions from then on.
        until: Up to when predictions were made whose outcome is known.
        predictions: How many.
        entities: Of how many.
        metrics: By name; `accuracy`, `roc_auc` and `brier` of a classifier, `spearman` and `mae`
            of a regression.
        versions: Who made them, by the first prediction; at least one.
        not_comparable: By model id, why a version's predictions are left out.
        left_out: How many predictions that are.
    """

    model_name: str
    role: str
    since: datetime
    until: datetime
    predictions: int
    entities: int
    metrics: Mapping[str, LiveMetric]
    versions: tuple[ServedVersion, ...]
    not_comparable: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0

    @property
    def who(self) -> str:
        """The versions in words."""
        return versions_text(self.versions)

    @property
    def remark(self) -> str:
        """What was left out, as the end of a sentence; nothing where nothing was."""
        return _remark(self.left_out, self.not_comparable)


def read_live_performance(
    url: str,
    engine: Engine,
    spec: ModelSpec,
    records: Sequence[ModelRecord],
    role: str,
    not_comparable: Mapping[str, str],
    *,
    data_end: datetime,
    window: timedelta,
    least: int,
    seed: int,
) -> LivePerformance | NotEnough:
    """Judge a role by what came true of its served predictions.

    Args:
        url: PostgreSQL, whose log of predictions is read.
        engine: Over the newest extract, for the outcomes.
        spec: The model's declaration.
        records: The registered versions.
        role: `champion` or `challenger`.
        not_comparable: Of model ids, why they are not to be judged by today's label (see
            `questions.other_questions`).
        data_end: Up to when the extract tells what happened.
        window: How far back predictions count, from the newest whose horizon is over.
        least: Fewest entities that are worth a judgement.
        seed: Of the resamples.
    """
    until = data_end - spec.horizon
    since = until - window
    # The moment itself is over too, and the log is read up to a moment, without it.
    logged = logged_predictions(
        url, spec.name, since, until + timedelta(microseconds=1), first_of_day=True
    )
    mine = logged[logged["role"] == role]
    known = with_outcomes(mine, spec, engine, data_end).dropna(subset=["label", "value"])
    return live_performance(
        spec,
        records,
        role,
        known,
        not_comparable,
        since=since,
        until=until,
        least=least,
        seed=seed,
    )


def live_performance(
    spec: ModelSpec,
    records: Sequence[ModelRecord],
    role: str,
    known: pd.DataFrame,
    not_comparable: Mapping[str, str],
    *,
    since: datetime,
    until: datetime,
    least: int,
    seed: int,
) -> LivePerformance | NotEnough:
    """Metrics of predictions whose outcome is known.

    Args:
        spec: Says what kind of model this is.
        records: Have the tests' figures.
        role: In which role the versions answered.
        known: `entity_id`, `model_id`, `predicted_at`, `value`, `prediction` and `label`, one row
            for each prediction.
        not_comparable: Of model ids, why their rows don't count.
        since: Of predictions from then on.
        until: Of predictions up to then.
        least: Fewest entities that are worth a judgement.
        seed: Of the resamples.
    """
    tested = {record.model_id: record for record in records}
    refused = {
        model_id: not_comparable.get(model_id, "it is not registered")
        for model_id in known["model_id"].unique()
        if model_id in not_comparable or model_id not in tested
    }
    counted = known[~known["model_id"].isin(list(refused))]
    left_out = len(known) - len(counted)
    entities = int(counted["entity_id"].nunique())
    if entities < least:
        return NotEnough(
            f"outcomes are known of {entities:,} entities that a {role} of {spec.name} answered "
            f"for up to {until:%Y-%m-%d %H:%M} UTC, and {least:,} are needed (the horizon is "
            f"{spec.horizon.days} days){_remark(left_out, refused)}"
        )
    versions = served_versions(counted)
    who = f"entities that the {role} ({versions_text(versions)}) answered for"
    one_sided = _one_sided(spec, counted, who)
    if one_sided:
        return NotEnough(one_sided + _remark(left_out, refused))
    resamples = draw(counted["entity_id"].to_numpy(), seed=seed, resamples=RESAMPLES)
    measured = measure(_scored(spec, counted), resamples, METRICS)
    served = [tested[version.model_id] for version in versions]
    metrics = {name: _beside_test(name, measured, counted, served, resamples) for name in METRICS}
    return LivePerformance(
        spec.name,
        role,
        since,
        until,
        len(counted),
        entities,
        {name: metric for name, metric in metrics.items() if metric is not None},
        versions,
        refused,
        left_out,
    )


def _one_sided(spec: ModelSpec, known: pd.DataFrame, who: str) -> str:
    """Why the outcomes are too alike to tell anything; nothing where they are not."""
    happened = known.groupby("entity_id")["label"].max() > 0
    if spec.objective != "classification":
        alike = known["label"].nunique() < 2
        return f"of {len(happened):,} {who} the same came true of all" if alike else ""
    positive = int(happened.sum())
    if min(positive, len(happened) - positive) >= LEAST_OF_A_CLASS:
        return ""
    return (
        f"{positive:,} of {len(happened):,} {who} turned out positive, and {LEAST_OF_A_CLASS} of "
        "either outcome are needed"
    )


def _scored(spec: ModelSpec, known: pd.DataFrame) -> Scored:
    labels = known["label"].to_numpy(np.float64)
    values = known["value"].to_numpy(np.float64)
    return Scored.answered(spec.objective, labels, values, known["prediction"].to_numpy(np.float64))


def _beside_test(
    name: str,
    measured: Measured,
    known: pd.DataFrame,
    served: Sequence[ModelRecord],
    resamples: Resamples,
) -> LiveMetric | None:
    live = measured.point.get(name)
    if live is None:
        return None
    if any(record.metrics.get(name) is None for record in served):
        return LiveMetric(live)
    promises = {record.model_id: float(record.metrics[name]) for record in served}
    promised = known["model_id"].map(promises).to_numpy(np.float64)
    test = float(promised.mean())
    if name not in WATCHED or test <= 0:
        return LiveMetric(live, test)
    drop = (test - live) / test
    # A resample draws versions along with the entities that they answered for.
    means = np.concatenate([each @ promised / each.sum(-1) for each in resamples.blocks()])
    gap = interval(name, live - test, measured.draws[name] - means, signed=True)
    errors = {record.model_id: _test_error(name, record) for record in served}
    if gap is None or None in errors.values():
        return LiveMetric(live, test, drop)
    # Versions of one week share most of their test rows: their errors do not cancel out.
    error = float(known["model_id"].map(errors).astype(np.float64).mean())
    return LiveMetric(live, test, drop, math.hypot((gap["high"] - gap["low"]) / 2, error) / test)


def _test_error(name: str, record: ModelRecord) -> float | None:
    """Half the length of the interval of the test's figure; None where the registry has none."""
    found = record.evaluation.get("model", {}).get(name)
    return float(found["high"] - found["low"]) / 2 if found else None


def _remark(left_out: int, refused: Mapping[str, str]) -> str:
    if not refused:
        return ""
    return f"; {left_out:,} predictions are not comparable, of {refused_text(refused)}"
