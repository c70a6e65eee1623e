"""Finding, for each row of a spine, the row of one history that counts at its time.

In DuckDB, which spills what its memory can't hold:

1. The entities of the spine are numbered, and the history's keys and times (not its features) are
   read for these entities alone.
2. Each row gets a rank: event time, then created time, as one 128-bit number; and the moment from
   which it is visible, the later of the two. Of rows that become visible together only the greatest
   rank matters. Where some rows were known later than they happened, a running maximum over these
   moments turns "the row that became visible last" into "the greatest of all that are visible": an
   older fact that arrives late then changes nothing. So the maximum is exact, and takes one sort.
3. An ASOF join, now without ties, finds each row's rank. No step pairs the rows of an entity with
   each other: the work grows with n log n however deep a history is.
4. The features of the rows that were found, each once, are fetched and dealt out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.histories import History, HistoryColumn, HistoryError
from leadml_pipelines.features.history_sources import (
    OpenedSource,
    described,
    is_zoned,
    open_source,
)
from leadml_pipelines.features.spines import arrow_of, near
from leadml_pipelines.features.sql_text import quoted
from leadml_pipelines.times import NaiveTimeError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

_KINDS = {
    "whole numbers": (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    ),
    "text": ("VARCHAR", "ENUM"),
    "UUIDs": ("UUID",),
    "booleans": ("BOOLEAN",),
    "dates": ("DATE",),
}
"""Kinds of keys -> their DuckDB types. Within a kind keys are compared by value."""
_ARROW = {
    "whole numbers": "int64",
    "text": "string",
    "UUIDs": "string",
    "booleans": "bool_",
    "dates": "date32",
}

_RANK = "CAST(e AS HUGEINT) * 18446744073709551616 + (CAST(c AS HUGEINT) + 9223372036854775808)"

_VISIBLE = f"SELECT code, {{seen}} AS v, max({_RANK}) AS p FROM pit_known GROUP BY ALL"  # noqa: S608
_RUNNING = f"""
SELECT code, v, max(p) OVER (PARTITION BY code ORDER BY v ROWS UNBOUNDED PRECEDING) AS p
FROM ({_VISIBLE})
"""  # noqa: S608
_FOUND = """
CREATE TEMP TABLE pit_found AS
WITH visible AS ({visible})
SELECT a.i, a.t, a.code, v.p
FROM pit_asked AS a ASOF JOIN visible AS v ON a.code = v.code AND a.t >= v.v
"""
_PICKED = f"""
CREATE TEMP TABLE pit_picked AS
WITH ranks AS (SELECT DISTINCT code, p FROM pit_found)
SELECT code, p, e, min(row) AS row, count(*) AS copies
FROM (SELECT code, e, row, {_RANK} AS p FROM pit_known) SEMI JOIN ranks USING (code, p)
GROUP BY code, p, e
"""  # noqa: S608
_COPIES = f"""
SELECT k.row, p.code, p.p
FROM (SELECT code, row, {_RANK} AS p FROM pit_known) AS k
JOIN pit_picked AS p ON k.code = p.code AND k.p = p.p AND p.copies > 1 ORDER BY k.row
"""  # noqa: S608


class OpenedHistory:
    """A history within a connection: checked, and ready to be asked."""

    def __init__(
        self,
        history: History,
        connection: duckdb.DuckDBPyConnection,
        number: int,
        entities: Sequence[str] | None,
    ) -> None:
        self.history = history
        self._connection = connection
        self.source: OpenedSource = open_source(connection, history, number, entities)
        self._check()
        self.keys = history.key_columns
        times = [history.event_time, history.created_time]
        self.columns = history.columns or tuple(
            HistoryColumn(name)
            for name in self.source.columns
            if name not in self.keys.values() and name not in times
        )
        event = _micros(history.event_time)
        created = event
        if history.created_time is not None:
            created = f"coalesce({_micros(history.created_time)}, {event})"
        keys = [f"{quoted(column)} AS k{i}" for i, column in enumerate(self.keys.values())]
        selected = [*keys, f"{event} AS e", f"{created} AS c", f"{self.source.row} AS row"]
        self.narrow = f"SELECT {', '.join(selected)} FROM {self.source.relation}"  # noqa: S608
        """Keys `k0`..., event time `e`, created time `c` in microseconds, and the row's number."""
        self.seen = "greatest(e, c)" if history.created_filters else "e"
        """From when a row of `narrow` is visible."""

    def _check(self) -> None:
        history, there = self.history, self.source.columns
        needed = [
            *history.key_columns.values(),
            history.event_time,
            *([history.created_time] if history.created_time else []),
            *(column.column for column in history.columns),
        ]
        for name in needed:
            if name not in there:
                raise HistoryError(
                    f"history {history.name} has no column {name}{near(name, there)}"
                )
        times = {history.event_time, history.created_time}
        for name, kind in there.items():
            used = not history.columns or name in needed
            if name in times and not is_zoned(kind):
                raise NaiveTimeError(
                    f"column {name} of history {history.name} holds {kind}; it must hold times "
                    "with a time zone. If it is UTC, say so, with SQL as the source: "
                    f"SELECT * REPLACE ({quoted(name)} AT TIME ZONE 'UTC' AS {quoted(name)}) ..."
                )
            if used and name not in times and kind.startswith("TIMESTAMP") and not is_zoned(kind):
                raise NaiveTimeError(
                    f"column {name} of history {history.name} holds times without a zone; leave it "
                    "out of the features, or give it one"
                )

    def as_of(self, keys: pa.Table, moments: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """The columns' values for rows of a spine, missing where there is no row that counts."""
        import numpy as np
        import pyarrow as pa

        rows = self._rows(keys, moments)
        wanted, place = np.unique(rows[rows >= 0], return_inverse=True)
        indices = np.full(len(rows), -1, np.int64)
        indices[rows >= 0] = place
        fetched = self.source.fetch(wanted, columns)
        return fetched.take(pa.array(indices, mask=indices < 0))

    def _rows(self, keys: pa.Table, moments: np.ndarray) -> np.ndarray:
        """The number of the row that counts for each row of a spine; -1 for none."""
        import numpy as np
        import pyarrow as pa

        found = np.full(len(moments), -1, np.int64)
        if not len(moments):
            return found
        spine = keys.append_column("i", pa.array(np.arange(len(moments))))
        run = self._connection
        run.register("pit_spine", spine.append_column("t", pa.array(moments)))
        try:
            self._ask()
            self._find(int(moments.min()), int(moments.max()))
            alive = "TRUE"
            if self.history.ttl is not None:
                alive = f"p.e > f.t - {self.history.ttl // timedelta(microseconds=1)}"
            answer = run.execute(
                "SELECT f.i, p.row FROM pit_found AS f JOIN pit_picked AS p USING (code, p) "  # noqa: S608
                f"WHERE {alive}"
            ).fetchnumpy()
        finally:
            for table in ("entity", "asked", "known", "found", "picked"):
                run.execute(f"DROP TABLE IF EXISTS temp.pit_{table}")
            run.unregister("pit_spine")
        found[np.asarray(answer["i"])] = np.asarray(answer["row"])
        return found

    def _ask(self) -> None:
        """Number the spine's entities; a row with a missing key asks for nobody."""
        columns = ", ".join(f"k{i}" for i in range(len(self.keys)))
        if not columns:
            self._connection.execute(
                "CREATE TEMP TABLE pit_asked AS SELECT i, t, 0 AS code FROM pit_spine"
            )
            return
        there = " AND ".join(f"k{i} IS NOT NULL" for i in range(len(self.keys)))
        self._connection.execute(
            f"CREATE TEMP TABLE pit_entity AS SELECT {columns}, row_number() OVER () AS code "  # noqa: S608
            f"FROM (SELECT DISTINCT {columns} FROM pit_spine WHERE {there})"
        )
        self._connection.execute(
            f"CREATE TEMP TABLE pit_asked AS SELECT i, t, code FROM pit_spine JOIN pit_entity "  # noqa: S608
            f"USING ({columns})"
        )

    def _find(self, earliest: int, latest: int) -> None:
        run = self._connection
        columns = ", ".join(f"k{i}" for i in range(len(self.keys)))
        coded = f"SELECT code, e, c, row FROM ({self.narrow}) JOIN pit_entity USING ({columns})"  # noqa: S608
        if not columns:
            coded = f"SELECT 0 AS code, e, c, row FROM ({self.narrow})"  # noqa: S608
        oldest = "TRUE"
        if self.history.ttl is not None:
            oldest = f"e > {earliest - self.history.ttl // timedelta(microseconds=1)}"
        run.execute(
            f"CREATE TEMP TABLE pit_known AS {coded} "
            f"WHERE e IS NOT NULL AND {self.seen} <= {latest} AND {oldest}"
        )
        late = run.execute(f"SELECT bool_or({self.seen} > e) FROM pit_known").fetchone()  # noqa: S608
        visible = _RUNNING if late is not None and late[0] else _VISIBLE
        run.execute(_FOUND.format(visible=visible.format(seen=self.seen)))
        run.execute(_PICKED)
        self._settle_copies()

    def _settle_copies(self) -> None:
        """Of rows that share key, event and created time, pick by content, not by place."""
        import numpy as np

        run = self._connection
        copies = run.sql(_COPIES).to_arrow_table()
        if not copies.num_rows:
            return
        names = sorted(
            name
            for name in self.source.columns
            if name not in self.keys.values()
            and name not in (self.history.event_time, self.history.created_time)
        )
        content = self.source.fetch(np.asarray(copies.column("row")), names)
        content = content.rename_columns([f"c{i}" for i in range(len(names))])
        for name in ("code", "p", "row"):
            content = content.append_column(f"copy_{name}", copies.column(name))
        order = ", ".join(f"c{i} DESC NULLS LAST" for i in range(len(names)))
        run.register("pit_copies", content)
        run.execute(
            "UPDATE pit_picked SET row = best.copy_row FROM ("  # noqa: S608
            "FROM pit_copies QUALIFY row_number() OVER ("
            f"PARTITION BY copy_code, copy_p ORDER BY {order or 'copy_row'}) = 1) AS best "
            "WHERE pit_picked.code = best.copy_code AND pit_picked.p = best.copy_p"
        )
        run.unregister("pit_copies")


def _micros(column: str) -> str:
    return f"epoch_us(CAST({quoted(column)} AS TIMESTAMPTZ))"


def checked_keys(connection: duckdb.DuckDBPyConnection, spine: Any, one: OpenedHistory) -> pa.Table:
    """The key columns of a spine as `k0`, ..., comparable with those of a history."""
    import pyarrow as pa

    columns = {}
    for i, (ours, theirs) in enumerate(one.keys.items()):
        column = arrow_of(spine, ours)
        if one.source.columns[theirs] in ('"NULL"', "NULL"):
            # A frame without rows, or with nothing but missing keys: nothing can match.
            columns[f"k{i}"] = pa.chunked_array([pa.nulls(len(column), pa.string())])
            continue
        kind = _kind(one.source.columns[theirs])
        if kind is None:
            raise HistoryError(
                f"the key {theirs} of history {one.history.name} holds "
                f"{one.source.columns[theirs]}; keys are text, whole numbers, UUIDs, booleans or "
                "dates"
            )
        if column.null_count == len(column):
            # All missing, or no row at all: such a type says nothing, and nothing matches.
            column = pa.chunked_array([pa.nulls(len(column), getattr(pa, _ARROW[kind])())])
        else:
            _require_kind(connection, column, ours, one, theirs)
        columns[f"k{i}"] = column
    if not columns:
        return pa.table({"none": pa.nulls(len(spine))})
    return pa.table(columns)


def _require_kind(
    connection: duckdb.DuckDBPyConnection,
    column: pa.ChunkedArray,
    ours: str,
    one: OpenedHistory,
    theirs: str,
) -> None:
    import pyarrow as pa

    connection.register("pit_key", pa.table({"key": column}))
    there = described(connection, "pit_key")["key"]
    connection.unregister("pit_key")
    if _kind(there) != _kind(one.source.columns[theirs]):
        hint = "; whole numbers with missing ones are Int64" if there == "DOUBLE" else ""
        raise HistoryError(
            f"column {ours} of the spine holds {there}, and the key {theirs} of history "
            f"{one.history.name} holds {one.source.columns[theirs]}; convert one to the other"
            f"{hint}"
        )


def _kind(duckdb_type: str) -> str | None:
    name = duckdb_type.split("(")[0]
    return next((kind for kind, types in _KINDS.items() if name in types), None)
