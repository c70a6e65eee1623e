"""Would it have held? The model as it would have been at past dates, on what came after each.

At each cut the training set is what was known then: rows whose label the horizon had already
revealed. It is trained as in production, its own split and search inside, and asked about the rows
of the following period, which lie after everything it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.evaluation.baselines import RULE_THRESHOLD, heuristic_values
from leadml_pipelines.learning.evaluation.intervals import RESAMPLES, draw, measure
from leadml_pipelines.learning.evaluation.linear_baseline import linear_predictions
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import LEAST_OF_A_CLASS, LEAST_ROWS, TooLittleDataError
from leadml_pipelines.learning.training.threshold import row_costs
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.learning.training_set import TrainingSet
from leadml_pipelines.times import duration_text

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is under way. To cancel, raise in it."""
Trainer = Callable[[TrainingSet, Progress], TrainedModel]
"""From what was known at a cut to a model."""

_PARTS = 100
"""Steps of a progress bar for each cut."""


class BacktestError(UserError, ValueError):
    """No past date leaves enough on both sides; the message says what to change."""


@dataclass(frozen=True)
class Cut:
    """One past date.

    Attributes:
        at: The date; whatever was known later is not used for training.
        until: End of the period that is examined.
        train_rows: Rows that the model learned from.
        rows: Rows of the period.
        positives: Those with a label over 0.
        skipped: Why nothing was measured; empty where it was.
        model: Figures of the model with intervals: `value`, `low`, `high` by metric.
        heuristic: The replaced rule's, on the same rows.
        logistic: A linear model's, on the same rows.
    """

    at: datetime
    until: datetime
    train_rows: int = 0
    rows: int = 0
    positives: int = 0
    skipped: str = ""
    model: Mapping[str, Mapping[str, float]] | None = None
    heuristic: Mapping[str, Mapping[str, float]] | None = None
    logistic: Mapping[str, Mapping[str, float]] | None = None


def backtest(
    spec: ModelSpec,
    training_set: TrainingSet,
    *,
    cuts: int,
    every: timedelta,
    seed: int,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    resamples: int = RESAMPLES,
) -> list[Cut]:
    """Train at past dates and measure on the period after each.

    Args:
        spec: The model's declaration.
        training_set: All rows with a known label, of all dates.
        cuts: How many dates.
        every: How far they are apart, and how long the period after each is.
        seed: Of training and resamples.
        threads: Threads of XGBoost; all cores if None.
        device: `cpu` or `cuda`, as training takes it.
        progress: Told of each step; an exception it raises ends the backtest within seconds.
        resamples: Resamples of the intervals.

    Returns:
        A cut for each date, the oldest first. The last period ends with the newest known label.

    Raises:
        BacktestError: no date leaves enough rows on both sides.
    """
    frame = training_set.frame
    if frame.empty:
        raise BacktestError(
            f"{spec.name}: the training set is empty, there is nothing to go back to"
        )
    say = progress or (lambda done, total, text: None)
    newest = frame["as_of"].max().to_pydatetime()
    found: list[Cut] = []
    for number in range(cuts):
        at = newest - every * (cuts - number)

        def tell(done: int, total: int, text: str, number: int = number, at: datetime = at) -> None:
            part = int(_PARTS * min(done / max(total, 1), 1))
            say(number * _PARTS + part, cuts * _PARTS, f"{at:%Y-%m-%d}, {text}")

        found.append(
            _at(
                spec,
                training_set,
                Cut(at, at + every),
                lambda known, tell: train(
                    spec, known, seed=seed, threads=threads, device=device, progress=tell
                ),
                tell,
                seed,
                resamples,
            )
        )
    if not any(cut.model for cut in found):
        reasons = "; ".join(dict.fromkeys(cut.skipped for cut in found))
        raise BacktestError(
            f"{spec.name}: none of {cuts} cuts {duration_text(every)} apart could be tried: "
            f"{reasons}. Take fewer cuts (--cuts), other periods (--every), or load more data"
        )
    say(cuts * _PARTS, cuts * _PARTS, "done")
    return found


def known_at(spec: ModelSpec, training_set: TrainingSet, at: datetime) -> TrainingSet:
    """The training set as it would have been at a past date.

    A row is there if its label was known: its moment plus the horizon is not after the date.
    """
    frame = training_set.frame
    known = frame[frame["as_of"] + spec.horizon <= at].reset_index(drop=True)
    counts = {
        "rows": len(known),
        "positives": int((known["label"] > 0).sum()),
        "unknown_labels": int(
            ((frame["as_of"] <= at) & (frame["as_of"] + spec.horizon > at)).sum()
        ),
    }
    return replace(training_set, frame=known, counts=counts, data_end=at)


def backtest_document(spec: ModelSpec, cuts: list[Cut]) -> dict[str, Any]:
    """A backtest, fit for JSON."""
    return {
        "model": spec.name,
        "metric": spec.metric,
        "horizon_seconds": spec.horizon.total_seconds(),
        "cuts": [
            {
                **{key: value for key, value in vars(cut).items() if key not in ("at", "until")},
                "at": cut.at.isoformat(),
                "until": cut.until.isoformat(),
            }
            for cut in cuts
        ],
    }


def _at(
    spec: ModelSpec,
    training_set: TrainingSet,
    cut: Cut,
    trainer: Trainer,
    tell: Progress,
    seed: int,
    resamples: int,
) -> Cut:
    tell(0, 1, "what was known")
    frame = training_set.frame
    period = frame[(frame["as_of"] > cut.at) & (frame["as_of"] <= cut.until)]
    labels = period["label"].to_numpy(np.float64)
    cut = replace(cut, rows=len(period), positives=int((labels > 0).sum()))
    problem = _problem(spec, cut)
    if problem:
        return replace(cut, skipped=problem)
    known = known_at(spec, training_set, cut.at)
    try:
        trained = trainer(known, tell)
    except TooLittleDataError as error:
        return replace(cut, skipped=str(error))
    tell(1, 1, f"examining {len(period):,} later rows")
    model = trained.load()
    matrix = model.encoder.encode(period)
    miss, false_alarm = row_costs(spec, period)
    rule = np.full(len(period), RULE_THRESHOLD)
    answers = {
        "model": (model.predict(matrix).values, model.thresholds(matrix)),
        "heuristic": (heuristic_values(spec, trained.train, period, seed=seed), rule),
        "logistic": (
            linear_predictions(spec, model.encoder, trained.train, period, seed=seed),
            false_alarm / (miss + false_alarm),
        ),
    }
    draws = draw(period["entity_id"].to_numpy(), seed=seed, resamples=resamples)
    figures = {
        who: measure(Scored(spec.objective, labels, values, threshold), draws).intervals()
        for who, (values, threshold) in answers.items()
    }
    return replace(
        cut,
        train_rows=len(trained.train),
        model=figures["model"],
        heuristic=figures["heuristic"],
        logistic=figures["logistic"],
    )


def _problem(spec: ModelSpec, cut: Cut) -> str:
    if cut.rows < LEAST_ROWS:
        return f"a period has {cut.rows} rows, and needs {LEAST_ROWS}"
    others = cut.rows - cut.positives
    least = min(cut.positives, others) if spec.objective == "classification" else cut.positives
    if least < LEAST_OF_A_CLASS:
        return (
            f"a period has {cut.positives} positive labels among {cut.rows} rows, "
            f"and needs {LEAST_OF_A_CLASS} of each kind"
        )
    return ""
