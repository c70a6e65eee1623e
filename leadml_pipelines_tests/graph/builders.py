"""Small graphs and extracts, spelled in a few characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from leadml_pipelines.graph.model import EDGE_KINDS, NODE_KINDS, GraphData
from leadml_pipelines.graph.rows import compare_rows

START = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)
_TIME = pa.timestamp("us", "UTC")
_SCHEMAS = {
    "leads": {
        "lead_id": pa.string(),
        "created_at": _TIME,
        "campaign_id": pa.string(),
        "household_id": pa.string(),
    },
    "agents": {"agent_id": pa.string(), "hired_at": _TIME},
    "assignments": {
        "lead_id": pa.string(),
        "agent_id": pa.string(),
        "assigned_at": _TIME,
        "ended_at": _TIME,
    },
    "referrals": {"from_lead_id": pa.string(), "to_lead_id": pa.string(), "referred_at": _TIME},
    "lead_versions": {
        "lead_id": pa.string(),
        "valid_from": _TIME,
        "campaign_id": pa.string(),
        "household_id": pa.string(),
    },
}

Rows = Sequence[tuple[Any, ...]]


def at(days: float) -> datetime:
    """A moment some days after the start."""
    return START + timedelta(days=days)


def graph(nodes: Iterable[tuple[Any, ...]], edges: Iterable[tuple[Any, ...]] = ()) -> GraphData:
    """A graph from `(type, id, created)` and `(src, dst, relation, since, until)` tuples."""
    node_rows, edge_rows = list(nodes), list(edges)
    return GraphData(
        _frame(node_rows, {"entity_type": "str", "entity_id": "str", "created_at": "time"}),
        _frame(
            edge_rows,
            {"src": "str", "dst": "str", "relation": "str", "since": "time", "until": "time"},
        ),
    )


def _frame(rows: list[tuple[Any, ...]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Series(
                [row[place] for row in rows],
                dtype="str" if kind == "str" else "datetime64[us, UTC]",
            )
            for place, (name, kind) in enumerate(columns.items())
        }
    )


def policies(*rows: tuple[str, datetime | None]) -> pd.DataFrame:
    """Outcomes from `(lead, bound)` pairs."""
    return _frame(list(rows), {"lead_id": "str", "bound_at": "time"})


def shuffled(data: GraphData, seed: int) -> GraphData:
    """The same graph with its rows in another order."""
    random = np.random.default_rng(seed)
    return GraphData(
        data.nodes.iloc[random.permutation(len(data.nodes))].reset_index(drop=True),
        data.edges.iloc[random.permutation(len(data.edges))].reset_index(drop=True),
    )


def extract(folder: Path, **tables: Rows) -> dict[str, Path]:
    """Parquet files of the contract tables (columns as in `_SCHEMAS`; a table not given is empty).

    `lead_versions` is only written if given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, columns in _SCHEMAS.items():
        if name == "lead_versions" and name not in tables:
            continue
        rows = tables.get(name, [])
        schema = pa.schema(list(columns.items()))
        arrays = [pa.array([r[i] for r in rows], t) for i, t in enumerate(columns.values())]
        paths[name] = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), paths[name])
    return paths


def graph_of(tables: Mapping[str, Path]) -> GraphData:
    """The graph that an extract asks for, without a server in between."""
    text = ("kind", "key", "digest")
    nothing = pa.table({name: pa.array([], pa.string()) for name in text})
    with compare_rows(tables, nothing) as rows:
        nodes = [
            (kind.entity_type, row["source"], row["start"])
            for kind in NODE_KINDS
            for batch in rows.to_write(kind, 10_000)
            for row in batch
        ]
        edges = [
            (row["source"], row["target"], kind.relation, row["start"], row["finish"])
            for kind in EDGE_KINDS
            for batch in rows.to_write(kind, 10_000)
            for row in batch
        ]
    return graph(nodes, edges)


def as_sets(data: GraphData) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    """Nodes and edges as comparable tuples; a missing time is None."""

    def rows(frame: pd.DataFrame) -> set[tuple[Any, ...]]:
        return {
            tuple(None if pd.isna(v) else v for v in row) for row in frame.itertuples(index=False)
        }

    return rows(data.nodes), rows(data.edges)
