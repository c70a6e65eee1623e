"""Point-in-time joins: each row of a spine with the newest row of each history known at its time.

How one history is joined, in DuckDB, which spills what its memory can't hold:

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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.histories import History, HistoryColumn, HistoryError, SnapshotTable
from leadml_pipelines.features.history_sources import (
    OpenedSource,
    described,
    is_zoned,
    open_source,
    quoted,
)
from leadml_pipelines.times import NaiveTimeError, require_utc, require_utc_column, to_micros

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
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
_CASTS = {"double": "float64", "integer": "int64", "boolean": "bool", "category": "string"}

# Ranks compare as (event time, created time): the bias makes the low half never negative.
_RANK = "CAST(e AS HUGEINT) * 18446744073709551616 + (CAST(c AS HUGEINT) + 9223372036854775808)"

_VISIBLE = f"SELECT code, {{seen}} AS v, max({_RANK}) AS p FROM pit_known GROUP BY ALL"  # noqa: S608
_RUNNING = (
    f"SELECT code, v, max(p) OVER (PARTITION BY code ORDER BY v ROWS UNBOUNDED PRECEDING) AS p "
    f"FROM ({_VISIBLE})"  # noqa: S608
)
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


@overload
def join_histories(
    spine: pa.Table,
    histories: Sequence[History],
    *,
    time: str = ...,
    features: Sequence[str] | None = ...,
    full_names: bool = ...,
    chunk_rows: int | None = ...,
    memory_limit: str = ...,
    threads: int | None = ...,
    temp_directory: Path | None = ...,
) -> pa.Table: ...
@overload
def join_histories(
    spine: pd.DataFrame | str,
    histories: Sequence[History],
    *,
    time: str = ...,
    features: Sequence[str] | None = ...,
    full_names: bool = ...,
    chunk_rows: int | None = ...,
    memory_limit: str = ...,
    threads: int | None = ...,
    temp_directory: Path | None = ...,
) -> pd.DataFrame: ...
def join_histories(
    spine: pd.DataFrame | pa.Table | str,
    histories: Sequence[History],
    *,
    time: str = "as_of",
    features: Sequence[str] | None = None,
    full_names: bool = False,
    chunk_rows: int | None = None,
    memory_limit: str = "4GB",
    threads: int | None = None,
    temp_directory: Path | None = None,
) -> pd.DataFrame | pa.Table:
    """Add to each row of a spine what histories told of its entity at its time.

    Args:
        spine: A frame, an Arrow table, or DuckDB SQL, in which each history can be read by its name.
            It is not changed. It has the histories' key columns, a time, and any other columns,
            such as labels. The same row may come twice.
        histories: See `History`.
        time: The spine's column of times, with a zone.
        features: Which features, in this order, by name or as `history__name`; all if None.
        full_names: Call each feature `history__name`.
        chunk_rows: Work on so many rows of the spine at a time, all at once if None. The result is
            the same.
        memory_limit: What DuckDB may hold before it spills to `temp_directory`, as in `4GB`.
        threads: All cores if None.
        temp_directory: Where to spill; a folder of the system's by default.

    Returns:
        The spine's rows, order, index and columns, then a column per feature: an Arrow table for an
        Arrow table, otherwise a frame. There, whole numbers and booleans are nullable (`Int64`,
        `boolean`) whether or not any is missing, text and lists are objects, a missing float is
        NaN. Everything is missing where the entity has no row that counts.

    Raises:
        SpineError: a column of the spine is missing, doubled, of an unusable type, or named like a
            feature.
        HistoryError: a history lacks a column, its keys have another type than the spine's, a
            feature is unknown, or two features would have one name.
        NaiveTimeError: a time has no zone.
    """
    if chunk_rows is not None and chunk_rows < 1:
        raise HistoryError(f"chunk_rows is {chunk_rows}; a chunk has at least one row")
    with bounded_connection(memory_limit, threads, temp_directory) as connection:
        return join_within(
            connection,
            spine,
            histories,
            time=time,
            features=features,
            full_names=full_names,
            chunk_rows=chunk_rows,
        )


@contextmanager
def bounded_connection(
    memory_limit: str = "4GB", threads: int | None = None, temp_directory: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of one's own, in UTC, that spills what its memory can't hold."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        # Without extensions nothing is looked up or loaded at run time.
        "autoinstall_known_extensions": False,
        # For few rows DuckDB would pair each with its entity's whole history.
        "asof_loop_join_threshold": 0,
    }
    if threads is not None:
        config["threads"] = threads
    if temp_directory is not None:
        config["temp_directory"] = str(temp_directory)
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def join_within(
    connection: duckdb.DuckDBPyConnection,
    spine: pd.DataFrame | pa.Table | str,
    histories: Sequence[History],
    *,
    time: str = "as_of",
    features: Sequence[str] | None = None,
    full_names: bool = False,
    chunk_rows: int | None = None,
) -> Any:
    """As `join_histories`, in a connection that is the caller's."""
    _require_names(histories)
    entities = _entities(spine, histories)
    opened = [
        _Opened(history, connection, number, entities.get(history.name))
        for number, history in enumerate(histories)
    ]
    if isinstance(spine, str):
        for one in opened:
            connection.execute(
                f"CREATE TEMP VIEW {quoted(one.history.name)} AS FROM {one.source.relation}"
            )
        spine = to_frame(connection.sql(spine).to_arrow_table())
        for one in opened:
            connection.execute(f"DROP VIEW temp.{quoted(one.history.name)}")
    wanted = _wanted(opened, features, full_names)
    names = [one.name for one in wanted]
    _require_free(_columns(spine), names)
    moments = spine_times(spine, time)
    rows = len(moments)
    keys = {one.history.name: _checked_keys(connection, spine, one) for one in opened}
    step = max(rows, 1) if chunk_rows is None else chunk_rows
    pieces: dict[str, list[pa.ChunkedArray]] = {name: [] for name in names}
    for start in range(0, max(rows, 1), step):
        part = slice(start, min(start + step, rows))
        for one in opened:
            mine = [w for w in wanted if w.history is one.history]
            columns = list(dict.fromkeys(w.column.column for w in mine))
            values = one.as_of(keys[one.history.name].slice(start, step), moments[part], columns)
            for w in mine:
                pieces[w.name].append(_cast(values.column(w.column.column), w))
    return attach(spine, {name: _concat(pieces[name]) for name in names})


def entities_between(
    history: History,
    start: datetime,
    end: datetime,
    *,
    every: timedelta | None = None,
    time: str = "as_of",
    memory_limit: str = "4GB",
) -> pd.DataFrame:
    """A spine for want of one: every entity of which something in `(start, end]` was known.

    Args:
        history: Whose entities.
        start: Rows up to this moment don't count.
        end: The last moment.
        every: Look at `end`, `end - every` and so on, down to but without `start`; at `end` alone
            if None. An entity is there from the moment on at which it was first known.
        time: Name of the column of moments.
        memory_limit: What DuckDB may hold before it spills.

    Returns:
        The key columns under the spine's names, and the times; ordered by time, then key.
    """
    first, last = to_micros(require_utc(start, "start")), to_micros(require_utc(end, "end"))
    keys = history.key_columns
    if not keys:
        raise HistoryError(f"history {history.name} is about no entity; make the spine yourself")
    step = timedelta(microseconds=max(last - first, 1)) if every is None else every
    moments = moments_between(first, last, step)
    with bounded_connection(memory_limit) as connection:
        one = _Opened(history, connection, 0, None)
        import pyarrow as pa

        connection.register("pit_moments", pa.table({"moment": pa.array(moments, pa.int64())}))
        columns = [f"k{i}" for i in range(len(keys))]
        there = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        found = connection.sql(
            f"WITH first AS (SELECT {', '.join(columns)}, min({one.seen}) AS since "
            f"FROM ({one.narrow}) WHERE e > {first} AND {one.seen} <= {last} AND {there} "
            "GROUP BY ALL) "
            f"SELECT {', '.join(columns)}, make_timestamptz(moment) AS moment "
            f"FROM first JOIN pit_moments ON since <= moment ORDER BY moment, {', '.join(columns)}"
        ).to_arrow_table()
    return to_frame(found.rename_columns([*keys, time]))


def moments_between(start: int, end: int, every: timedelta) -> list[int]:
    """`end`, `end - every` and so on, down to but without `start`, in microseconds, ascending.

    Raises:
        HistoryError: `end` is not after `start`, or `every` is not over nothing.
    """
    if end <= start:
        raise HistoryError("the end must come after the start")
    if every <= timedelta(0):
        raise HistoryError(f"every is {every}; it must be over nothing")
    return list(range(end, start, -(every // timedelta(microseconds=1))))[::-1]


def spine_times(spine: pd.DataFrame | pa.Table, time: str) -> np.ndarray:
    """A spine's times in microseconds.

    Raises:
        SpineError: the column is missing or doubled, or a time is missing.
        NaiveTimeError: a time has no zone.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    column = _column(spine, time)
    if not len(column):
        return np.empty(0, np.int64)
    if isinstance(column, pa.ChunkedArray):
        if not pa.types.is_timestamp(column.type) or column.type.tz is None:
            raise NaiveTimeError(
                f"column {time} holds {column.type}; it must hold times with a time zone, "
                "for example timestamp[us, tz=UTC]"
            )
        # Finer than microseconds is cut off, as everywhere.
        series = pd.Series(column.cast(pa.timestamp("us", "UTC"), safe=False).to_pandas())
    else:
        series = require_utc_column(column, time)
    if series.isna().any():
        raise SpineError(f"{time} is missing in some rows; every row of a spine needs its time")
    return series.astype("datetime64[us, UTC]").astype("int64").to_numpy()


def attach(spine: pd.DataFrame | pa.Table, values: Mapping[str, pa.ChunkedArray]) -> Any:
    """A spine with columns added: the same kind of thing, with the same index."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(spine, pa.Table):
        for name, column in values.items():
            spine = spine.append_column(name, column)
        return spine
    added = to_frame(pa.table(dict(values)))
    if not values:
        added = pd.DataFrame(index=range(len(spine)))
    added.index = spine.index
    return pd.concat([spine, added], axis=1)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame whose types don't depend on what is missing.

    Whole numbers and booleans are nullable, floats have NaN, text and lists are objects with None,
    times are `datetime64[us, UTC]`.
    """
    import pandas as pd

    columns = {str(i): _series(column) for i, column in enumerate(table.columns)}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))
    frame.columns = pd.Index(table.column_names, dtype=object)
    return frame


def _series(column: pa.ChunkedArray) -> Any:
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _series(column.cast(kind.value_type))
    if pa.types.is_boolean(kind):
        return column.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    if pa.types.is_integer(kind):
        dtype = pd.array([], dtype=str(kind).capitalize().replace("Uint", "UInt")).dtype
        return column.to_pandas(types_mapper={kind: dtype}.get)
    if pa.types.is_floating(kind):
        return column.to_pandas()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        micros = column.cast(pa.timestamp("us", "UTC"), safe=False)
        return micros.to_pandas().astype("datetime64[us, UTC]")
    return pd.Series(column.to_pylist(), dtype=object)


@dataclass(frozen=True)
class _Wanted:
    """A feature of the result: of which history, from which column, under which name."""

    history: History
    column: HistoryColumn
    name: str


class _Opened:
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
                raise HistoryError(f"history {history.name} has no column {name}{near(name, there)}")
        times = {history.event_time, history.created_time}
        for name, kind in there.items():
            used = not history.columns or name in needed
            if name in times and not is_zoned(kind):
                raise NaiveTimeError(
                    f"column {name} of history {history.name} holds {kind}; it must hold times with "
                    f"a time zone. If it is UTC, say so: SELECT * REPLACE ({quoted(name)} AT TIME "
                    f"ZONE 'UTC' AS {quoted(name)}) as the source"
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
        import pyarrow as pa

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
            "UPDATE pit_picked SET row = best.copy_row FROM (FROM pit_copies QUALIFY row_number() OVER "  # noqa: S608
            f"(PARTITION BY copy_code, copy_p ORDER BY {order or 'copy_row'}) = 1) AS best "
            "WHERE pit_picked.code = best.copy_code AND pit_picked.p = best.copy_p"
        )
        run.unregister("pit_copies")


def _micros(column: str) -> str:
    return f"epoch_us(CAST({quoted(column)} AS TIMESTAMPTZ))"


def near(name: str, known: Any) -> str:
    """`; did you mean ...?`, if anything known is like a name."""
    found = get_close_matches(name, [str(k) for k in known], n=3)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _require_names(histories: Sequence[History]) -> None:
    names = [history.name for history in histories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HistoryError(f"two histories are named {', '.join(twice)}; give each its own name")


def _entities(spine: Any, histories: Sequence[History]) -> dict[str, list[str]]:
    """For histories of snapshots, whom the spine asks for, so that no others are read."""
    found: dict[str, list[str]] = {}
    if isinstance(spine, str):
        return found
    for history in histories:
        if isinstance(history.source, SnapshotTable):
            (key,) = history.key_columns
            ids = set(_arrow(spine, key).drop_null().unique().to_pylist())
            found[history.name] = sorted(str(i) for i in ids)
    return found


def _wanted(
    opened: Sequence[_Opened], features: Sequence[str] | None, full_names: bool
) -> list[_Wanted]:
    every = [
        _Wanted(
            one.history,
            column,
            f"{one.history.name}__{column.feature}" if full_names else column.feature,
        )
        for one in opened
        for column in one.columns
    ]
    wanted = every
    if features is not None:
        if isinstance(features, str):
            raise HistoryError("features is one text; give a list of names")
        wanted = [_one(every, name) for name in features]
    names = [w.name for w in wanted]
    for w in wanted:
        homes = [o.history.name for o in wanted if o.name == w.name]
        if len(homes) > 1:
            raise HistoryError(
                f"{names.count(w.name)} features would be named {w.name}, of the histories "
                f"{' and '.join(homes)}; ask for full_names=True, or rename one"
            )
    return wanted


def _one(every: Sequence[_Wanted], name: str) -> _Wanted:
    full = {f"{w.history.name}__{w.column.feature}": w for w in every}
    short = [w for w in every if w.column.feature == name]
    if name in full:
        return full[name]
    if not short:
        known = [*full, *(w.column.feature for w in every)]
        raise HistoryError(f"there is no feature named {name}{near(name, known)}")
    if len(short) > 1:
        homes = " and ".join(w.history.name for w in short)
        raise HistoryError(
            f"{name} is a feature of {homes}; say which, as in {short[0].history.name}__{name}"
        )
    return short[0]


def _columns(spine: Any) -> list[str]:
    import pyarrow as pa

    return list(spine.column_names if isinstance(spine, pa.Table) else spine.columns)


def _require_free(columns: Sequence[str], names: Sequence[str]) -> None:
    taken = [str(column) for column in columns if column in set(names)]
    if taken:
        raise SpineError(
            f"the spine has a column named {', '.join(taken)}, as a feature is; rename it"
        )


def _column(spine: Any, name: str) -> Any:
    import pyarrow as pa

    count = _columns(spine).count(name)
    if count != 1:
        raise SpineError(
            f"the spine must have exactly one column {name}, and has {count or 'none'}"
            f"{near(name, _columns(spine)) if not count else ''}"
        )
    return spine.column(name) if isinstance(spine, pa.Table) else spine[name]


def _arrow(spine: Any, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    column = _column(spine, name)
    if isinstance(column, pa.ChunkedArray):
        return column
    try:
        return pa.chunked_array([pa.Array.from_pandas(column)])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SpineError(
            f"column {name} of the spine holds values of several types; keys are all text or all "
            "whole numbers, so convert it"
        ) from error


def _checked_keys(
    connection: duckdb.DuckDBPyConnection, spine: Any, one: _Opened
) -> pa.Table:
    """The key columns of a spine as `k0`, ..., comparable with those of a history."""
    import pyarrow as pa

    columns = {}
    for i, (ours, theirs) in enumerate(one.keys.items()):
        column = _arrow(spine, ours)
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
    one: _Opened,
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


def _cast(column: pa.ChunkedArray, wanted: _Wanted) -> pa.ChunkedArray:
    import pyarrow as pa

    if wanted.column.type is None:
        return column
    try:
        return column.cast(_CASTS[wanted.column.type])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise HistoryError(
            f"feature {wanted.name} of history {wanted.history.name} is declared "
            f"{wanted.column.type}, but its column {wanted.column.column} holds {column.type} that "
            f"can't become that: {error}"
        ) from error


def _concat(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    import pyarrow as pa

    if len(parts) == 1:
        return parts[0]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
