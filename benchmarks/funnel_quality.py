"""How near the models come to the best that can be known, on the synthetic funnel.

    python benchmarks/funnel_quality.py                       # 100,000 leads
    python benchmarks/funnel_quality.py --leads 20000 --data /tmp/funnel

The simulation knows the hidden state of each lead, and from it the chance of each label (for the
lead score the expected premium): no model can rank better than by that, save by luck. On the newest
rows of each model, which the training has not seen, this prints the model, the rule that it
replaces, the hidden chance and the gap between model and hidden chance, with 95 % intervals over
500 draws of leads: of all rows, by age of the lead (by open lead and customer for churn).

The targets: churn with an accuracy over 0.85, a gap of the ROC AUC of at most 0.02 for churn and
conversion, and no age at which the rule ranks better than the model. With `--data` the funnel is
kept in that folder and used again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from funnel import END, SEED, engine_over, funnel

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.evaluation.ages import BAND_NAMES, age_bands
from leadml_pipelines.learning.evaluation.baselines import heuristic_values
from leadml_pipelines.learning.evaluation.intervals import draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.spine import CALENDAR
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training_set import build_training_set
from leadml_pipelines.sources.synthetic import hidden_chance

MODELS = ("churn", "conversion", "lead_score")
DRAWS = 500
TARGET_GAP = 0.02
TARGET_ACCURACY = {"churn": 0.85}

METRICS = {
    "classification": ("roc_auc", "log_loss", "accuracy"),
    "regression": ("gini", "spearman", "total_ratio"),
}
THRESHOLD = 0.5
LEAST_POSITIVES = 5


def report(
    title: str, objective: str, labels: np.ndarray, values: dict[str, np.ndarray], leads: np.ndarray
) -> dict[str, dict[str, float]]:
    """Print a group of rows; the plain figures of each, and of the gap."""
    draws = draw(leads, seed=SEED, resamples=DRAWS)
    metrics = METRICS[objective]
    found = {
        who: measure(Scored(objective, labels, of, THRESHOLD), draws, metrics)
        for who, of in values.items()
    }
    shown = {who: one.intervals() for who, one in found.items()}
    shown["gap"] = found["hidden"].minus(found["model"])
    print(f"  {title}: {len(labels):,} rows of {len(np.unique(leads)):,} leads, "
          f"{(labels > 0).mean():.3f} positive")  # fmt: skip
    for who, figures in shown.items():
        texts = (
            f"{name} {one['value']:7.4f} ({one['low']:7.4f} to {one['high']:7.4f})"
            for name, one in figures.items()
        )
        greatest = f"   greatest {values[who].max():.3f}" if who in values else ""
        print(f"    {who:>6}: {'   '.join(texts)}{greatest}")
    return {
        who: {name: one["value"] for name, one in figures.items()} for who, figures in shown.items()
    }


def groups_of(name: str, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """The parts of the test rows that are worth a look of their own."""
    if name == "churn":
        customer = (test["active_policy_count"] > 0).to_numpy(bool)
        return {"customers": customer, "open leads": ~customer}
    ages = age_bands(test)
    return {
        **{
            f"at {moment}": (test["moment"] == moment).to_numpy()
            for moment in test["moment"].unique()
            if moment != CALENDAR
        },
        **{f"age {band}": (ages == band).to_numpy() for band in BAND_NAMES},
    }


def examine(name: str, leads: int, folder: Path, threads: int, futures: int) -> bool:
    """Train a model, print how it fares, and say whether it met its targets."""
    spec = SPECS[name]
    extract = funnel(folder, leads)
    started = time.perf_counter()
    with engine_over(extract) as engine:
        training_set = build_training_set(spec, engine, catalogue(), extract)
    built = time.perf_counter()
    trained = train(spec, training_set, seed=SEED, threads=threads)
    print(
        f"\n{name}: {trained.counts['train_rows']:,} training rows in "
        f"{built - started:.0f} s, trained in {trained.seconds:.0f} s"
    )
    test = trained.test
    model = trained.load()
    hidden = hidden_chance(test, name, leads=leads, seed=SEED, end=END, futures=futures).to_numpy()  # type: ignore[arg-type]
    known = ~np.isnan(hidden)
    labels, ids = test["label"].to_numpy(np.float64), test["entity_id"].to_numpy(str)
    every = {
        "model": model.predict(model.encoder.encode(test)).values,
        "rule": heuristic_values(spec, trained.train, test, seed=SEED),
        "hidden": hidden,
    }

    def of(title: str, rows: np.ndarray) -> dict[str, dict[str, float]]:
        values = {who: said[rows] for who, said in every.items()}
        return report(title, spec.objective, labels[rows], values, ids[rows])

    whole = of("all", known)
    behind = []
    for title, inside in groups_of(name, test).items():
        rows = inside & known
        positives = int((labels[rows] > 0).sum())
        if LEAST_POSITIVES <= positives <= rows.sum() - LEAST_POSITIVES:
            found = of(title, rows)
            if found["model"][spec.metric] < found["rule"][spec.metric]:
                behind.append(title)
    wanted = TARGET_ACCURACY.get(name, 0.0)
    met = not behind and whole["model"].get("accuracy", 1.0) >= wanted
    if spec.objective == "classification":
        met = met and whole["gap"]["roc_auc"] <= TARGET_GAP
        print(f"  target: a gap of at most {TARGET_GAP}"
              f"{f', an accuracy over {wanted}' if wanted else ''}, ", end="")  # fmt: skip
    else:
        print("  target: ", end="")
    print(f"better than the rule everywhere: {'met' if met else 'NOT met'}"
          f"{'; the rule is better: ' + ', '.join(behind) if behind else ''}")  # fmt: skip
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--futures", type=int, default=128, help="simulated futures of each row")
    parser.add_argument("--data", type=Path, help="folder in which the funnel is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leadml-funnel-") as fresh:
        folder = given.data or Path(fresh)
        met = [
            examine(name, given.leads, folder, given.threads, given.futures)
            for name in given.models
        ]
    raise SystemExit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
