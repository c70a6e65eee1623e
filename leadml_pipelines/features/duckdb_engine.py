"""The bulk engine: DuckDB over Parquet extracts of the source tables."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.closing import Closing
from leadml_pipelines.errors import UserError
from leadml_pipelines.features.compiler import compile_views
from leadml_pipelines.features.frames import (
    aligned,
    checked_spine,
    distinct_keys,
    features_of,
    to_pandas,
)
from leadml_pipelines.features.relations import RELATIONS, SOURCE_TABLES
from leadml_pipelines.features.sql_text import literal, quoted
from leadml_pipelines.features.view import FeatureView

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from leadml_pipelines.features.catalogue import Catalogue

_LATE_TABLES = {"graph_metrics": "graph_metrics"}
"""Tables that are not part of an extract from the start -> the asset that adds them to it."""


DEEP = 4
"""Rows of a spine per entity from which on totals are kept along the history.

On 5 M events of 100 k leads the pairs of a spine row with each event cost 0.8 s for one row per
lead, and the running totals 3 s for any number of them."""


class MissingTableError(UserError):
    """A table that features need was not given to the engine."""


class DuckDBEngine(Closing):
    """Computes views for whole spines, out of core, over Parquet files.

    Use it in a `with` block. Inside DuckDB times are naive UTC `TIMESTAMP`s; on both sides of it
    they carry their zone.

    Args:
        tables: Source table -> Parquet file. `graph_metrics` may be missing or not exist as long
            as only views are computed that do not read it: a table that is not there is never
            taken for an empty one.
        memory_limit: What DuckDB may hold before it spills to `temp_directory`, as in `4GB`.
        threads: All cores if None.
        temp_directory: Where to spill; a folder of the system's by default.
        catalogue: Where views that others are built on are found; the built-in one by default.

    Raises:
        MissingTableError: a source table is not there.
    """

    def __init__(
        self,
        tables: Mapping[str, Path],
        *,
        memory_limit: str = "4GB",
        threads: int | None = None,
        temp_directory: Path | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        import duckdb

        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            # Without extensions nothing is looked up or loaded at run time.
            "autoinstall_known_extensions": False,
        }
        if threads is not None:
            config["threads"] = threads
        if temp_directory is not None:
            config["temp_directory"] = str(temp_directory)
        self._catalogue = catalogue
        self._missing: dict[str, Path | None] = {}
        self._connection = duckdb.connect(":memory:", config=config)
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            for name in dict.fromkeys((*SOURCE_TABLES, *tables)):
                self._expose(name, tables.get(name))
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close DuckDB; the engine can't be used after it."""
        self._connection.close()

    def _expose(self, name: str, path: Path | None) -> None:
        if path is None or not path.exists():
            if name not in _LATE_TABLES:
                raise MissingTableError(
                    f"the bulk engine needs the table {name}"
                    + (f", and {path} does not exist" if path else "")
                    + "; materialize the sources first"
                )
            self._missing[name] = path
            return
        scan = f"read_parquet({literal(str(path))})"
        described = self._connection.execute(f"DESCRIBE FROM {scan}").fetchall()
        columns = ", ".join(
            # The session is in UTC, so the cast keeps the instant.
            f"CAST({quoted(column)} AS TIMESTAMP) AS {quoted(column)}"
            if kind == "TIMESTAMP WITH TIME ZONE"
            else quoted(column)
            for column, kind, *_ in described
        )
        self._connection.execute(f"CREATE VIEW {quoted(name)} AS FROM {scan} SELECT {columns}")

    def compute(self, views: Sequence[FeatureView], spine: pd.DataFrame) -> pd.DataFrame:
        """Compute views for every row of a spine.

        Args:
            views: Any views of one entity type; those they are built on are computed with them.
            spine: `entity_id` (text) and `as_of` (timezone-aware), in any order, repeats allowed;
                other columns are ignored.

        Returns:
            `entity_id`, `as_of` and the features; one row per row of the spine, in its order.

        Raises:
            SpineError, NaiveTimeError: the spine can't be used.
            MissingTableError: the views read a table that the extract does not have yet.
        """
        self._require_tables(views)
        keys = checked_spine(spine)
        if not views:
            return keys
        wanted, positions = distinct_keys(keys)
        features = features_of(views)
        sql = compile_views(
            views,
            "duckdb",
            catalogue=self._catalogue,
            spine="SELECT entity_id, as_of, position FROM distinct_spine",
            numbered=True,
            deep=len(wanted) > DEEP * wanted["entity_id"].nunique(),
        )
        computed = self._query(sql, None, {"distinct_spine": wanted})
        return aligned(keys, positions, computed, features)

    def _require_tables(self, views: Sequence[FeatureView]) -> None:
        """Refuse views over a missing table: it would pass for one in which nothing is known."""
        from leadml_pipelines.features.catalogue import catalogue as built_in

        if not self._missing:
            return
        found = built_in() if self._catalogue is None else self._catalogue
        for view in found.with_dependencies(views):
            for name in view.reads:
                tables = RELATIONS[name].tables if name in RELATIONS else ()
                for table in self._missing.keys() & set(tables):
                    path = self._missing[table]
                    raise MissingTableError(
                        f"the view {view.name} reads {table}, and "
                        + (f"{path} does not exist" if path else "the extract has no such table")
                        + f"; materialize the asset {_LATE_TABLES[table]} for this extract first"
                    )

    def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None, **frames: Any
    ) -> pd.DataFrame:
        """Run a query over the source tables, for labels and spines.

        Args:
            query: DuckDB SQL. Times are naive UTC `TIMESTAMP`s in it.
            params: Values of `?`, `$1` or `$name`. Timezone-aware times are converted.
            **frames: DataFrames to query, under their names; their times must carry a zone.

        Returns:
            The result; times come back as datetime64[us, UTC], text as objects.
        """
        return to_pandas(self._query(query, params, frames), ())

    def _query(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None,
        frames: Mapping[str, pd.DataFrame],
    ) -> pa.Table:
        # A cursor of its own: frames of one call are not seen by another.
        cursor = self._connection.cursor()
        try:
            cursor.execute("SET TimeZone = 'UTC'")
            for name, frame in frames.items():
                _register(cursor, name, frame)
            result = cursor.sql(query, params=None if params is None else _naive(params))
            return result.to_arrow_table()
        finally:
            cursor.close()


def _register(cursor: duckdb.DuckDBPyConnection, name: str, frame: pd.DataFrame) -> None:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    columns = ", ".join(
        f"CAST({quoted(column.name)} AS TIMESTAMP) AS {quoted(column.name)}"
        if pa.types.is_timestamp(column.type)
        # A column of nothing but missing text arrives without a type.
        else f"CAST({quoted(column.name)} AS VARCHAR) AS {quoted(column.name)}"
        if pa.types.is_null(column.type)
        else quoted(column.name)
        for column in table.schema
    )
    raw = f"frame_{secrets.token_hex(8)}"
    cursor.register(raw, table)
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS FROM {raw} SELECT {columns}")


def _naive(params: Sequence[Any] | Mapping[str, Any]) -> Any:
    from datetime import datetime

    from leadml_pipelines.times import require_utc

    def one(value: Any, name: str) -> Any:
        if isinstance(value, datetime):
            return require_utc(value, name).replace(tzinfo=None)
        return value

    if isinstance(params, Mapping):
        return {name: one(value, name) for name, value in params.items()}
    return [one(value, f"parameter {i}") for i, value in enumerate(params, start=1)]
