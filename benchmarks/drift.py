"""PSI and KS of 123 features x 100,000 rows: `python benchmarks/drift.py [--rows N]`."""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.monitoring.drift import DriftLimits, column_drifts


def population(rows: int, seed: int) -> tuple[pd.DataFrame, list[Column]]:
    rng = np.random.default_rng(seed)
    values: dict[str, pd.Series] = {}
    columns: list[Column] = []
    for n in range(123):
        kind = ("double", "double", "integer", "boolean", "category")[n % 5]
        name = f"{kind}_{n}"
        if kind == "double":
            missing = rng.random(rows) < 0.1
            values[name] = pd.Series(np.where(missing, np.nan, rng.normal(size=rows)))
        elif kind == "integer":
            values[name] = pd.Series(rng.poisson(2, rows)).astype("Int64")
        elif kind == "boolean":
            values[name] = pd.Series(rng.random(rows) < 0.5).astype("boolean")
        else:
            values[name] = pd.Series(rng.choice([f"word {w}" for w in range(50)], rows))
        columns.append(Column(name, kind))
    return pd.DataFrame(values), columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    before, columns = population(rows, 1)
    now, _ = population(rows, 2)
    days = np.arange(rows, dtype=np.int64) * 200 // rows
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = column_drifts(before, now, columns, DriftLimits(), days)
        seconds.append(time.perf_counter() - start)
    drifted = sum(one.drifted for one in found)
    print(f"{len(columns)} columns x {rows:,} rows on either side, 40 single days")
    print(f"best of 3: {min(seconds):.2f} s; {drifted} drifted (0 were planted)")


if __name__ == "__main__":
    main()
