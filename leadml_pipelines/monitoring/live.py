"""How well served predictions came true, beside what the model's test promised.

The predictions are those whose horizon is over, of each entity and model version the first one of a
UTC day, so that a caller who asks again and again does not count for more. Rows of one entity are
no independent evidence; so noise is reckoned from the number of entities, not of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.logged_predictions import logged_predictions
from leadml_pipelines.learning.outcomes import with_outcomes
from leadml_pipelines.learning.registry.registry import ModelRecord
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import Engine
from leadml_pipelines.monitoring.enough import NotEnough

if TYPE_CHECKING:
    import pandas as pd

WATCHED = ("accuracy", "roc_auc", "spearman")
"""Metrics that are compared with the test, where a greater value is better."""
LEAST_OF_A_CLASS = 10
"""Entities of either outcome without which a classifier is not judged."""
Z = 1.96
"""A difference of so many standard errors is beyond noise."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LiveMetric:
    """One metric, on served predictions and on the test rows.

    Attributes:
        live: On served predictions whose outcome is known.
        test: On the model's test rows; None where it was not measured.
        drop: By what share of the test's figure the live one is lower; negative when it is
            higher; None without a test, and for metrics that are not watched.
        noise: By what share it may be lower by chance: 1.96 standard errors of the difference;
            None where that can't be told.
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
    """One model version on served predictions.

    Attributes:
        model_name: Name of the model.
        model_id: The version.
        role: `champion` or `challenger`.
        since: Of predictions from then on.
        until: Up to when predictions were made whose outcome is known.
        predictions: How many.
        entities: Of how many.
        metrics: By name; `accuracy`, `roc_auc` and `brier` of a classifier, `spearman` and `mae`
            of a regression.
    """

    model_name: str
    model_id: str
    role: str
    since: datetime
    until: datetime
    predictions: int
    entities: int
    metrics: Mapping[str, LiveMetric]


def read_live_performance(
    url: str,
    engine: Engine,
    spec: ModelSpec,
    record: ModelRecord,
    role: str,
    *,
    data_end: datetime,
    window: timedelta,
    least: int,
) -> LivePerformance | NotEnough:
    """Judge a model version by what came true of its served predictions.

    Args:
        url: PostgreSQL, whose log of predictions is read.
        engine: Over the newest extract, for the outcomes.
        spec: The model's declaration.
        record: The version.
        role: In which role it answered.
        data_end: Up to when the extract tells what happened.
        window: How far back predictions count, from the newest whose horizon is over.
        least: Fewest entities that are worth a judgement.
    """
    until = data_end - spec.horizon
    since = until - window
    # The moment itself is over too, and the log is read up to a moment, without it.
    logged = logged_predictions(
        url, spec.name, since, until + timedelta(microseconds=1), first_of_day=True
    )
    mine = logged[(logged["model_id"] == record.model_id) & (logged["role"] == role)]
    known = with_outcomes(mine, spec, engine, data_end).dropna(subset=["label", "value"])
    return live_performance(spec, record, role, known, since=since, until=until, least=least)


def live_performance(
    spec: ModelSpec,
    record: ModelRecord,
    role: str,
    known: pd.DataFrame,
    *,
    since: datetime,
    until: datetime,
    least: int,
) -> LivePerformance | NotEnough:
    """Metrics of predictions whose outcome is known.

    Args:
        spec: Says what kind of model this is.
        record: Has the test's figures.
        role: In which role the model answered.
        known: `entity_id`, `value`, `prediction` and `label`, one row for each prediction.
        since: Of predictions from then on.
        until: Of predictions up to then.
        least: Fewest entities that are worth a judgement.
    """
    entities = int(known["entity_id"].nunique())
    if entities < least:
        return NotEnough(
            f"outcomes are known of {entities:,} entities that {record.model_id} answered for up "
            f"to {until:%Y-%m-%d %H:%M} UTC, and {least:,} are needed (its horizon is "
            f"{spec.horizon.days} days)"
        )
    labels = known["label"].to_numpy(np.float64)
    values = known["value"].to_numpy(np.float64)
    if spec.objective == "classification":
        happened = known.groupby("entity_id")["label"].max() > 0
        positive = int(happened.sum())
        if min(positive, entities - positive) < LEAST_OF_A_CLASS:
            return NotEnough(
                f"{positive:,} of {entities:,} entities that {record.model_id} answered for turned "
                f"out positive, and {LEAST_OF_A_CLASS} of either outcome are needed"
            )
        answers = known["prediction"].to_numpy(np.float64)
        live = {
            "accuracy": float(np.mean(answers == labels)),
            "roc_auc": _auc(labels, values),
            "brier": float(np.mean((values - labels) ** 2)),
        }
    else:
        positive = 0
        live = {
            "spearman": _spearman(labels, values),
            "mae": float(np.mean(np.abs(labels - values))),
        }
    metrics = {
        name: _beside_test(name, value, record, positive, entities) for name, value in live.items()
    }
    return LivePerformance(
        record.name, record.model_id, role, since, until, len(known), entities, metrics
    )


def _beside_test(
    name: str, live: float, record: ModelRecord, positive: int, entities: int
) -> LiveMetric:
    test = record.metrics
    promised = test.get(name)
    if promised is None:
        return LiveMetric(live)
    promised = float(promised)
    if name not in WATCHED or promised <= 0:
        return LiveMetric(live, promised)
    error = math.hypot(
        standard_error(name, live, positive, entities),
        _test_error(name, promised, record),
    )
    noise = Z * error / promised if math.isfinite(error) else None
    return LiveMetric(live, promised, (promised - live) / promised, noise)


def _test_error(name: str, value: float, record: ModelRecord) -> float:
    """Standard error of the test's figure: of its bootstrap interval, else in closed form.

    The bootstrap draws leads with all of their rows; the closed form takes rows for independent.
    """
    evaluation: Mapping[str, Any] = getattr(record, "evaluation", None) or {}
    interval = evaluation.get("model", {}).get(name)
    if interval and interval.get("low") is not None and interval.get("high") is not None:
        return float(interval["high"] - interval["low"]) / (2 * Z)
    test = record.metrics
    return standard_error(name, value, int(test.get("positives", 0)), int(test.get("rows", 0)))


def standard_error(name: str, value: float, positive: int, rows: int) -> float:
    """Standard error of a watched metric, in closed form; infinite where nothing is known.

    ROC AUC: Hanley and McNeil, *The meaning and use of the area under a ROC curve* (Radiology,
    1982). Accuracy: a share. Spearman: Fisher's transformation with the factor 1.06 of Fieller,
    Hartley and Pearson (Biometrika, 1957).

    Args:
        name: One of `WATCHED`.
        value: The metric.
        positive: Independent rows with a positive outcome.
        rows: Independent rows in all.
    """
    if name == "spearman":
        return math.sqrt(1.06 / (rows - 3)) * (1 - value**2) if rows > 3 else math.inf
    if name == "accuracy":
        return math.sqrt(max(value * (1 - value), 1 / (4 * rows)) / rows) if rows else math.inf
    negative = rows - positive
    if positive < 1 or negative < 1:
        return math.inf
    both, twice = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (
        value * (1 - value)
        + (positive - 1) * (both - value**2)
        + (negative - 1) * (twice - value**2)
    ) / (positive * negative)
    return math.sqrt(max(variance, 0.0))


def _auc(labels: Vector, values: Vector) -> float:
    from scipy.stats import rankdata

    positive = labels > 0
    count, others = int(positive.sum()), int((~positive).sum())
    above = rankdata(values)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * others))


def _spearman(labels: Vector, values: Vector) -> float:
    """Predictions or outcomes that are all equal rank nothing: a correlation of 0."""
    from scipy.stats import rankdata

    if np.ptp(values) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(labels), rankdata(values))[0, 1])
