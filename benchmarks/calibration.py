"""Whether what the models say comes true, on synthetic funnels.

    python benchmarks/calibration.py --leads 5000 --data /tmp/funnel
    python benchmarks/calibration.py --leads 5000 --models conversion --seeds 7 8 9

On the newest rows of each model, which the training has not seen: the sum of what was said over
what came, with 95 % intervals over 500 draws of leads, of all rows, of calendar rows (leads of any
age, as they are scored at night) and new leads, by age of the lead, and of the tenth with the
highest answers; the calibration error and the metric that ranks; what was said and what came by
tenths; mean and spread of the confidence.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from funnel import SEED, engine_over, funnel

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.evaluation.ages import BAND_NAMES, age_bands
from leadml_pipelines.learning.evaluation.calibration_check import error_by_chance, reliability
from leadml_pipelines.learning.evaluation.intervals import Resamples, draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.model import Predictions
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.spine import CALENDAR
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training_set import build_training_set

DRAWS = 500
LEAST_POSITIVES = 10


def groups_of(test: pd.DataFrame, said: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows of the parts that are worth a look of their own."""
    calendar = (test["moment"] == CALENDAR).to_numpy()
    yield "all", np.ones(len(test), bool)
    if not calendar.all():
        yield "calendar", calendar
        yield "new leads", ~calendar
    ages = age_bands(test)
    for band in BAND_NAMES:
        yield f"calendar, {band}", calendar & (ages == band).to_numpy()
    top = np.zeros(len(test), bool)
    top[np.argsort(-said, kind="stable")[: len(test) // 10]] = True
    yield "top tenth", top


def said_over_came(said: np.ndarray, came: np.ndarray, draws: Resamples) -> str:
    """The ratio of the sums with its interval, in words."""
    with np.errstate(divide="ignore"):
        ratios = np.concatenate([(w @ said) / (w @ came) for w in draws.blocks()])
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{said.sum() / came.sum():.2f} ({low:.2f} to {high:.2f})"


def report(spec: ModelSpec, test: pd.DataFrame, found: Predictions, threshold: float) -> None:
    """Print what was said beside what came."""
    said, came = found.values, test["label"].to_numpy(np.float64)
    draws = draw(test["entity_id"].to_numpy(str), seed=SEED, resamples=DRAWS)
    for name, rows in groups_of(test, said):
        if (came[rows] > 0).sum() < LEAST_POSITIVES:
            continue
        ratio = said_over_came(said[rows], came[rows], draws.within(rows))
        print(f"  {name:>28}: {rows.sum():6,} rows  said {said[rows].mean():9.4f}"
              f"  came {came[rows].mean():9.4f}  ratio {ratio}")  # fmt: skip
    metrics = ("ece", spec.metric) if spec.objective == "classification" else (spec.metric, "mae")
    scored = Scored(spec.objective, came, said, threshold)
    for name, one in measure(scored, draws, metrics).intervals().items():
        print(f"  {name}: {one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})")
    if spec.objective == "classification":
        print(f"  ece by chance: {error_by_chance(came, said, draws.codes, seed=SEED):.4f}")
    bins = reliability(came, said, draws.codes)
    print("  said / came by tenths: "
          + "  ".join(f"{b['predicted']:.3g} / {b['actual']:.3g}" for b in bins))  # fmt: skip
    if found.confidence is not None:
        shown = np.quantile(found.confidence, [0.05, 0.5, 0.95]).round(4).tolist()
        print(f"  confidence: mean {found.confidence.mean():.4f}, 5, 50, 95 %: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=5_000)
    parser.add_argument("--models", nargs="+", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder in which the funnels are kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leadml-funnel-") as fresh:
        for seed in given.seeds:
            extract = funnel(given.data or Path(fresh), given.leads, seed=seed)
            for name in given.models:
                with engine_over(extract) as engine:
                    rows = build_training_set(SPECS[name], engine, catalogue(), extract)
                trained = train(SPECS[name], rows, seed=SEED, threads=given.threads)
                model = trained.load()
                print(f"\n{name}, funnel {seed}: {trained.validation['calibration']}")
                found = model.predict(model.encoder.encode(trained.test))
                report(SPECS[name], trained.test, found, model.threshold)


if __name__ == "__main__":
    main()
