"""Point-in-time joins: each row of a spine with the newest row of each history known at its time.

How a row is found, exactly and without pairing rows with rows, is told in `history_search.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.histories import History, HistoryColumn, HistoryError, SnapshotTable
from leadml_pipelines.features.history_search import OpenedHistory, checked_keys
from leadml_pipelines.features.spines import (
    arrow_of,
    attach,
    column_names,
    near,
    require_free,
    spine_times,
    to_frame,
)
from leadml_pipelines.features.sql_text import quoted
from leadml_pipelines.times import require_utc, to_micros

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_CASTS = {"double": "float64", "integer": "int64", "boolean": "bool", "category": "string"}


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
        spine: A frame, an Arrow table, or DuckDB SQL, in which each history can be read by its
            name. It is not changed. It has the histories' key columns, a time, and any other
            columns, such as labels. The same row may come twice.
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
    with ExitStack() as stack:
        if temp_directory is None:
            # DuckDB's own default is a folder where the process happens to stand.
            temp_directory = Path(stack.enter_context(TemporaryDirectory(prefix="leadml-")))
        config["temp_directory"] = str(temp_directory)
        connection = stack.enter_context(duckdb.connect(":memory:", config=config))
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


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
        OpenedHistory(history, connection, number, entities.get(history.name))
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
    require_free(column_names(spine), names)
    moments = spine_times(spine, time)
    rows = len(moments)
    keys = {one.history.name: checked_keys(connection, spine, one) for one in opened}
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
        one = OpenedHistory(history, connection, 0, None)
        import pyarrow as pa

        connection.register("pit_moments", pa.table({"moment": pa.array(moments, pa.int64())}))
        columns = [f"k{i}" for i in range(len(keys))]
        there = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        found = connection.sql(
            f"WITH first AS (SELECT {', '.join(columns)}, min({one.seen}) AS since "  # noqa: S608
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


@dataclass(frozen=True)
class _Wanted:
    """A feature of the result: of which history, from which column, under which name."""

    history: History
    column: HistoryColumn
    name: str


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
            ids = set(arrow_of(spine, key).drop_null().unique().to_pylist())
            found[history.name] = sorted(str(i) for i in ids)
    return found


def _wanted(
    opened: Sequence[OpenedHistory], features: Sequence[str] | None, full_names: bool
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
