"""How long the synthetic funnel takes to make, and how much memory.

python benchmarks/synthetic_funnel.py --leads 1000000
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from datetime import UTC, datetime

from leadml_pipelines.sources.synthetic import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=100_000)
    leads = parser.parse_args().leads
    rows: Counter[str] = Counter()
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in generate(leads, end=datetime(2026, 1, 1, tzinfo=UTC)):
        rows[batch.table] += len(batch.frame)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows['leads']:,} rows of leads, {rows['lead_events']:,} events")
    print(f"{wall:.1f} s wall, {cpu:.1f} s CPU, {peak:.0f} MB at the peak")


if __name__ == "__main__":
    main()
