"""Source tables that may be relations of the customer's own: how they are told and read."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.contract import EXTRACT_TABLES, TABLES, Table

_PROFILE = ("source", "campaign_id", "product_interest", "state", "household_id", "attributes")


_KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}
"""PostgreSQL's relkind -> its name, for relations that have rows."""

REPEATED = "leadml_repeated"
OTHER_CONTENT = "leadml_other_content"
NO_LEAD = "leadml_no_lead"
"""Columns that `select_view` adds to those of the contract."""


@dataclass(frozen=True)
class Relations:
    """The source relations of a schema.

    Attributes:
        schema: Its name.
        kinds: Source table -> what it is, for example `table` or `view`.
        own: The source tables that our migration made, which only the door writes.
        recorded: Whether the history of the leads has to be recorded, for no trigger of ours does
            it: `lead_versions` is a table for us to write, not a view of the customer's.
        estimate: The planner's estimate of the rows in all; None where a view hides them.
    """

    schema: str
    kinds: dict[str, str]
    own: frozenset[str]
    recorded: bool
    estimate: int | None

    def judged(self, name: str) -> bool:
        """Whether the rows of a source table did not come through the door and must be judged.

        The history of leads is as good as the leads.
        """
        return name not in self.own or (name == "lead_versions" and "leads" not in self.own)

    @classmethod
    def read(cls, url: str, schema: str) -> Relations:
        """Look at the source tables of a schema.

        Raises:
            LookupError: one is missing, or lacks a column; the message says what to create.
        """
        with connect(url) as connection:
            kinds: dict[str, str] = {}
            own: set[str] = set()
            recorded = {"leads": False, "lead_versions": False}
            estimate: float | None = 0.0
            for name in EXTRACT_TABLES:
                oid = sql.Identifier(schema, name).as_string(connection)
                found = connection.execute(
                    "SELECT relkind, reltuples,"
                    " oid IN (SELECT relation FROM leadml.own_tables),"
                    " EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled <> 'D'"
                    " AND tgfoid = 'leadml.keep_lead_versions'::regproc),"
                    " relkind IN ('r', 'p') AND has_table_privilege(oid, 'INSERT')"
                    " FROM pg_class c WHERE oid = to_regclass(%s) AND relkind = ANY(%s)",
                    (oid, list(_KINDS)),
                ).fetchone()
                if found is None:
                    raise LookupError(
                        f"there is no table or view {schema}.{name}; create one with the "
                        f"contract's columns, or an empty one by CREATE TABLE {schema}.{name} "
                        f"(LIKE crm.{name} INCLUDING ALL)"
                    )
                kind, tuples, ours, triggered, writable = found
                kinds[name] = _KINDS[kind]
                if ours:
                    own.add(name)
                if name == "leads":
                    recorded[name] = not triggered
                elif name == "lead_versions":
                    recorded[name] = writable
                known = kind in ("r", "p") and tuples >= 0
                estimate = estimate + tuples if known and estimate is not None else None
                columns = {
                    row[0]
                    for row in connection.execute(
                        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)"
                        " AND attnum > 0 AND NOT attisdropped",
                        (oid,),
                    )
                }
                missing = [c for c in TABLES[name].names if c not in columns]
                if missing:
                    raise LookupError(
                        f"{schema}.{name} has no column {', '.join(missing)}; the contract's "
                        f"columns are {', '.join(TABLES[name].names)} (one that the data does not "
                        "have may be null where the contract allows it)"
                    )
        rows = None if estimate is None else int(estimate)
        return cls(schema, kinds, frozenset(own), all(recorded.values()), rows)


def record_lead_versions(url: str, relations: Relations) -> int:
    """Keep the history of leads that have no trigger of ours; return the new versions.

    What a lead is when it is seen first is taken for what it was from its creation on, as at the
    door. A change seen later counts from its `updated_at`, or from now if that did not move.
    A row whose times or attributes can't be read makes no version: it goes to the quarantine.
    Our own leads, and a history that the customer keeps in a view of their own, need none of this.
    """
    if not relations.recorded:
        return 0
    profile = sql.SQL(", ").join(map(sql.Identifier, _PROFILE))
    with connect(url) as connection:
        return connection.execute(
            sql.SQL(
                "WITH seen (lead_id, created_at, updated_at, {profile}) AS ("
                " SELECT DISTINCT ON (lead_id) lead_id::text, {created_at},"
                " coalesce({updated_at}, {created_at}), {contents} FROM {leads}"
                " WHERE lead_id IS NOT NULL AND source IS NOT NULL AND {created_at} IS NOT NULL"
                " AND (updated_at IS NULL OR {updated_at} IS NOT NULL)"
                " AND (attributes IS NULL OR {attributes} IS NOT NULL)"
                " ORDER BY lead_id, {updated_at} DESC NULLS LAST),"
                " known (lead_id, valid_from, {profile}) AS ("
                " SELECT DISTINCT ON (lead_id) lead_id::text, valid_from, {contents}"
                " FROM {versions} ORDER BY lead_id, valid_from DESC)"
                " INSERT INTO {versions} (lead_id, valid_from, {profile})"
                " SELECT s.lead_id, CASE WHEN k.lead_id IS NULL THEN s.created_at"
                " WHEN s.updated_at > k.valid_from THEN s.updated_at ELSE now() END, {new}"
                " FROM seen s LEFT JOIN known k USING (lead_id)"
                " WHERE k.lead_id IS NULL OR ({new}) IS DISTINCT FROM ({old})"
                " ON CONFLICT DO NOTHING"
            ).format(
                profile=profile,
                contents=sql.SQL(
                    "source::text, campaign_id::text, product_interest::text, state::text,"
                    " household_id::text, coalesce({}, '{{}}')"
                ).format(_readable("attributes", "jsonb")),
                attributes=_readable("attributes", "jsonb"),
                created_at=_readable("created_at", "timestamptz"),
                updated_at=_readable("updated_at", "timestamptz"),
                leads=sql.Identifier(relations.schema, "leads"),
                versions=sql.Identifier(relations.schema, "lead_versions"),
                new=sql.SQL(", ").join(sql.Identifier("s", name) for name in _PROFILE),
                old=sql.SQL(", ").join(sql.Identifier("k", name) for name in _PROFILE),
            )
        ).rowcount


def _readable(column: str, type_name: str) -> sql.Composed:
    # A plain cast would let one malformed value stop the whole statement.
    return sql.SQL(
        "CASE WHEN pg_input_is_valid({column}::text, {name}) THEN {column}::text::{type} END"
    ).format(
        column=sql.Identifier(column), name=sql.Literal(type_name), type=sql.Identifier(type_name)
    )


def select(schema: str, table: Table) -> str:
    """SQL for all rows of one of our own tables, in the contract's columns."""
    return (
        sql.SQL("SELECT {} FROM {}")
        .format(_columns(table), sql.Identifier(schema, table.name))
        .as_string(None)
    )


def select_view(schema: str, table: Table) -> str:
    """As `select`, with what only the database can tell of rows that are judged.

    `REPEATED`: the very same row came before. `OTHER_CONTENT`: the key came before, with other
    content; of several versions of a lead the newest comes first. `NO_LEAD`: the lead that the
    row names and that is not there, or null.
    """
    first = [table.version] if table.version else []
    order = [
        sql.SQL("{}::text DESC" if name in first else "{}::text").format(sql.Identifier(name))
        for name in [*first, *table.names]
    ]
    unknown: list[sql.Composable] = [
        sql.SQL(
            "CASE WHEN NOT EXISTS (SELECT FROM {leads} l WHERE l.lead_id::text ="
            " s.{column}::text) THEN s.{column}::text END"
        ).format(leads=sql.Identifier(schema, "leads"), column=sql.Identifier(column))
        for column in table.leads
    ]
    unknown.append(sql.SQL("NULL::text"))
    return (
        sql.SQL(
            "SELECT {columns}, coalesce({unknown}) AS {no_lead},"
            " rank() OVER w < row_number() OVER w AS {repeated},"
            " rank() OVER w > 1 AS {other} FROM {source} s"
            " WINDOW w AS (PARTITION BY {key} ORDER BY {order})"
        )
        .format(
            columns=_columns(table),
            unknown=sql.SQL(", ").join(unknown),
            no_lead=sql.Identifier(NO_LEAD),
            repeated=sql.Identifier(REPEATED),
            other=sql.Identifier(OTHER_CONTENT),
            source=sql.Identifier(schema, table.name),
            key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
            order=sql.SQL(", ").join(order),
        )
        .as_string(None)
    )


def _columns(table: Table) -> sql.Composed:
    # Numbers travel as text: the driver knows no decimals and hands over an opaque type.
    return sql.SQL(", ").join(
        sql.SQL("{c}::text AS {c}" if column.type in ("numeric", "json") else "{c}").format(
            c=sql.Identifier(column.name)
        )
        for column in table.columns
    )
