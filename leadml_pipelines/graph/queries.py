"""Read the graph back over Bolt, as frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from leadml_pipelines.graph.bolt import Bolt, open_graph, to_micros_utc
from leadml_pipelines.graph.model import EDGE_KINDS, LEAD, NODE_KINDS, EdgeKind, GraphData, NodeKind

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 50_000
"""Records held as Python objects at a time, before they become columns."""

Reader = Callable[[str], Iterable[Any]]


def read_graph(graph: tuple[str, str, str, str]) -> GraphData:
    """Read every lead, agent, household and campaign with the relationships between them.

    It reads a graph kept by `sync_graph`, or one that the customer owns, in the same shape: nodes
    without the key property are left out; a missing time is allowed (see `GraphData`).

    Args:
        graph: URI, user, password, database.

    Raises:
        GraphUnavailableError: the graph does not answer.
    """
    with open_graph(graph) as bolt:
        return read_open_graph(bolt)


def read_open_graph(bolt: Bolt) -> GraphData:
    """`read_graph` on a graph that is open already."""
    import pandas as pd

    nodes = [_read_nodes(bolt.read, kind) for kind in NODE_KINDS]
    edges = [_read_edges(bolt.read, kind) for kind in EDGE_KINDS]
    return GraphData(pd.concat(nodes, ignore_index=True), pd.concat(edges, ignore_index=True))


def _read_nodes(read: Reader, kind: NodeKind) -> pd.DataFrame:
    born = f"n.{kind.born}" if kind.born else "null"
    records = read(
        f"MATCH (n:{kind.label}) WHERE n.{kind.key} IS NOT NULL RETURN n.{kind.key}, {born}"
    )
    frame = _frame(records, texts=["entity_id"], times=["created_at"])
    frame.insert(0, "entity_type", _constant(kind.entity_type, len(frame)))
    return frame


def _read_edges(read: Reader, kind: EdgeKind) -> pd.DataFrame:
    end = f"e.{kind.end}" if kind.end else "null"
    source, target = f"a.{LEAD.key}", f"b.{kind.target.key}"
    records = read(
        f"MATCH (a:{LEAD.label})-[e:{kind.relation}]->(b:{kind.target.label})"
        f" WHERE {source} IS NOT NULL AND {target} IS NOT NULL"
        f" RETURN {source}, {target}, e.{kind.start}, {end}"
    )
    frame = _frame(records, texts=["src", "dst"], times=["since", "until"])
    frame.insert(2, "relation", _constant(kind.relation, len(frame)))
    return frame


def _frame(records: Iterable[Any], texts: list[str], times: list[str]) -> pd.DataFrame:
    """Columns from records, in chunks, so that few Python objects live at a time."""
    import pyarrow as pa

    types = [pa.string()] * len(texts) + [pa.timestamp("us", "UTC")] * len(times)
    schema = pa.schema(list(zip([*texts, *times], types, strict=True)))
    chunks: list[pa.RecordBatch] = []
    columns: list[list[Any]] = [[] for _ in schema]

    def flush() -> None:
        chunks.append(
            pa.record_batch(
                [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
            )
        )
        for column in columns:
            column.clear()

    for record in records:
        for position, value in enumerate(record):
            is_text = position < len(texts)
            columns[position].append(str(value) if is_text else to_micros_utc(value))
        if len(columns[0]) >= CHUNK_ROWS:
            flush()
    flush()
    frame: pd.DataFrame = pa.Table.from_batches(chunks, schema=schema).to_pandas()
    return frame


def _constant(value: str, rows: int) -> pd.Series:
    import pandas as pd

    return pd.Series([value], dtype="str").repeat(rows).reset_index(drop=True)
