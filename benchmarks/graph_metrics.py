"""How long all graph metrics as of one moment take, and how much memory.

    python benchmarks/graph_metrics.py --nodes 1000000 --edges 5000000

The graph is made in one process and measured in another, so that the peak is that of the metrics
alone: reading the frames, putting them on the time axis, every metric, the frame of the answer.
It has the shape of ours: leads with an agent, many in a household, the rest of the edges referrals
from older to newer leads, where a few refer many; 8 of 100 leads have bought. Half of the
referrals stay within a circle of some hundred leads, so that there are communities to find.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
CIRCLE = 300


def make(nodes: int, edges: int, seed: int, folder: Path) -> None:
    """Write nodes, edges and outcomes as Parquet; every edge holds as of `AS_OF`."""
    random = np.random.default_rng(seed)
    agents = max(nodes // 500, 1)
    households = nodes // 8
    leads = nodes - agents - households
    start = pd.Timestamp(AS_OF) - pd.Timedelta(days=730)
    born = start + pd.to_timedelta(np.sort(random.integers(0, 729 * 86_400, leads)), unit="s")
    lead_ids = pd.Series([f"lead_{n:07d}" for n in range(leads)], dtype="str")
    agent_ids = pd.Series([f"agent_{n:05d}" for n in range(agents)], dtype="str")
    household_ids = pd.Series([f"household_{n:06d}" for n in range(households)], dtype="str")

    # Two or three leads of each household; the others live alone.
    members = random.choice(leads, min(households * 5 // 2, leads), replace=False)
    homes = np.concatenate([np.arange(households), random.integers(0, households, leads)])
    homes = homes[: len(members)]
    count = max(edges - leads - len(members), 0)
    to = random.integers(1, leads, count)
    near = np.maximum(to - 1 - random.integers(0, CIRCLE, count), 0)
    # The cube favours few: some refer hundreds.
    far = (to * random.random(count) ** 3).astype(np.int64)
    by = np.where(random.random(count) < 0.5, near, far)

    def part(src: np.ndarray, dst: pd.Series, relation: str, since: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "src": lead_ids.iloc[src].to_numpy(),
                "dst": dst.to_numpy(),
                "relation": relation,
                "since": since.to_numpy(),
            }
        )

    times = pd.Series(born).dt.as_unit("us")
    everyone = np.arange(leads)
    frames = [
        part(everyone, agent_ids.iloc[random.integers(0, agents, leads)], "ASSIGNED_TO", times),
        part(members, household_ids.iloc[homes], "MEMBER_OF", times.iloc[members]),
        part(by, lead_ids.iloc[to], "REFERRED", times.iloc[to]),
    ]
    edge_frame = pd.concat(frames, ignore_index=True)
    edge_frame["since"] = pd.to_datetime(edge_frame["since"], utc=True)
    edge_frame["until"] = pd.Series(pd.NaT, index=edge_frame.index, dtype="datetime64[us, UTC]")
    edge_frame.sample(frac=1, random_state=seed).to_parquet(folder / "edges.parquet", index=False)
    ids = pd.concat([lead_ids, agent_ids, household_ids], ignore_index=True)
    pd.DataFrame(
        {
            "entity_type": np.repeat(["lead", "agent", "household"], [leads, agents, households]),
            "entity_id": ids,
            "created_at": times.reindex(range(nodes)),
        }
    ).to_parquet(folder / "nodes.parquet", index=False)
    bought = np.flatnonzero(random.random(leads) < 0.08)
    pd.DataFrame(
        {
            "lead_id": lead_ids.iloc[bought].to_numpy(),
            "bound_at": (times.iloc[bought] + pd.Timedelta(hours=20)).to_numpy(),
        }
    ).assign(bound_at=lambda f: pd.to_datetime(f["bound_at"], utc=True)).to_parquet(
        folder / "outcomes.parquet", index=False
    )


def measure(folder: Path, seed: int) -> None:
    """Compute every metric and say what it took."""
    from leadml_pipelines.graph.metrics import metrics_as_of
    from leadml_pipelines.graph.model import GraphData

    wall, cpu = time.perf_counter(), time.process_time()
    data = GraphData(
        pd.read_parquet(folder / "nodes.parquet"), pd.read_parquet(folder / "edges.parquet")
    )
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    frame = metrics_as_of(data, AS_OF, outcomes=outcomes, seed=seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{len(data.nodes):,} nodes, {len(data.edges):,} edges: {len(frame):,} rows")
    print(f"{wall:.1f} s wall, {cpu:.1f} s CPU, {peak:.2f} GB at the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for work, arguments in (
            (make, (given.nodes, given.edges, given.seed, folder)),
            (measure, (folder, given.seed)),
        ):
            process = spawn.Process(target=work, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
