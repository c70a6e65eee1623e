"""How long bootstrap intervals take: `python -m benchmarks.intervals [--rows N]`."""

from __future__ import annotations

import argparse
import time

import numpy as np

from leadml_pipelines.learning.evaluation.intervals import RESAMPLES, draw, measure
from leadml_pipelines.learning.evaluation.weighted import Scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--leads", type=int, default=12_000)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    leads = random.integers(0, options.leads, options.rows)
    values = random.random(options.rows)
    happened = (random.random(options.rows) < 0.3 * values).astype(np.float64)
    worth = happened * random.gamma(2, 300, options.rows)
    for objective, labels in (("classification", happened), ("regression", worth)):
        started, busy = time.perf_counter(), time.process_time()
        draws = draw(leads, seed=1, resamples=options.resamples)
        found = measure(Scored(objective, labels, values, 0.3), draws).intervals()
        took, busy = time.perf_counter() - started, time.process_time() - busy
        print(
            f"{objective}: {options.resamples} resamples of {options.rows:,} rows, "
            f"{len(found)} metrics: {took:.1f} s ({busy:.1f} s of processor time)"
        )


if __name__ == "__main__":
    main()
