"""The SQL of the door: stage a checked batch, merge it, tell what became of each row.

The outcome of a row is decided by comparing it with what the table holds *after* the insert: two
writers that bring the same rows at the same time get the same answer as one after the other.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from psycopg import sql

from leadml_pipelines.sources.contract import Column, Table
from leadml_pipelines.sources.faults import DUPLICATE_KEY, UNKNOWN_LEAD, Faults
from leadml_pipelines.sources.late_versions import enter_late_versions

if TYPE_CHECKING:
    import pandas as pd
    import psycopg

_PG_TYPES = {
    "text": "text",
    "timestamp": "timestamptz",
    "numeric": "numeric",
    "integer": "integer",
    "json": "jsonb",
}


class Merge:
    """One batch on its way into one table, inside the caller's transaction.

    Attributes:
        accepted: Positions of rows that changed the table, or the history of the leads.
        faults: Of rows that the table refuses: an unknown lead, a key with other content.
    """

    def __init__(self, connection: psycopg.Connection[Any], contract: Table, schema: str) -> None:
        self._connection = connection
        self._contract = contract
        self._schema = schema
        self._target = sql.Identifier(schema, contract.name)
        self.accepted: set[int] = set()
        self.faults = Faults()

    def run(self, good: pd.DataFrame) -> None:
        """Stage and merge; `good` is what `validate` let through, its index the row's position."""
        self._stage(good)
        for column in self._contract.leads:
            self._refuse_unknown_leads(column)
        self._insert()
        if len(self.accepted) + len(self.faults) == len(good):
            return  # all new: nothing there to compare with
        if self._contract.version:
            self._update_versions(self._contract.version)
        elif self._contract.fills:
            self._fill()
        self._refuse_other_content()

    def _stage(self, good: pd.DataFrame) -> None:
        import pyarrow as pa
        import pyarrow.csv as csv

        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(_PG_TYPES[c.type]))
            for c in self._contract.columns
        )
        self._execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.staged"))
        self._execute(
            sql.SQL("CREATE TEMP TABLE staged (n integer, {}) ON COMMIT DROP").format(columns)
        )
        table = pa.Table.from_pandas(good, preserve_index=False)
        table = table.add_column(0, "n", pa.array(good.index, pa.int64()))
        buffer = io.BytesIO()
        csv.write_csv(table, buffer, csv.WriteOptions(include_header=False))
        with (
            self._connection.cursor() as cursor,
            cursor.copy("COPY pg_temp.staged FROM STDIN (FORMAT csv)") as copy,
        ):
            copy.write(buffer.getbuffer())
        self._execute(sql.SQL("ANALYZE pg_temp.staged"))

    def _refuse_unknown_leads(self, column: str) -> None:
        gone = self._execute(
            sql.SQL(
                "DELETE FROM pg_temp.staged s WHERE NOT EXISTS"
                " (SELECT FROM {leads} l WHERE l.lead_id = s.{column}) RETURNING s.n, s.{column}"
            ).format(leads=sql.Identifier(self._schema, "leads"), column=sql.Identifier(column))
        )
        for position, lead_id in gone.fetchall():
            self.faults.add(
                position, UNKNOWN_LEAD, f"{column} is {lead_id!r}; there is no such lead"
            )

    def _insert(self) -> None:
        # In the order of the key, so that two writers of the same keys wait instead of deadlock.
        inserted = self._execute(
            sql.SQL(
                "WITH first AS (SELECT DISTINCT ON ({order}) * FROM pg_temp.staged"
                " ORDER BY {order}, {version} n), done AS"
                " (INSERT INTO {target} ({columns}) SELECT {columns} FROM first ORDER BY {order}"
                " ON CONFLICT DO NOTHING RETURNING {key})"
                " SELECT n FROM first JOIN done USING ({key})"
            ).format(
                key=self._list(self._contract.key),
                order=sql.SQL(", ").join(map(self._bytewise, self._contract.key)),
                version=sql.SQL("{},").format(sql.Identifier(self._contract.version))
                if self._contract.version
                else sql.SQL(""),
                target=self._target,
                columns=self._list(self._contract.names),
            )
        )
        self._accept(inserted.fetchall())

    def _bytewise(self, name: str) -> sql.Composed:
        # Any order will do, and that of the bytes is several times cheaper than a language's.
        text = self._contract.column(name).type == "text"
        return sql.SQL('{} COLLATE "C"' if text else "{}").format(sql.Identifier(name))

    def _update_versions(self, version: str) -> None:
        """A newer version replaces an older one; the others go into the history."""
        other = [name for name in self._contract.names if name not in self._contract.key]
        # The locks come first: what is newer is not what was newer before another writer was done.
        self._execute(
            sql.SQL(
                "SELECT FROM {target} t JOIN (SELECT DISTINCT {key}, {version} FROM pg_temp.staged)"
                " s USING ({key}) WHERE s.{version} <> t.{version} ORDER BY {key} FOR UPDATE OF t"
            ).format(
                target=self._target,
                key=self._list(self._contract.key),
                version=sql.Identifier(version),
            )
        )
        self._accept(enter_late_versions(self._connection, self._schema))
        newer = sql.SQL(
            "SELECT DISTINCT ON ({key}, s.{version}) s.* FROM pg_temp.staged s JOIN {target} t"
            " USING ({key}) WHERE s.{version} > t.{version} AND {fixed} ORDER BY {key},"
            " s.{version}, s.n"
        ).format(
            key=self._list(self._contract.key),
            version=sql.Identifier(version),
            target=self._target,
            fixed=self._same(self._contract.fixed),
        )
        self._execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.newer"))
        self._execute(sql.SQL("CREATE TEMP TABLE newer ON COMMIT DROP AS {}").format(newer))
        profile = [name for name in other if name not in (*self._contract.fixed, version)]
        self._execute(
            sql.SQL(
                "INSERT INTO {history} (lead_id, valid_from, {profile})"
                " SELECT lead_id, {version}, {profile} FROM (SELECT *, lead({version}) OVER"
                " (PARTITION BY {key} ORDER BY {version}) AS next FROM pg_temp.newer) v"
                " WHERE next IS NOT NULL ON CONFLICT DO NOTHING"
            ).format(
                history=sql.Identifier(self._schema, "lead_versions"),
                profile=self._list(profile),
                version=sql.Identifier(version),
                key=self._list(self._contract.key),
            )
        )
        self._execute(
            sql.SQL(
                "UPDATE {target} t SET {values} FROM (SELECT DISTINCT ON ({key}) *"
                " FROM pg_temp.newer ORDER BY {key}, {version} DESC) s"
                " WHERE {same_key} AND s.{version} > t.{version}"
            ).format(
                target=self._target,
                key=self._list(self._contract.key),
                version=sql.Identifier(version),
                values=sql.SQL(", ").join(
                    sql.SQL("{c} = s.{c}").format(c=sql.Identifier(name)) for name in other
                ),
                same_key=self._same(self._contract.key),
            )
        )
        self._accept(self._execute(sql.SQL("SELECT n FROM pg_temp.newer")).fetchall())

    def _fill(self) -> None:
        """Columns that were null take the first value that comes; the other columns must agree."""
        stable = [name for name in self._contract.names if name not in self._contract.fills]
        given = sql.SQL(", ").join(
            sql.SQL(
                "(array_agg(s.{c} ORDER BY s.n) FILTER (WHERE s.{c} IS NOT NULL))[1] AS {c}"
            ).format(c=sql.Identifier(name))
            for name in self._contract.fills
        )
        anything = sql.SQL(" OR ").join(
            sql.SQL("(t.{c} IS NULL AND s.{c} IS NOT NULL)").format(c=sql.Identifier(name))
            for name in self._contract.fills
        )
        filled = self._execute(
            sql.SQL(
                "WITH able AS (SELECT s.* FROM pg_temp.staged s JOIN {target} t ON {same}"
                " WHERE {anything} ORDER BY {key} FOR UPDATE OF t),"
                " given AS (SELECT {keys}, min(s.n) AS n, {given} FROM able s GROUP BY {keys})"
                " UPDATE {target} t SET {values} FROM given s WHERE {same_key} RETURNING s.n"
            ).format(
                target=self._target,
                same=self._same(stable),
                anything=anything,
                key=sql.SQL(", ").join(
                    sql.SQL("t.{}").format(sql.Identifier(name)) for name in self._contract.key
                ),
                keys=sql.SQL(", ").join(
                    sql.SQL("s.{}").format(sql.Identifier(name)) for name in self._contract.key
                ),
                given=given,
                values=sql.SQL(", ").join(
                    sql.SQL("{c} = coalesce(t.{c}, s.{c})").format(c=sql.Identifier(name))
                    for name in self._contract.fills
                ),
                same_key=self._same(self._contract.key),
            )
        )
        self._accept(filled.fetchall())

    def _refuse_other_content(self) -> None:
        """What the table now holds decides: the same content is fine, other content is a fault."""
        contract = self._contract
        rest = [name for name in contract.names if name not in (*contract.key, *contract.receipt)]
        agree = [self._agrees(contract.column(name)) for name in rest]
        fine = sql.SQL(" AND ").join(agree) if agree else sql.SQL("true")
        if contract.version:
            # An older version is no news, unless it contradicts what never changes.
            fine = sql.SQL("(({fine}) OR (s.{v} < t.{v} AND {fixed}))").format(
                fine=fine, v=sql.Identifier(contract.version), fixed=self._same(contract.fixed)
            )
        other = self._execute(
            sql.SQL(
                "SELECT s.n, {differences} FROM pg_temp.staged s JOIN {target} t ON {same_key}"
                " WHERE NOT ({fine})"
            ).format(
                differences=sql.SQL("ARRAY[{}]").format(
                    sql.SQL(", ").join(
                        sql.SQL("CASE WHEN NOT ({}) THEN {} END").format(a, sql.Literal(name))
                        for a, name in zip(agree, rest, strict=True)
                    )
                )
                if rest
                else sql.SQL("ARRAY[]::text[]"),
                target=self._target,
                same_key=self._same(contract.key),
                fine=fine,
            )
        )
        for position, differences in other.fetchall():
            if position not in self.accepted:
                columns = ", ".join(name for name in differences if name)
                self.faults.add(
                    position,
                    DUPLICATE_KEY,
                    f"the key ({', '.join(contract.key)}) is there already with another {columns}",
                )

    def _agrees(self, column: Column) -> sql.Composable:
        name = sql.Identifier(column.name)
        if column.name in self._contract.fills:
            # A row from before the value was known says nothing against it.
            return sql.SQL("(s.{c} IS NULL OR s.{c} IS NOT DISTINCT FROM t.{c})").format(c=name)
        return sql.SQL("s.{c} IS NOT DISTINCT FROM t.{c}").format(c=name)

    def _same(self, names: tuple[str, ...] | list[str]) -> sql.Composable:
        # Keys are never null; "=" lets the planner use their index.
        return sql.SQL(" AND ").join(
            sql.SQL("s.{c} = t.{c}" if name in self._contract.key else _NOT_DISTINCT).format(
                c=sql.Identifier(name)
            )
            for name in names
        )

    def _accept(self, rows: list[tuple[int]]) -> None:
        self.accepted.update(position for (position,) in rows)

    def _list(self, names: tuple[str, ...] | list[str]) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, names))

    def _execute(self, query: sql.SQL | sql.Composed) -> psycopg.Cursor[Any]:
        return self._connection.execute(query)


_NOT_DISTINCT = "s.{c} IS NOT DISTINCT FROM t.{c}"
