"""How near the models come to the best that can be known, on the synthetic funnel.

    python benchmarks/funnel_quality.py                       # 100,000 leads
    python benchmarks/funnel_quality.py --leads 20000 --data /tmp/funnel

The simulation knows the hidden state of each lead, and from it the chance of each label: no model
can rank better than by that chance, save by luck. On the newest rows of each model, which the
training has not seen, this prints the model, the hidden chance and the gap between them, with
95 % intervals over 500 draws of leads, and the accuracy of both by a threshold of one half.

The targets: churn with an accuracy over 0.85, and a gap of the ROC AUC of at most 0.02 for churn
and conversion. With `--data` the funnel is kept in that folder and used again.
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
from leadml_pipelines.learning.evaluation.intervals import draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training_set import build_training_set
from leadml_pipelines.sources.synthetic import hidden_chance

MODELS = ("churn", "conversion")
DRAWS = 500
TARGET_GAP = 0.02
TARGET_ACCURACY = {"churn": 0.85}

METRICS = ("roc_auc", "log_loss", "accuracy")
THRESHOLD = 0.5


def report(
    title: str, labels: np.ndarray, values: dict[str, np.ndarray], leads: np.ndarray
) -> tuple[float, float]:
    """Print a group of rows; the gap of the AUC, and the model's accuracy."""
    draws = draw(leads, seed=SEED, resamples=DRAWS)
    model, hidden = (
        measure(Scored("classification", labels, values[who], THRESHOLD), draws, METRICS)
        for who in ("model", "hidden")
    )
    found = {
        "model": model.intervals(),
        "hidden": hidden.intervals(),
        "gap": hidden.minus(model),
    }
    print(f"  {title}: {len(labels):,} rows of {len(np.unique(leads)):,} leads, "
          f"{labels.mean():.3f} positive")  # fmt: skip
    for who, figures in found.items():
        shown = (
            f"{name} {one['value']:7.4f} ({one['low']:7.4f} to {one['high']:7.4f})"
            for name, one in figures.items()
        )
        print(f"    {who:>6}: {'   '.join(shown)}")
    return found["gap"]["roc_auc"]["value"], model.point["accuracy"]


def groups_of(name: str, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """The parts of the test rows that are worth a look of their own."""
    if name == "churn":
        customer = (test["active_policy_count"] > 0).to_numpy(bool)
        return {"customers": customer, "open leads": ~customer}
    return {
        str(moment): (test["moment"] == moment).to_numpy() for moment in test["moment"].unique()
    }


def examine(name: str, leads: int, folder: Path, threads: int, futures: int) -> bool:
    """Train a model, print how it fares, and say whether it met its targets."""
    extract = funnel(folder, leads)
    started = time.perf_counter()
    with engine_over(extract) as engine:
        training_set = build_training_set(SPECS[name], engine, catalogue(), extract)
    built = time.perf_counter()
    trained = train(SPECS[name], training_set, seed=SEED, threads=threads)
    print(
        f"\n{name}: {trained.counts['train_rows']:,} training rows in "
        f"{built - started:.0f} s, trained in {trained.seconds:.0f} s"
    )
    test = trained.test
    model = trained.load()
    said = model.predict(model.encoder.encode(test)).values
    hidden = hidden_chance(test, name, leads=leads, seed=SEED, end=END, futures=futures).to_numpy()  # type: ignore[arg-type]
    known = ~np.isnan(hidden)
    labels, ids = test["label"].to_numpy(np.float64), test["entity_id"].to_numpy(str)
    both = {"model": said, "hidden": hidden}

    def of(rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        return labels[rows], {who: values[rows] for who, values in both.items()}, ids[rows]

    gap, accuracy = report("all", *of(known))
    for title, inside in groups_of(name, test).items():
        rows = inside & known
        if 5 <= labels[rows].sum() <= rows.sum() - 5:
            report(title, *of(rows))
    wanted = TARGET_ACCURACY.get(name, 0.0)
    met = gap <= TARGET_GAP and accuracy >= wanted
    print(f"  target: a gap of at most {TARGET_GAP}"
          f"{f', an accuracy over {wanted}' if wanted else ''}: "
          f"{'met' if met else 'NOT met'}")  # fmt: skip
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
