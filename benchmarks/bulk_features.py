"""Sixty features in bulk: LeadML, the same SQL written by hand, and the same in pandas, in one run.

    python benchmarks/bulk_features.py                     # every lead as of one moment
    python benchmarks/bulk_features.py --spine 200000      # a training set: so many moments
    python benchmarks/bulk_features.py --leads 1000 --events 1000000 --spine 200000   # deep

Each candidate runs in a process of its own, in turn, `--rounds` times; the least time and the
greatest peak of memory count. All must give the same values. `--memory` is DuckDB's limit, for
LeadML and for the hand-written SQL alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.compiler import compile_views
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.functions import Count, Ratio, Recency, Total, function_view
from leadml_pipelines.features.relations import SOURCE_TABLES

TYPES = (
    ("email_sent", "email", "outbound"),
    ("email_open", "email", "inbound"),
    ("email_click", "email", "inbound"),
    ("call_attempt", "phone", "outbound"),
    ("call_connected", "phone", "outbound"),
    ("page_view", "web", "inbound"),
    ("quote_request", "web", "inbound"),
    ("form_submit", "web", "inbound"),
)
WINDOWS = (1, 7, 30, 90)
CHOICES = [
    *({"event_type": kind} for kind, _, _ in TYPES),
    *({"direction": direction} for direction in ("inbound", "outbound")),
    *({"channel": channel} for channel in ("email", "phone")),
]
RATIOS = (
    ("email_open", "email_sent"),
    ("email_click", "email_open"),
    ("call_connected", "call_attempt"),
    ("quote_request", "page_view"),
)
SINCE = ("inbound", "outbound")
VIEW = function_view(
    "bulk",
    "lead",
    [
        *(Count(window=f"{days}d", **choice) for choice in CHOICES for days in WINDOWS),
        *(Total(window=f"{days}d") for days in WINDOWS),
        *(Ratio(of=of, per=per, window="30d", prior=0.2, weight=5) for of, per in RATIOS),
        *(Recency(direction=d, window=f"{days}d", name=f"since_{d}_{days}d")
          for d in SINCE for days in (30, 90)),
    ],
)  # fmt: skip
START, YEAR = "2025-01-01", 365 * 86_400


def write_data(folder: Path, leads: int, events: int, spine: int) -> None:
    """Events spread over a year, a tenth of them known an hour late; everything from hashes."""
    kinds, channels, directions = ([t[i] for t in TYPES] for i in range(3))
    second = f"(hash(i * 5) % {YEAR})::BIGINT"
    at = f"TIMESTAMPTZ '{START}' + to_microseconds({second} * 1000000 + i % 1000)"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"""
        COPY (SELECT 'lead_' || i AS lead_id, TIMESTAMPTZ '{START}' AS created_at
        FROM range({leads}) t(i)) TO '{folder}/leads.parquet'""")
    connection.execute(f"""
        COPY (SELECT 'e' || i AS event_id, 'lead_' || (hash(i * 7) % {leads})::BIGINT AS lead_id,
            {kinds}[1 + (hash(i * 3) % 8)::INT] AS event_type,
            {channels}[1 + (hash(i * 3) % 8)::INT] AS channel,
            {directions}[1 + (hash(i * 3) % 8)::INT] AS direction,
            CASE WHEN hash(i * 11) % 3 = 0 THEN 'a' || (hash(i * 13) % 200)::BIGINT END AS agent_id,
            CASE WHEN hash(i * 17) % 10 = 0
                THEN ((hash(i * 19) % 100000)::BIGINT / 100)::DECIMAL(18, 4) END AS value,
            '{{}}' AS properties, {at} AS occurred_at,
            {at} + to_microseconds(CASE WHEN i % 10 = 0 THEN 3600000000 ELSE 0 END) AS ingested_at
        FROM range({events}) t(i)) TO '{folder}/lead_events.parquet' (ROW_GROUP_SIZE 122880)""")
    moment = "TIMESTAMPTZ '2026-01-01'"
    rows = f"SELECT lead_id AS entity_id, {moment} AS as_of FROM '{folder}/leads.parquet'"
    if spine:
        rows = f"""SELECT 'lead_' || (hash(i) % {leads})::BIGINT AS entity_id, TIMESTAMPTZ '{START}'
            + to_microseconds((hash(i * 77) % {YEAR})::BIGINT * 1000000 + i) AS as_of
            FROM range({spine}) t(i)"""
    connection.execute(f"COPY ({rows}) TO '{folder}/spine.parquet'")
    for table in SOURCE_TABLES:
        if not (folder / f"{table}.parquet").exists():
            connection.execute(f"COPY (SELECT 1 AS nothing) TO '{folder}/{table}.parquet'")


def leadml(folder: Path, memory: str) -> pd.DataFrame:
    paths = {table: folder / f"{table}.parquet" for table in SOURCE_TABLES}
    spine = pd.read_parquet(folder / "spine.parquet")
    with DuckDBEngine(
        paths, memory_limit=memory, temp_directory=folder / "spill", catalogue=Catalogue([VIEW])
    ) as engine:
        return engine.compute([VIEW], spine)


def by_hand(folder: Path, memory: str) -> pd.DataFrame:
    connection = duckdb.connect(
        config={"memory_limit": memory, "temp_directory": str(folder / "spill")}
    )
    connection.execute("SET TimeZone = 'UTC'")

    def within(days: int) -> str:
        return f"occurred_at > as_of - INTERVAL {24 * days} HOUR"

    columns = [
        f"count(CASE WHEN {name} = '{word}' AND {within(days)} THEN 1 END) AS {word}_count_{days}d"
        for choice in CHOICES
        for name, word in choice.items()
        for days in WINDOWS
    ]
    columns += [
        f"coalesce(sum(CASE WHEN {within(d)} THEN value END)::DOUBLE, 0) AS event_value_sum_{d}d"
        for d in WINDOWS
    ]
    columns += [
        f"(least(count(CASE WHEN event_type = '{of}' AND {within(30)} THEN 1 END), "
        f"count(CASE WHEN event_type = '{per}' AND {within(30)} THEN 1 END))::DOUBLE + 1.0::DOUBLE)"
        f" / (count(CASE WHEN event_type = '{per}' AND {within(30)} THEN 1 END)::DOUBLE"
        f" + 5.0::DOUBLE) AS {of}_ratio_30d"
        for of, per in RATIOS
    ]
    columns += [
        f"(epoch_us(as_of) - epoch_us(max(CASE WHEN direction = '{direction}' AND {within(days)} "
        f"THEN occurred_at END)))::DOUBLE / 86400000000::DOUBLE AS since_{direction}_{days}d"
        for direction in SINCE
        for days in (30, 90)
    ]
    spine = f"(SELECT entity_id, as_of::TIMESTAMP AS as_of FROM '{folder}/spine.parquet')"
    events = (
        "(SELECT lead_id, event_type, channel, direction, value, occurred_at::TIMESTAMP AS "
        f"occurred_at, ingested_at::TIMESTAMP AS known_at FROM '{folder}/lead_events.parquet')"
    )
    return connection.execute(f"""
        SELECT s.entity_id, s.as_of, {", ".join(columns)}
        FROM {spine} s LEFT JOIN {events} e ON e.lead_id = s.entity_id
            AND e.occurred_at <= s.as_of AND e.known_at <= s.as_of AND {within(90)}
        GROUP BY s.entity_id, s.as_of""").df()


def in_pandas(folder: Path, memory: str) -> pd.DataFrame:
    spine = pd.read_parquet(folder / "spine.parquet")
    events = pd.read_parquet(folder / "lead_events.parquet")
    pairs = spine.reset_index(names="row").merge(
        events, left_on="entity_id", right_on="lead_id", how="inner"
    )
    pairs = pairs[
        (pairs["occurred_at"] <= pairs["as_of"]) & (pairs["ingested_at"] <= pairs["as_of"])
    ]
    age = pairs["as_of"] - pairs["occurred_at"]
    inside = {days: age < pd.Timedelta(days=days) for days in WINDOWS}
    index = pd.RangeIndex(len(spine))

    def count(mask: pd.Series) -> pd.Series:
        return pairs[mask].groupby("row").size().reindex(index, fill_value=0)

    result = spine.copy()
    for choice in CHOICES:
        for name, word in choice.items():
            chosen = pairs[name] == word
            for days in WINDOWS:
                result[f"{word}_count_{days}d"] = count(chosen & inside[days])
    value = pairs["value"].astype(float)
    for days in WINDOWS:
        total = value[inside[days]].groupby(pairs["row"]).sum()
        result[f"event_value_sum_{days}d"] = total.reindex(index, fill_value=0.0)
    for of, per in RATIOS:
        part, whole = (count((pairs["event_type"] == kind) & inside[30]) for kind in (of, per))
        result[f"{of}_ratio_30d"] = (np.minimum(part, whole) + 1.0) / (whole + 5.0)
    for direction in SINCE:
        for days in (30, 90):
            chosen = (pairs["direction"] == direction) & inside[days]
            last = pairs[chosen].groupby("row")["occurred_at"].max().reindex(index)
            result[f"since_{direction}_{days}d"] = (
                (spine["as_of"] - last) // pd.Timedelta(microseconds=1) / 86_400_000_000
            )
    return result


CANDIDATES = {"leadml": leadml, "by hand": by_hand, "pandas": in_pandas}


def run(name: str, folder: Path, memory: str) -> dict[str, float | str]:
    """One candidate, in this process: seconds, peak memory in MB, and a hash of the values.

    LeadML compiles a statement once in the life of a process; that is shown by itself.
    """
    start = time.perf_counter()
    if name == "leadml":
        compile_views([VIEW], "duckdb", catalogue=Catalogue([VIEW]))
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    frame = CANDIDATES[name](folder, memory)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values = frame.sort_values(["entity_id", "as_of"])[[f.name for f in VIEW.features]]
    numbers = np.ascontiguousarray(values.astype("Float64").to_numpy(np.float64, na_value=np.nan))
    # pandas adds floats in another order: what is compared is nine digits.
    digest = pd.util.hash_array(np.round(numbers.ravel(), 9) + 0.0).sum()
    return {
        "seconds": seconds,
        "compiled": compiled,
        "peak": peak,
        "digest": str(digest),
        "rows": len(frame),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--spine", type=int, default=0, help="0: every lead as of one moment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--without-pandas", action="store_true")
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.candidate:
        print(json.dumps(run(given.candidate, given.folder, given.memory)))
        return
    names = [name for name in CANDIDATES if name != "pandas" or not given.without_pandas]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_data(folder, given.leads, given.events, given.spine)
        seen: dict[str, list[dict]] = {name: [] for name in names}
        for number in range(given.rounds):
            for name in names:
                if name == "pandas" and number:
                    continue
                command = [sys.executable, __file__, "--candidate", name, "--folder", text]
                done = subprocess.run(
                    [*command, "--memory", given.memory], capture_output=True, text=True, check=True
                )
                seen[name].append(json.loads(done.stdout))
    assert len({run["digest"] for runs in seen.values() for run in runs}) == 1, seen
    base = min(run["seconds"] for run in seen["leadml"])
    print(
        f"{len(VIEW.features)} features, {given.leads:,} leads, {given.events:,} events, "
        f"{seen['leadml'][0]['rows']:,} rows; DuckDB may hold {given.memory}; the statement was "
        f"compiled in {min(run['compiled'] for run in seen['leadml']):.2f} s"
    )
    print(f"{'':>8} {'seconds':>8} {'peak MB':>8} {'LeadML takes':>14}")
    for name, runs in seen.items():
        best = min(run["seconds"] for run in runs)
        peak = max(run["peak"] for run in runs)
        print(f"{name:>8} {best:>8.2f} {peak:>8,.0f} {base / best:>12.2f} x")


if __name__ == "__main__":
    main()
