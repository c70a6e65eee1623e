"""Where the rows of histories are read from, each in two steps: find rows, then fetch them.

Finding needs only keys and times, of all rows; fetching needs all columns, of few rows. Apart, they
cost a fraction of what carrying every column through a join costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from leadml_pipelines.features.frames import arrow_type
from leadml_pipelines.features.histories import History, HistoryError, SnapshotTable
from leadml_pipelines.features.sql_text import literal, quoted
from leadml_pipelines.times import NaiveTimeError, from_micros, require_utc_column

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
    import pyarrow as pa

_FILE = 1 << 40
"""Distance between the row numbers of two files: more rows than a Parquet file has."""


class OpenedSource(Protocol):
    """A source of rows within a DuckDB connection."""

    columns: dict[str, str]
    """Column -> its DuckDB type."""
    relation: str
    """What stands behind FROM."""
    row: str
    """Expression of a row's number, a BIGINT."""

    def fetch(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows with these distinct, ascending numbers, in their order."""
        ...


def described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Column -> DuckDB type of what stands behind FROM."""
    rows = connection.execute(f"DESCRIBE FROM {relation}").fetchall()
    return {str(name): str(kind) for name, kind, *_ in rows}


def is_zoned(kind: str) -> bool:
    """Whether a DuckDB type is a time with a zone."""
    return kind.startswith("TIMESTAMPTZ") or kind == "TIMESTAMP WITH TIME ZONE"


def open_source(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    number: int,
    entities: Sequence[str] | None = None,
) -> OpenedSource:
    """Make the rows of a history readable in a connection.

    Args:
        connection: Where; its session is in UTC.
        history: Whose rows.
        number: Tells the histories of one connection apart.
        entities: Only rows about these will be asked for; all if None. Only snapshots care.

    Raises:
        HistoryError: the source is not there or of no known kind.
        NaiveTimeError: a time of a frame has no zone.
    """
    import pandas as pd
    import pyarrow as pa

    source = history.source
    if isinstance(source, SnapshotTable):
        return _Snapshots(connection, source, number, entities)
    if isinstance(source, str):
        return _Query(connection, source, number)
    if isinstance(source, pd.DataFrame):
        return _Rows(connection, _from_pandas(history, source), number)
    if isinstance(source, pa.Table):
        return _Rows(connection, source, number)
    paths = [source] if isinstance(source, Path) else list(source)
    if not paths or not all(isinstance(path, Path) for path in paths):
        raise HistoryError(
            f"the source of history {history.name} is {type(source).__name__}; give a Path, "
            "several, an Arrow table, a DataFrame, SQL, or a SnapshotTable"
        )
    for path in paths:
        there = any(path.parent.glob(path.name)) if "*" in path.name else path.exists()
        if not there:
            raise HistoryError(f"{path}, a source of history {history.name}, does not exist")
    return _Parquet(connection, paths)


def _from_pandas(history: History, frame: pd.DataFrame) -> pa.Table:
    import pyarrow as pa

    times = [
        name
        for name in (history.event_time, history.created_time)
        if name is not None and list(frame.columns).count(name) == 1
    ]
    try:
        zoned = {name: require_utc_column(frame[name], name) for name in times if len(frame)}
    except NaiveTimeError as error:
        raise NaiveTimeError(f"history {history.name}: {error}") from error
    if not len(frame):
        zoned = {name: frame[name].astype("datetime64[us, UTC]") for name in times}
    return pa.Table.from_pandas(frame.assign(**zoned), preserve_index=False)


class _Parquet:
    def __init__(self, connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
        self._connection = connection
        names = ", ".join(literal(str(path)) for path in paths)
        self.relation = f"read_parquet([{names}])"
        self.row = f"CAST(file_index AS BIGINT) * {_FILE} + file_row_number"
        self.columns = described(connection, self.relation)

    def fetch(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        names = "".join(f", h.{quoted(column)}" for column in columns)
        wanted = pa.table({"file": rows // _FILE, "row": rows % _FILE})
        self._connection.register("pit_wanted", wanted)
        # The order is restored here rather than by ORDER BY, which would sort wide rows.
        found = self._connection.sql(
            f"SELECT h.file_index * {_FILE} + h.file_row_number AS pit_row{names} "  # noqa: S608
            f"FROM {self.relation} AS h SEMI JOIN pit_wanted AS w "
            "ON h.file_index = w.file AND h.file_row_number = w.row"
        ).to_arrow_table()
        self._connection.unregister("pit_wanted")
        return found.drop_columns("pit_row").take(pa.array(found.column(0).to_numpy().argsort()))


class _Rows:
    """An Arrow table."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: pa.Table, number: int) -> None:
        import numpy as np
        import pyarrow as pa

        self._table = table
        name = f"pit_rows_{number}"
        self.row = "pit_row"
        numbered = table.append_column(self.row, pa.array(np.arange(table.num_rows)))
        connection.register(name, numbered)
        self.relation = name
        self.columns = {
            column: kind
            for column, kind in described(connection, name).items()
            if column != self.row
        }

    def fetch(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        return self._table.select(list(columns)).take(pa.array(rows))


class _Query:
    """The result of a query, kept by DuckDB, which spills what its memory can't hold."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, query: str, number: int) -> None:
        self._connection = connection
        self.relation = f"pit_query_{number}"
        self.row = "rowid"
        connection.execute(f"CREATE TEMP TABLE {self.relation} AS FROM ({query})")
        self.columns = described(connection, self.relation)

    def fetch(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        return _of_table(self._connection, self.relation, rows, columns)


def _of_table(
    connection: duckdb.DuckDBPyConnection, table: str, rows: np.ndarray, columns: Sequence[str]
) -> pa.Table:
    import pyarrow as pa

    names = "".join(f", h.{quoted(column)}" for column in columns)
    connection.register("pit_wanted", pa.table({"row": rows}))
    found = connection.sql(
        f"SELECT h.rowid AS pit_row{names} FROM {table} AS h "  # noqa: S608
        "SEMI JOIN pit_wanted AS w ON h.rowid = w.row"
    ).to_arrow_table()
    connection.unregister("pit_wanted")
    return found.drop_columns("pit_row").take(pa.array(found.column(0).to_numpy().argsort()))


class _Snapshots:
    """The kept snapshots of a view: keys are copied to DuckDB, values are fetched when wanted."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: SnapshotTable,
        number: int,
        entities: Sequence[str] | None,
    ) -> None:
        import pyarrow as pa

        from leadml_pipelines.features.snapshots.tables import existing_columns, table_of
        from leadml_pipelines.postgres import arrow_connection, connect

        self._connection = connection
        self._source = source
        view = source.view
        with connect(source.url) as postgres:
            there = existing_columns(postgres, view)
        if not there:
            raise HistoryError(
                f"no snapshot of view {view.name} was ever written; materialize feature_snapshot "
                "first, or ask for source='events'"
            )
        self._there = set(there)
        self._table = f'"leadml".{quoted(table_of(view))}'
        some = " AND s.entity_id = ANY($2)" if entities is not None else ""
        query = (
            f"SELECT s.entity_id, s.as_of, s.created_at FROM {self._table} AS s "  # noqa: S608
            "WHERE s.as_of IN (SELECT as_of FROM leadml.feature_snapshots "
            f"WHERE entity = $1 AND checked_at IS NOT NULL){some}"
        )
        params: tuple[Any, ...] = (view.entity,) if entities is None else (view.entity, entities)
        self.relation = f"pit_snapshots_{number}"
        self.row = "rowid"
        with arrow_connection(source.url) as arrow, arrow.cursor() as cursor:
            cursor.execute(query, params)
            keys = cursor.fetch_arrow_table().cast(
                pa.schema(
                    [
                        ("entity_id", pa.string()),
                        ("as_of", pa.timestamp("us", "UTC")),
                        ("created_at", pa.timestamp("us", "UTC")),
                    ]
                )
            )
        connection.register("pit_keys", keys)
        connection.execute(f"CREATE TEMP TABLE {self.relation} AS FROM pit_keys")
        connection.unregister("pit_keys")
        types = {"double": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN"}
        self.columns = {
            **described(connection, self.relation),
            **{f.name: types.get(f.type, "VARCHAR") for f in view.features},
        }

    def fetch(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        from leadml_pipelines.postgres import arrow_connection

        if not len(rows):
            return self._nothing(columns)
        keys = _of_table(self._connection, self.relation, rows, ["entity_id", "as_of"])
        keys = keys.append_column("row", pa.array(rows))
        parts = []
        with arrow_connection(self._source.url) as arrow, arrow.cursor() as cursor:
            for moment, part in self._by_moment(keys):
                cursor.execute(
                    self._select(columns), (moment, part.column("entity_id").to_pylist())
                )
                parts.append((part, cursor.fetch_arrow_table()))
        return self._in_order(parts, columns)

    def _nothing(self, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        kinds = {f.name: arrow_type(f.type) for f in self._source.view.features}
        return pa.schema([(name, kinds[name]) for name in columns]).empty_table()

    @staticmethod
    def _by_moment(keys: pa.Table) -> list[tuple[datetime, pa.Table]]:
        """Keys by moment: one query each touches one partition, by its primary key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        micros = keys.column("as_of").cast(pa.int64())
        return [
            (from_micros(moment), keys.filter(pc.equal(micros, moment)))
            for moment in pc.unique(micros).to_pylist()
        ]

    def _select(self, columns: Sequence[str]) -> str:
        from leadml_pipelines.features.snapshots.tables import COLUMN_TYPES

        kinds = {f.name: COLUMN_TYPES[f.type] for f in self._source.view.features}
        names = ", ".join(
            f"s.{quoted(name)}"
            if name in self._there
            # A feature that was added since the view was last written.
            else f"CAST(NULL AS {kinds[name]}) AS {quoted(name)}"
            for name in columns
        )
        return (
            f"SELECT s.entity_id AS pit_entity, {names} FROM {self._table} AS s "  # noqa: S608
            "WHERE s.as_of = $1 AND s.entity_id = ANY($2)"
        )

    def _in_order(
        self, parts: Sequence[tuple[pa.Table, pa.Table]], columns: Sequence[str]
    ) -> pa.Table:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        rows, values = [], []
        for wanted, found in parts:
            place = pc.index_in(
                wanted.column("entity_id").cast(pa.string()),
                value_set=found.column("pit_entity").combine_chunks().cast(pa.string()),
            )
            if place.null_count:
                raise HistoryError(
                    f"snapshots of view {self._source.view.name} were removed while they were "
                    "read; try again"
                )
            rows.append(wanted.column("row").to_numpy())
            values.append(found.select(list(columns)).take(place.combine_chunks()))
        return pa.concat_tables(values).take(pa.array(np.concatenate(rows).argsort()))
