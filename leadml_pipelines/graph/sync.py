"""Keep the property graph in step with the contract tables.

Only differences travel: a digest per node and edge tells what the graph was told before
(`ledger.py` says why a crash is harmless). Whether it still is the same graph is asked of the
graph itself: a marker node `(:LeadmlSync {graph_id, generation})` and the number of nodes and
edges of each kind. Where they disagree with the ledger (another graph, a wiped or restored one, a
restored database), everything is written again; nodes and edges that no table asks for are then
deleted from a graph that carries a marker, and left alone in one that LeadML never wrote to.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.graph.bolt import BATCH_ROWS, Bolt, open_graph
from leadml_pipelines.graph.ledger import Ledger, SyncState, open_ledger
from leadml_pipelines.graph.model import EDGE_KINDS, LEAD, NODE_KINDS, EdgeKind, NodeKind
from leadml_pipelines.graph.queries import read_open_graph
from leadml_pipelines.graph.rows import GraphRows, compare_rows, keys_of

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows to do in all."""


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did.

    Attributes:
        nodes: Nodes that the tables ask for.
        edges: Edges that the tables ask for.
        changed: Nodes and edges written or deleted now.
        seconds: How long it took.
        deleted: The deleted ones among `changed`.
        complete: Everything was written again, because the graph was new or not the one known.
    """

    nodes: int
    edges: int
    changed: int
    seconds: float
    deleted: int = 0
    complete: bool = False


def sync_graph(
    graph: tuple[str, str, str, str],
    postgres_url: str,
    tables: Mapping[str, Path],
    progress: Progress | None = None,
) -> SyncReport:
    """Bring the graph in step with an extract of the contract tables.

    Idempotent: repeated on the same tables it writes nothing. Interrupted, it is finished by the
    next call. Calls at the same time wait for each other.

    Args:
        graph: URI, user, password, database of the graph.
        postgres_url: Where the digests are kept (schema `leadml`, migrated).
        tables: Parquet files of `leads`, `agents`, `assignments`, `referrals` and, if there,
            `lead_versions` (memberships then have a history), in contract columns.
        progress: Called after each batch.

    Raises:
        GraphUnavailableError: the graph does not answer.
        GraphChangedError: somebody else deleted nodes while edges between them were written.
        MissingTableError: a table is missing.
    """
    started = time.monotonic()
    with open_ledger(postgres_url) as ledger, open_graph(graph) as bolt:
        _create_constraints(bolt)
        state = _known_state(bolt, ledger)
        complete = state is None
        if state is None:
            state = _restart(bolt, ledger)
        with compare_rows(tables, ledger.known()) as rows:
            counts = rows.counts()
            differences = rows.differences()
            if differences.num_rows:
                ledger.begin(differences)
                state = SyncState(state.graph_id, state.generation + 1)
                _mark(bolt, state)
                _write(bolt, ledger, rows, differences.num_rows, progress)
                ledger.advance(state)
    return SyncReport(
        nodes=sum(counts.get(kind.label, 0) for kind in NODE_KINDS),
        edges=sum(counts.get(kind.relation, 0) for kind in EDGE_KINDS),
        changed=differences.num_rows,
        seconds=time.monotonic() - started,
        deleted=differences.column("digest").null_count,
        complete=complete,
    )


def _create_constraints(bolt: Bolt) -> None:
    for kind in NODE_KINDS:
        bolt.change_schema(
            f"CREATE CONSTRAINT leadml_{kind.key} IF NOT EXISTS"
            f" FOR (n:{kind.label}) REQUIRE n.{kind.key} IS UNIQUE"
        )


def _known_state(bolt: Bolt, ledger: Ledger) -> SyncState | None:
    """The state to go on from, or None if the graph is not the one that the ledger is about."""
    state = ledger.state()
    marker = _marker(bolt)
    if state is None or marker is None or marker.graph_id != state.graph_id:
        return None
    # A run that died after marking the graph leaves the marker one ahead; more is a restored
    # database, less a restored graph.
    if marker.generation not in (state.generation, state.generation + 1):
        return None
    held = _held(bolt)
    if any(held[kind] < count for kind, count in ledger.counts().items()):
        return None
    return state


def _marker(bolt: Bolt) -> SyncState | None:
    markers = list(bolt.read("MATCH (m:LeadmlSync) RETURN m.graph_id, m.generation"))
    # Two markers are two graphs loaded into one: neither ledger describes that.
    return SyncState(markers[0][0], markers[0][1]) if len(markers) == 1 else None


def _held(bolt: Bolt) -> dict[str, int]:
    """Nodes and edges of each kind in the graph (Neo4j answers these from its count store)."""
    queries = {kind.label: f"MATCH (n:{kind.label}) RETURN count(n)" for kind in NODE_KINDS}
    queries |= {
        kind.relation: f"MATCH ()-[e:{kind.relation}]->() RETURN count(e)" for kind in EDGE_KINDS
    }
    return {name: int(next(iter(bolt.read(query)))[0]) for name, query in queries.items()}


def _restart(bolt: Bolt, ledger: Ledger) -> SyncState:
    """Take this graph as the one to mirror into, whatever it holds."""
    marked = int(next(iter(bolt.read("MATCH (m:LeadmlSync) RETURN count(m)")))[0]) > 0
    found = read_open_graph(bolt)
    keys = keys_of(found)
    state = SyncState(str(uuid.uuid4()), 0)
    # Without a marker nothing here is ours: nothing known means nothing is deleted.
    ledger.restart(state, keys if marked else keys.slice(0, 0))
    _mark(bolt, state)
    return state


def _mark(bolt: Bolt, state: SyncState) -> None:
    bolt.write(
        "MERGE (m:LeadmlSync {graph_id: $graph_id}) SET m.generation = $generation",
        graph_id=state.graph_id,
        generation=state.generation,
    )
    # Afterwards, so that at no moment the graph looks as if LeadML had never written to it.
    bolt.write(
        "MATCH (m:LeadmlSync) WHERE m.graph_id <> $graph_id DELETE m", graph_id=state.graph_id
    )


def _write(
    bolt: Bolt, ledger: Ledger, rows: GraphRows, total: int, progress: Progress | None
) -> None:
    done = 0

    def each(batches: Iterable[list[dict[str, Any]]]) -> Iterable[list[dict[str, Any]]]:
        nonlocal done
        for batch in batches:
            yield batch
            done += len(batch)
            if progress is not None:
                progress(done, total)

    # Edges go before the nodes they hang on, and come after them.
    for edge in EDGE_KINDS:
        for batch in each(rows.to_delete(edge, BATCH_ROWS)):
            bolt.write_rows(_delete_edges(edge), batch)
    for node in NODE_KINDS:
        for batch in each(rows.to_delete(node, BATCH_ROWS)):
            bolt.write_rows(_delete_nodes(node), batch)
        for batch in each(rows.to_write(node, BATCH_ROWS)):
            bolt.write_rows(_merge_nodes(node), batch)
        ledger.settle(node.label)
    for edge in EDGE_KINDS:
        for batch in each(rows.to_write(edge, BATCH_ROWS)):
            written = bolt.write_rows(_merge_edges(edge), batch)
            if written < len(batch):
                raise GraphChangedError(
                    f"{len(batch) - written} of {len(batch)} {edge.relation} edges found no node"
                    " to join: nodes written before are gone; run the synchronisation again"
                )
        ledger.settle(edge.relation)


def _merge_nodes(kind: NodeKind) -> str:
    born = f" SET n.{kind.born} = row.start" if kind.born else ""
    return (
        f"UNWIND $rows AS row MERGE (n:{kind.label} {{{kind.key}: row.source}}){born}"
        " RETURN count(n)"
    )


def _delete_nodes(kind: NodeKind) -> str:
    return (
        f"UNWIND $rows AS row MATCH (n:{kind.label}) WHERE n.{kind.key} = row.source"
        " DETACH DELETE n RETURN count(*)"
    )


def _ends(kind: EdgeKind) -> str:
    # Both ends by their unique key first: the edge is then looked up between two known nodes.
    return (
        f"UNWIND $rows AS row MATCH (a:{LEAD.label}) WHERE a.{LEAD.key} = row.source"
        f" MATCH (b:{kind.target.label}) WHERE b.{kind.target.key} = row.target"
    )


def _merge_edges(kind: EdgeKind) -> str:
    identity = f" {{{kind.start}: row.start}}" if kind.repeats else ""
    values = [] if kind.repeats else [f"e.{kind.start} = row.start"]
    values += [f"e.{kind.end} = row.finish"] if kind.end else []
    return (
        f"{_ends(kind)} MERGE (a)-[e:{kind.relation}{identity}]->(b)"
        f" SET {', '.join(values)} RETURN count(e)"
    )


def _delete_edges(kind: EdgeKind) -> str:
    which = f" WHERE e.{kind.start} = row.start" if kind.repeats else ""
    return f"{_ends(kind)} MATCH (a)-[e:{kind.relation}]->(b){which} DELETE e RETURN count(*)"


class GraphChangedError(UserError):
    """The graph lost nodes while it was being written."""
