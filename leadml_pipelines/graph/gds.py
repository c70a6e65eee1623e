"""Metrics of a graph that is too large to pull, asked of Neo4j's Graph Data Science library.

The server projects what is alive at the moment into its own memory and computes there; one row per
lead and agent travels. The values mean the same as those of `graph.metrics`, in columns of the same
names: `docs/neo4j.md` says which are equal, which are close, and what only igraph's side has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from leadml_pipelines.errors import UserError
from leadml_pipelines.graph import metrics
from leadml_pipelines.graph.bolt import Bolt, open_graph
from leadml_pipelines.graph.model import (
    AGENT,
    ASSIGNED_TO,
    EDGE_KINDS,
    HOUSEHOLD,
    LEAD,
    MEMBER_OF,
    NODE_KINDS,
    REFERRED,
    EdgeKind,
    NodeKind,
)
from leadml_pipelines.graph.moments import begun, holds, moment_parameters
from leadml_pipelines.graph.queries import read_open_graph
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

LARGEST_PULL = 10_000_000
"""Nodes and relationships up to which a graph is pulled and measured by igraph."""

EXACT_WORK = 10_000_000_000
"""Nodes times ties up to which betweenness and closeness start a search from every node."""

PIVOTS = 256
"""Nodes from which betweenness starts its searches in larger graphs."""

NOT_ASKED = (
    "community_conversion_rate",
    "referral_depth",
    "referral_descendants",
    "household_conversions",
    "agent_conversion_rate",
)
"""Columns of igraph's side that need outcomes or chains of referrals."""

COLUMNS = tuple(name for name in metrics.COLUMNS if name not in NOT_ASKED)
"""Of the frame; only `closeness` can be missing, in a graph above `EXACT_WORK`."""

Engine = Literal["auto", "igraph", "gds"]

_COMPUTED = ("pagerank", "betweenness", "closeness", "clustering", "core", "group")


class NoGdsError(UserError):
    """The graph's server has no Graph Data Science library."""


def measure_graph(
    graph: tuple[str, str, str, str],
    as_of: datetime,
    *,
    outcomes: pd.DataFrame | None = None,
    seed: int = 7,
    engine: Engine = "auto",
    largest_pull: int = LARGEST_PULL,
) -> pd.DataFrame:
    """The metrics of a graph as of a moment, by whatever can compute them.

    Args:
        graph: URI, user, password, database.
        as_of: The moment, timezone-aware.
        outcomes: As in `metrics_as_of`; GDS measures nothing that depends on them.
        seed: Seed of everything random.
        engine: `auto`: igraph, or GDS where there is one and the graph is larger than
            `largest_pull`.
        largest_pull: Nodes and relationships.

    Returns:
        The frame of `metrics.metrics_as_of`, or that of `gds_metrics_as_of`.

    Raises:
        GraphUnavailableError: the graph does not answer.
        NoGdsError: `engine` is `gds`, and the server has none.
    """
    as_of = require_utc(as_of, "as_of")
    with open_graph(graph) as bolt:
        if picks_gds(bolt, engine, largest_pull):
            return gds_metrics_as_of(bolt, as_of, seed=seed)
        data = read_open_graph(bolt)
    return metrics.metrics_as_of(data, as_of, outcomes=outcomes, seed=seed)


def picks_gds(bolt: Bolt, engine: Engine = "auto", largest_pull: int = LARGEST_PULL) -> bool:
    """Whether GDS is to measure this graph.

    Raises:
        NoGdsError: `engine` is `gds`, and the server has none.
    """
    if engine == "gds" and not has_gds(bolt):
        raise NoGdsError(
            "the graph's server has no Graph Data Science library (no function gds.version); "
            "install its plugin in Neo4j, or let igraph measure the graph"
        )
    return engine == "gds" or (engine == "auto" and _size(bolt) > largest_pull and has_gds(bolt))


def has_gds(bolt: Bolt) -> bool:
    """Whether the server has the Graph Data Science library."""
    found = bolt.read("SHOW FUNCTIONS YIELD name WHERE name = 'gds.version' RETURN count(*)")
    return bool(next(found)[0])


def gds_metrics_as_of(
    bolt: Bolt, as_of: datetime, *, seed: int = 7, exact_work: int = EXACT_WORK
) -> pd.DataFrame:
    """The metrics of every lead and agent that exists as of a moment, computed by the server.

    Args:
        bolt: An open graph of which `has_gds` is true, with unique keys.
        as_of: The moment, timezone-aware.
        seed: Seed of the community search and of the sample in large graphs.
        exact_work: Up to which size every node starts a search, see `EXACT_WORK`.

    Returns:
        One row per lead and agent, ordered by type (leads first) and id, with `COLUMNS`: text
        `entity_type`, `entity_id`, `community`; `as_of` in UTC microseconds; float64 `pagerank`,
        `betweenness`, `closeness`, `clustering`, `community_share`; int32 the rest.
    """
    import pandas as pd

    as_of = require_utc(as_of, "as_of")
    moment = moment_parameters(as_of)
    with _projection(bolt, moment) as (name, nodes, ties):
        exact = nodes * ties <= exact_work
        pivots = nodes if exact else min(PIVOTS, nodes)
        rows: list[tuple[Any, ...]] = []
        if nodes:
            _compute(bolt, name, _calls(seed, pivots, exact=exact, tied=ties > 0))
            records = bolt.read(_STREAM, graph=name, computed=list(_COMPUTED), **moment)
            rows = [(kind, key, *values, *counts) for kind, key, values, counts in records]
    found = pd.DataFrame(rows, columns=["entity_type", "entity_id", *_COMPUTED, *_COUNTS])
    # Of one node alone the server makes 0 / 0.
    found["closeness"] = found["closeness"].fillna(0.0) if exact else float("nan")
    # The server counts each pair once, and only the paths that its searches met.
    pairs = max((nodes - 1) * (nodes - 2), 1) / 2
    found["betweenness"] *= max(nodes, 1) / max(pivots, 1) / pairs
    return _frame(found, as_of, nodes)


def _size(bolt: Bolt) -> int:
    statements = [f"MATCH (n:{kind.label}) RETURN count(n)" for kind in NODE_KINDS]
    statements += [f"MATCH ()-[e:{kind.relation}]->() RETURN count(e)" for kind in EDGE_KINDS]
    return sum(int(next(bolt.read(statement))[0]) for statement in statements)


@contextmanager
def _projection(bolt: Bolt, moment: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """The ties of a moment in the server's memory: the graph's name there, its nodes and ties."""
    name = f"leadml-{secrets.token_hex(8)}"
    try:
        nodes, relationships = next(bolt.read(_PROJECT, graph=name, **moment))
        # Of an empty graph there is no projection; a tie is a relationship in each direction.
        yield name, nodes or 0, (relationships or 0) // 2
    finally:
        list(bolt.read("CALL gds.graph.drop($graph, false) YIELD graphName", graph=name))


def _calls(
    seed: int, pivots: int, *, exact: bool, tied: bool
) -> dict[str, tuple[str, dict[str, Any]]]:
    """What the server is to compute: the procedure and its options by name of the metric."""
    pagerank = {"dampingFactor": 0.85, "maxIterations": 200, "tolerance": 1e-10}
    return {
        # L1: scores that sum to 1, those of a walker who jumps anywhere where no tie leads on.
        "pagerank": ("pageRank", pagerank | {"scaler": "L1Norm"}),
        "betweenness": ("betweenness", {"samplingSize": pivots, "samplingSeed": seed}),
        # A search from every node is too much for a large graph; something must be there to read.
        "closeness": ("closeness.harmonic" if exact else "degree", {}),
        "clustering": ("localClusteringCoefficient", {}),
        "core": ("kcore", {}),
        # Only one thread finds the same communities again. Leiden fails where nobody is tied.
        "group": ("leiden", {"randomSeed": seed, "concurrency": 1}) if tied else ("wcc", {}),
    }


def _compute(bolt: Bolt, name: str, calls: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Let the server compute, and keep the values with its nodes."""
    for metric, (procedure, options) in calls.items():
        statement = f"CALL gds.{procedure}.mutate($graph, $options) YIELD mutateMillis"
        list(bolt.read(statement, graph=name, options=options | {"mutateProperty": metric}))


def _frame(found: pd.DataFrame, as_of: datetime, nodes: int) -> pd.DataFrame:
    import pandas as pd

    found["entity_type"] = found["entity_type"].astype("str")
    found["entity_id"] = found["entity_id"].astype("str")
    found["is_agent"] = found["entity_type"] != LEAD.entity_type
    found = found.sort_values(["is_agent", "entity_id"], ignore_index=True)
    groups = found.groupby("group")
    # Leads come first, ascending: the first one met in a community is its smallest.
    first = groups["entity_id"].transform("first")
    kinds = groups["entity_type"].transform("first")
    moment = pd.Timestamp(as_of).as_unit("us")
    found = found.assign(
        as_of=pd.Series(moment, index=found.index, dtype="datetime64[us, UTC]"),
        degree=found[["assignments", "made", "received", "memberships"]].sum(axis=1),
        degree_referral=found["made"] + found["received"],
        degree_referral_made=found["made"],
        degree_referral_received=found["received"],
        degree_household=found["fellows"],
        degree_assignment=found["assignments"],
        community=(kinds + ":" + first).astype("str"),
        community_size=groups["entity_id"].transform("size"),
        household_size=(found["fellows"] + 1).where(found["memberships"] > 0, 0),
        agent_load=found["load"],
        nodes=nodes,
    )
    found["community_share"] = found["community_size"] / max(len(found), 1)
    shares = {"pagerank", "betweenness", "closeness", "clustering", "community_share"}
    numbers = [name for name in COLUMNS[3:] if name != "community"]
    types = {name: "float64" if name in shares else "int32" for name in numbers}
    return found[list(COLUMNS)].astype(types)


def _may_exist(kind: NodeKind, node: str) -> str:
    """The condition that nothing says that a node came after the moment."""
    known = f"{node}.{kind.key} IS NOT NULL"
    return f"{known} AND {begun(f'{node}.{kind.born}')}" if kind.born else known


def _exists(kind: NodeKind, node: str) -> str:
    """The condition that a node exists: born by the moment, or else told of by a relationship."""
    # One pattern for all relations: each more would cost the server another plan.
    starts = ", ".join(sorted({f"x.{edge.start}" for edge in EDGE_KINDS}))
    births = ", ".join(f"o.{other.born}" for other in NODE_KINDS if other.born)
    keys = ", ".join(f"o.{other.key}" for other in NODE_KINDS)
    told = (
        f"EXISTS {{ MATCH ({node})-[x:{'|'.join(edge.relation for edge in EDGE_KINDS)}]-(o)"
        f" WHERE o <> {node} AND coalesce({keys}) IS NOT NULL"
        f" AND coalesce({starts}) IS NOT NULL AND {begun(f'coalesce({starts})')}"
        f" AND {begun(f'coalesce({births})')} }}"
    )
    unborn = f"{node}.{kind.born} IS NOT NULL OR " if kind.born else ""
    return f"{_may_exist(kind, node)} AND ({unborn}{told})"


def _alive(kind: EdgeKind, edge: str, source: str, target: str) -> str:
    """The condition that a relationship holds between two nodes that exist.

    Where its start is known, that tells of both, unless they were born later.
    """
    ends = ((LEAD, source), (kind.target, target))
    both = " AND ".join(_may_exist(end, node) for end, node in ends)
    told = " AND ".join(_exists(end, node) for end, node in ends)
    dated = f"{edge}.{kind.start} IS NOT NULL"
    return f"{source} <> {target} AND {holds(kind, edge)} AND {both} AND ({dated} OR ({told}))"


def _edges(kind: EdgeKind) -> str:
    return (
        f"MATCH (a:{LEAD.label})-[e:{kind.relation}]->(b:{kind.target.label})"
        f" WHERE {_alive(kind, 'e', 'a', 'b')}"
    )


def _project() -> str:
    """Nodes, and each pair that is joined once: the ties of `graph.ties`."""
    parts = [
        f"MATCH (n:{kind.label}) WHERE {_exists(kind, 'n')} RETURN n AS source, null AS target"
        for kind in (LEAD, AGENT, HOUSEHOLD)
    ]
    parts += [
        f"{_edges(kind)} WITH DISTINCT a, b RETURN a AS source, b AS target"
        for kind in (ASSIGNED_TO, MEMBER_OF)
    ]
    parts.append(
        f"{_edges(REFERRED)}"
        " WITH DISTINCT CASE WHEN elementId(a) < elementId(b) THEN [a, b] ELSE [b, a] END AS pair"
        " RETURN pair[0] AS source, pair[1] AS target"
    )
    return (
        f"CALL () {{ {' UNION ALL '.join(parts)} }}"
        " WITH gds.graph.project($graph, source, target, {},"
        " {undirectedRelationshipTypes: ['*']}) AS g"
        " RETURN g.nodeCount, g.relationshipCount"
    )


def _made(kind: EdgeKind) -> str:
    """How many relationships of a kind begin at `n`."""
    pattern = f"(n)-[e:{kind.relation}]->(b:{kind.target.label})"
    return f"COUNT {{ MATCH {pattern} WHERE {_alive(kind, 'e', 'n', 'b')} }}"


def _received(kind: EdgeKind, each: str = "e") -> str:
    """How many relationships `e` of a kind end at `n`, or from how many leads `a` they come."""
    pattern = f"(a:{LEAD.label})-[e:{kind.relation}]->(n)"
    return f"COUNT {{ MATCH {pattern} WHERE {_alive(kind, 'e', 'a', 'n')} RETURN DISTINCT {each} }}"


_FELLOWS = (
    f"COUNT {{ MATCH (n)-[e:{MEMBER_OF.relation}]->(h:{HOUSEHOLD.label})"
    f"<-[f:{MEMBER_OF.relation}]-(m:{LEAD.label}) WHERE m <> n"
    f" AND {_alive(MEMBER_OF, 'e', 'n', 'h')} AND {_alive(MEMBER_OF, 'f', 'm', 'h')}"
    " RETURN DISTINCT h, m }"
)

# Of a lead, of an agent.
_COUNTS = {
    "assignments": (_made(ASSIGNED_TO), _received(ASSIGNED_TO)),
    "made": (_made(REFERRED), "0"),
    "received": (_received(REFERRED), "0"),
    "memberships": (_made(MEMBER_OF), "0"),
    "fellows": (_FELLOWS, "0"),
    "load": ("0", _received(ASSIGNED_TO, "a")),
}

_PROJECT = _project()

_STREAM = " UNION ALL ".join(
    "CALL gds.graph.nodeProperty.stream($graph, $computed[0]) YIELD nodeId"
    f" WITH nodeId, gds.util.asNode(nodeId) AS n WHERE n:{kind.label}"
    f" RETURN '{kind.entity_type}' AS kind, n.{kind.key} AS key,"
    " [p IN $computed | gds.util.nodeProperty($graph, nodeId, p)] AS computed,"
    f" [{', '.join(counts[place] for counts in _COUNTS.values())}] AS counts"
    for place, kind in enumerate((LEAD, AGENT))
)
