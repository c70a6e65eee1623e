"""The three models, tuned, on 100,000 synthetic leads: how long in all, and how much of it is ours.

    python benchmarks/train_three.py                          # 100,000 leads, two threads
    python benchmarks/train_three.py --leads 20000 --data /tmp/funnel

For each model: the seconds for its rows (moments, labels, features), those of the training as
declared, search included, and how many of them XGBoost took for its own work: making its matrices,
growing trees, and measuring them on the validation rows. The overhead is what the training takes
beyond, over what XGBoost takes.

The targets: under 30 minutes in all on two cores, and an overhead under 15 %.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xgboost
from funnel import SEED, engine_over, funnel

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training_set import build_training_set

MINUTES = 30
OVERHEAD = 0.15
OF_XGBOOST: tuple[tuple[Any, str], ...] = (
    (xgboost.DMatrix, "__init__"),
    (xgboost.QuantileDMatrix, "__init__"),
    (xgboost.Booster, "update"),
    (xgboost.Booster, "eval_set"),
)


@contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """The seconds that pass inside XGBoost meanwhile; calls within calls count once."""
    spent, depth = 0.0, 0
    originals = [(owner, name, getattr(owner, name)) for owner, name in OF_XGBOOST]

    def timed(original: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal spent, depth
            started = time.perf_counter()
            depth += 1
            try:
                return original(*args, **more)
            finally:
                depth -= 1
                if depth == 0:
                    spent += time.perf_counter() - started

        return call

    for owner, name, original in originals:
        setattr(owner, name, timed(original))
    try:
        yield lambda: spent
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--models", nargs="+", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder in which the funnel is kept")
    given = parser.parse_args()
    everything, inside_all, trained_all = 0.0, 0.0, 0.0
    with tempfile.TemporaryDirectory(prefix="leadml-funnel-") as fresh:
        extract = funnel(given.data or Path(fresh), given.leads)
        print(f"{given.leads:,} leads, {given.threads} threads, {os.cpu_count()} cores")
        for name in given.models:
            started = time.perf_counter()
            with engine_over(extract, threads=given.threads) as engine:
                training_set = build_training_set(SPECS[name], engine, catalogue(), extract)
            built = time.perf_counter() - started
            with clock() as inside:
                started = time.perf_counter()
                trained = train(SPECS[name], training_set, seed=SEED, threads=given.threads)
                took = time.perf_counter() - started
            everything += built + took
            inside_all += inside()
            trained_all += took
            print(
                f"{name:>12}: rows {built:6.1f} s, training {took:6.1f} s on "
                f"{trained.counts['train_rows']:,} rows, {trained.params['rounds']} rounds; "
                f"XGBoost {inside():6.1f} s, overhead {took / inside() - 1:.1%}"
            )
    overhead = trained_all / inside_all - 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"in all {everything / 60:.1f} minutes (target: under {MINUTES}), overhead "
          f"{overhead:.1%} (target: under {OVERHEAD:.0%}), {peak:,.0f} MB at the peak")  # fmt: skip
    met = everything < MINUTES * 60 and overhead < OVERHEAD
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
