"""The nodes and edges that the contract tables ask for, and how they differ from what is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.graph.model import (
    AGENT,
    ASSIGNED_TO,
    CAME_FROM,
    CAMPAIGN,
    EDGE_KINDS,
    HOUSEHOLD,
    LEAD,
    MEMBER_OF,
    REFERRED,
    EdgeKind,
    GraphData,
    NodeKind,
)
from leadml_pipelines.times import from_micros

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

REQUIRED_TABLES = ("leads", "agents", "assignments", "referrals")
VERSIONS_TABLE = "lead_versions"

# Every node and edge is one row: kind, source, target (edges only), start, finish. Times travel as
# microseconds since 1970, which no engine and no session time zone can bend.
_NODES_AND_EDGES = f"""
CREATE TEMP TABLE versions AS
    SELECT lead_id, household_id, campaign_id, valid_from FROM given_versions
    UNION ALL
    -- Without a history a lead has always been as it is now.
    SELECT lead_id, household_id, campaign_id, created_at FROM leads
    WHERE lead_id NOT IN (SELECT lead_id FROM given_versions);
CREATE TEMP TABLE runs AS
    -- How long each lead belonged to a household or campaign: its versions, neighbours of equal
    -- value taken together.
    WITH marked AS (
        SELECT lead_id, member, valid_from, relation,
            lag(member) OVER (PARTITION BY relation, lead_id ORDER BY valid_from)
                IS NOT DISTINCT FROM member AS repeated
        FROM (
            SELECT lead_id, household_id AS member, valid_from, '{MEMBER_OF.relation}' AS relation
            FROM versions
            UNION ALL
            SELECT lead_id, campaign_id, valid_from, '{CAME_FROM.relation}' FROM versions
        )
    )
    SELECT lead_id, member, relation, epoch_us(valid_from) AS start,
        epoch_us(lead(valid_from) OVER (PARTITION BY relation, lead_id ORDER BY valid_from))
            AS finish
    FROM marked WHERE NOT repeated OR member IS NULL;
CREATE TEMP TABLE wanted_rows AS
    SELECT '{LEAD.label}' AS kind, lead_id AS source, NULL::VARCHAR AS target,
        epoch_us(created_at) AS start, NULL::BIGINT AS finish
    FROM leads
    UNION ALL
    SELECT '{AGENT.label}', agent_id, NULL, epoch_us(max(hired_at)), NULL
    FROM (
        SELECT agent_id, hired_at FROM agents
        UNION ALL
        -- An agent whom the agents table does not list still exists.
        SELECT agent_id, NULL FROM assignments
    ) GROUP BY agent_id
    UNION ALL
    SELECT DISTINCT CASE relation WHEN '{MEMBER_OF.relation}' THEN '{HOUSEHOLD.label}'
        ELSE '{CAMPAIGN.label}' END, member, NULL, NULL::BIGINT, NULL::BIGINT
    FROM runs SEMI JOIN leads USING (lead_id) WHERE member IS NOT NULL
    UNION ALL
    SELECT '{ASSIGNED_TO.relation}', lead_id, agent_id, epoch_us(assigned_at), epoch_us(ended_at)
    FROM assignments SEMI JOIN leads USING (lead_id)
    UNION ALL
    SELECT '{REFERRED.relation}', from_lead_id, to_lead_id, epoch_us(referred_at), NULL
    FROM referrals
    WHERE from_lead_id IN (SELECT lead_id FROM leads) AND to_lead_id IN (SELECT lead_id FROM leads)
    UNION ALL
    SELECT relation, lead_id, member, start, finish
    FROM runs SEMI JOIN leads USING (lead_id)
    WHERE member IS NOT NULL AND relation = '{MEMBER_OF.relation}'
    UNION ALL
    -- A lead came from one campaign: a correction replaces the earlier one. It holds from the
    -- correction on, so no metric may count it (graph/metrics.py).
    SELECT relation, lead_id, member, start, NULL
    FROM runs SEMI JOIN leads USING (lead_id)
    WHERE member IS NOT NULL AND finish IS NULL AND relation = '{CAME_FROM.relation}';
"""  # noqa: S608

_REPEATS = ", ".join(f"'{kind.relation}'" for kind in EDGE_KINDS if kind.repeats)

# The key is what MERGE matches: the id of a node, both ids of an edge, and the start where two
# nodes may be joined more than once. A JSON list keeps any id apart from any other.
_KEYED = f"""
    SELECT *, CAST(to_json(CASE
        WHEN target IS NULL THEN [source]
        WHEN kind IN ({_REPEATS}) THEN [source, target, start::VARCHAR]
        ELSE [source, target] END) AS VARCHAR) AS key
"""


class GraphRows:
    """Wanted nodes and edges beside the known ones; made by `compare_rows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def counts(self) -> dict[str, int]:
        """Wanted rows of each kind."""
        rows = self._connection.sql("SELECT kind, count(*) FROM wanted GROUP BY kind").fetchall()
        return {str(kind): int(count) for kind, count in rows}

    def differences(self) -> pa.Table:
        """Keys to write or delete: `kind`, `key`, `digest` (null to delete)."""
        table: pa.Table = self._connection.sql("""
            SELECT kind, key, wanted.digest AS digest
            FROM wanted FULL JOIN known USING (kind, key)
            WHERE wanted.digest IS DISTINCT FROM known.digest OR wanted.key IS NULL
        """).to_arrow_table()
        return table

    def to_write(self, kind: NodeKind | EdgeKind, rows: int) -> Iterator[list[dict[str, Any]]]:
        """Batches of at most `rows` nodes or edges to write, as parameters for Cypher."""
        return self._batches("differs.digest IS NOT NULL", kind, rows)

    def to_delete(self, kind: NodeKind | EdgeKind, rows: int) -> Iterator[list[dict[str, Any]]]:
        """Batches of at most `rows` keys to delete, in the same form (without the end)."""
        return self._batches("differs.digest IS NULL", kind, rows)

    def _batches(
        self, which: str, kind: NodeKind | EdgeKind, rows: int
    ) -> Iterator[list[dict[str, Any]]]:
        name = kind.label if isinstance(kind, NodeKind) else kind.relation
        relation = self._connection.sql(
            f"""
            SELECT json_extract_string(key, '$[0]') AS source,
                json_extract_string(key, '$[1]') AS target,
                -- A deleted edge is no longer wanted: its start is in the key, where it matters.
                coalesce(wanted.start, json_extract_string(key, '$[2]')::BIGINT) AS start,
                wanted.finish AS finish
            FROM differs LEFT JOIN wanted USING (kind, key)
            WHERE kind = $kind AND {which}
            ORDER BY key
            """,  # noqa: S608
            params={"kind": name},
        )
        for batch in relation.to_arrow_reader(rows):
            yield [
                row | {"start": _moment(row["start"]), "finish": _moment(row["finish"])}
                for row in batch.to_pylist()
            ]

    def freeze(self, differences: pa.Table) -> None:
        """Fix the differences that `to_write` and `to_delete` answer from."""
        self._connection.register("differences", differences)
        self._connection.execute("CREATE OR REPLACE TEMP TABLE differs AS FROM differences")
        self._connection.unregister("differences")


def _moment(micros: int | None) -> datetime | None:
    # Always the same zone: Neo4j holds that equal moments of different zones are not equal.
    return None if micros is None else from_micros(micros)


@contextmanager
def compare_rows(tables: Mapping[str, Path], known: pa.Table) -> Iterator[GraphRows]:
    """Read the extract and set it beside what is known to be in the graph.

    Edges whose lead is not in `leads` are left out; where `lead_versions` is given, memberships
    follow it (with an end), else they hold as the lead is now, since it was created.

    Args:
        tables: Parquet files of `leads`, `agents`, `assignments`, `referrals` and, optionally,
            `lead_versions`, in contract columns.
        known: `kind`, `key`, `digest` (null: not known what the graph holds).

    Raises:
        MissingTableError: a table is missing.
    """
    import duckdb

    missing = [name for name in REQUIRED_TABLES if name not in tables]
    if missing:
        raise MissingTableError(
            f"the graph needs the extract of {', '.join(missing)}; extract them first"
        )
    # Two threads are plenty for keys and digests, and leave the machine to the graph server.
    with duckdb.connect(config={"threads": 2}) as connection:
        for name in REQUIRED_TABLES:
            connection.read_parquet(str(tables[name])).create_view(name)
        if VERSIONS_TABLE in tables:
            versions = connection.read_parquet(str(tables[VERSIONS_TABLE]))
        else:
            versions = connection.sql("SELECT *, created_at AS valid_from FROM leads LIMIT 0")
        versions.create_view("given_versions")
        connection.execute(_NODES_AND_EDGES)
        connection.execute(
            f"""
            CREATE TEMP TABLE wanted AS
            SELECT *, md5(CAST(to_json([start, finish]) AS VARCHAR)) AS digest
            FROM ({_KEYED} FROM wanted_rows)
            -- A key that the source repeats is one node or edge all the same.
            QUALIFY row_number() OVER (PARTITION BY kind, key ORDER BY start, finish) = 1
            """  # noqa: S608
        )
        connection.register("known_rows", known)
        connection.execute("CREATE TEMP TABLE known AS FROM known_rows")
        connection.unregister("known_rows")
        rows = GraphRows(connection)
        rows.freeze(rows.differences())
        yield rows


def keys_of(data: GraphData) -> pa.Table:
    """The keys of a graph that was read, as `known` rows without a digest.

    They are what a graph of unknown content holds: each is then either written or deleted.
    """
    import duckdb

    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("nodes", data.nodes)
        connection.register("edges", data.edges)
        labels = " ".join(
            f"WHEN '{kind.entity_type}' THEN '{kind.label}'"
            for kind in (LEAD, AGENT, HOUSEHOLD, CAMPAIGN)
        )
        table: pa.Table = connection.sql(
            f"""
            SELECT DISTINCT kind, key, NULL::VARCHAR AS digest FROM ({_KEYED} FROM (
                SELECT CASE entity_type {labels} END AS kind, entity_id AS source,
                    NULL::VARCHAR AS target, NULL::BIGINT AS start
                FROM nodes
                UNION ALL
                SELECT relation, src, dst, epoch_us(since) FROM edges
            ))
            """  # noqa: S608
        ).to_arrow_table()
        return table


class MissingTableError(UserError):
    """The extract lacks a table that the graph is made of."""
