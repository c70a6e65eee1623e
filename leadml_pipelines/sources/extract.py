"""The extract: the source tables as Parquet, of one moment, for everything that works in bulk.

One REPEATABLE READ snapshot of all tables, streamed through Arrow in bounded memory into a hidden
folder that takes its name only when it is whole: whoever looks finds whole extracts or none.

Rows of our own tables came through the door and carry its constraints; they are not judged again
(that would take three times as long as reading them). Rows of a table or view of the customer's are
judged by the same functions as at the door; those that break the contract go to the quarantine and
are left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leadml_pipelines.errors import UserError
from leadml_pipelines.postgres import arrow_connection, connect
from leadml_pipelines.sources.contract import EXTRACT_TABLES, PRECISION, TABLES, Column, Table
from leadml_pipelines.sources.faults import DUPLICATE_KEY, UNKNOWN_LEAD
from leadml_pipelines.sources.quarantine import put
from leadml_pipelines.sources.validation import validate
from leadml_pipelines.sources.views import (
    NO_LEAD,
    OTHER_CONTENT,
    REPEATED,
    Relations,
    record_lead_versions,
    select,
    select_view,
)
from leadml_pipelines.times import from_micros, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
ROW_GROUP = 122_880
"""Rows of a Parquet row group: the unit in which DuckDB reads in parallel."""

Progress = Callable[[int, int | None, str], None]
"""Called with rows done, rows in all (None while unknown), and what is being done."""


@dataclass(frozen=True)
class Extract:
    """A finished extract on disk.

    Attributes:
        path: Its folder.
        extract_id: Its name; later ones sort after earlier ones.
        as_of: The present of everything computed from it.
        data_end: When the newest thing in it happened, not after `as_of`: labels are known up to
            here. A row written or received later, or a new agent, moves it not.
        rows: Table -> number of rows.
        left_out: Table -> rows of a relation of the customer's that broke the contract.
    """

    path: Path
    extract_id: str
    as_of: datetime
    data_end: datetime
    rows: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)

    def table(self, name: str) -> Path:
        """The Parquet file of a table.

        Raises:
            KeyError: the extract has no such table; the message lists those it has.
        """
        if name not in self.rows:
            raise KeyError(f"the extract has no table {name}; it has {', '.join(self.rows)}")
        return self.path / f"{name}.parquet"

    @property
    def tables(self) -> dict[str, Path]:
        """Table -> its Parquet file."""
        return {name: self.table(name) for name in self.rows}


class NoExtractError(UserError, FileNotFoundError):
    """There is no extract yet."""


class NoHistoryError(UserError, ValueError):
    """There are leads, but no versions of them: all that features tell of a lead would be empty."""


def latest_extract(root: Path) -> Extract:
    """The newest whole extract below `root`.

    Raises:
        NoExtractError: there is none.
    """
    for folder in reversed(_finished(root)):
        return read_extract(folder)
    raise NoExtractError(f"there is no extract in {root}; materialize the sources first")


def read_extract(folder: Path) -> Extract:
    """The extract in a folder."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Extract(
        path=folder,
        extract_id=content["extract_id"],
        as_of=datetime.fromisoformat(content["as_of"]),
        data_end=datetime.fromisoformat(content["data_end"]),
        rows=content["rows"],
        left_out=content["left_out"],
    )


def extract_sources(
    url: str,
    root: Path,
    *,
    schema: str = "crm",
    clock: Literal["now", "data"] = "now",
    keep: int = 3,
    progress: Progress | None = None,
) -> Extract:
    """Write the source tables of this moment below `root`.

    Args:
        url: PostgreSQL, migrated.
        root: Folder of the extracts; one process at a time works in it, others wait.
        schema: Schema of the source tables or views.
        clock: `now`: `as_of` is the present; `data`: it is `data_end`.
        keep: How many of the newest extracts stay.
        progress: Told after every batch; the number in all is the planner's estimate.

    Raises:
        LookupError: a source table is missing, or lacks a column.
        NoHistoryError: there are leads, but no versions of them.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        for leftover in root.glob(".*.partial"):
            shutil.rmtree(leftover)
        relations = Relations.read(url, schema)
        record_lead_versions(url, relations)
        extract_id = utc_now().strftime("%Y%m%dT%H%M%S%fZ")
        partial = root / f".{extract_id}.partial"
        partial.mkdir()
        try:
            writer = _Writer(url, relations, partial, progress)
            taken_at = writer.run()
            _require_history(schema, writer.rows)
            newest = min(writer.newest or taken_at, taken_at)
            finished = Extract(
                path=root / extract_id,
                extract_id=extract_id,
                as_of=taken_at if clock == "now" else newest,
                data_end=newest,
                rows=writer.rows,
                left_out=writer.left_out,
            )
            _write_manifest(partial, finished, schema)
            partial.rename(finished.path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in _finished(root)[:-keep] if keep > 0 else []:
            hidden = root / f".{old.name}.partial"
            old.rename(hidden)
            shutil.rmtree(hidden)
    return finished


class _Writer:
    """Streams all tables of one snapshot into a folder."""

    def __init__(
        self, url: str, relations: Relations, folder: Path, progress: Progress | None
    ) -> None:
        self._url = url
        self._relations = relations
        self._folder = folder
        self._progress = progress
        self._done = 0
        self.rows: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.newest: datetime | None = None

    def run(self) -> datetime:
        """Write every table and return the moment of the snapshot."""
        with arrow_connection(self._url) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
            taken_at = from_micros(int(cursor.fetchone()[0]))
            for name in EXTRACT_TABLES:
                self._write(cursor, TABLES[name])
            connection.rollback()
        return taken_at

    def _write(self, cursor: Any, table: Table) -> None:
        import pyarrow.parquet as pq

        self._tell(table.name)
        judged = self._relations.judged(table.name)
        schema_name = self._relations.schema
        cursor.execute(select_view(schema_name, table) if judged else select(schema_name, table))
        schema = arrow_schema(table)
        self.rows[table.name] = 0
        path = self._folder / f"{table.name}.parquet"
        with (
            cursor.fetch_record_batch() as reader,
            pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer,
        ):
            for piece in _gather(reader):
                if judged:
                    rows, left_out = self._judge(table, piece)
                    self.left_out[table.name] = self.left_out.get(table.name, 0) + left_out
                else:
                    rows = _cast(piece, schema)
                self._note_times(table, rows)
                writer.write_table(rows, row_group_size=ROW_GROUP)
                self.rows[table.name] += rows.num_rows
                self._done += piece.num_rows
                self._tell(table.name)

    def _judge(self, table: Table, piece: pa.Table) -> tuple[pa.Table, int]:
        """The good rows of a relation in the contract's types, and how many were refused."""
        import pyarrow as pa

        frame = piece.to_pandas()
        rows = frame[~frame[REPEATED]].reset_index(drop=True)
        checked = validate(table.name, rows[list(table.names)])
        faults = checked.faults
        for position in rows.index[rows[NO_LEAD].notna()]:
            lead_id = rows[NO_LEAD][position]
            faults.add(position, UNKNOWN_LEAD, f"there is no lead {lead_id!r}")
        faults.add_all(
            rows.index[rows[OTHER_CONTENT]],
            DUPLICATE_KEY,
            "another row has the same key",
        )
        if len(faults):
            kind = self._relations.kinds[table.name]
            origin = f"{kind} {self._relations.schema}.{table.name}"
            with connect(self._url) as connection:
                put(connection, table.name, checked.raw, faults, origin)
        good = checked.good.drop(index=[i for i in faults.by_row if i in checked.good.index])
        kept = pa.Table.from_pandas(good, preserve_index=False)
        return _cast(kept, arrow_schema(table)), len(faults)

    def _note_times(self, table: Table, rows: pa.Table) -> None:
        import pyarrow.compute as pc

        for name in table.happened:
            newest = pc.max(rows[name]).as_py()
            if newest is not None and (self.newest is None or newest > self.newest):
                self.newest = newest.astimezone(UTC)

    def _tell(self, name: str) -> None:
        if self._progress is not None:
            total = self._relations.estimate
            self._progress(self._done, None if total is None else max(total, self._done), name)


def arrow_schema(table: Table) -> pa.Schema:
    """The Parquet schema of a source table; jsonb is text."""
    import pyarrow as pa

    def kind(column: Column) -> pa.DataType:
        if column.type == "numeric":
            return pa.decimal128(PRECISION, column.scale)
        types = {
            "text": pa.string(),
            "json": pa.string(),
            "integer": pa.int64(),
            "timestamp": pa.timestamp("us", tz="UTC"),
        }
        return types[column.type]

    return pa.schema([(column.name, kind(column)) for column in table.columns])


def _gather(reader: Any) -> Iterator[pa.Table]:
    """Batches of the driver, put together to whole row groups."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= ROW_GROUP:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [rows[name].cast(schema.field(name).type) for name in schema.names]
    return pa.table(columns, schema=schema)


def _require_history(schema: str, rows: dict[str, int]) -> None:
    if rows["leads"] and not rows["lead_versions"]:
        raise NoHistoryError(
            f"{schema}.leads has {rows['leads']} rows that obey the contract, but "  # noqa: S608
            f"{schema}.lead_versions has none, and features read what a lead was from there. Make "
            f"{schema}.lead_versions a table that LeadML may write (CREATE TABLE "
            f"{schema}.lead_versions (LIKE crm.lead_versions INCLUDING ALL)), and every extract "
            "records the history; or give a view of the history that you keep; for want of one: "
            f"CREATE VIEW {schema}.lead_versions AS SELECT lead_id, created_at AS valid_from, "
            f"{', '.join(TABLES['lead_versions'].names[2:])} FROM {schema}.leads"
        )


def _write_manifest(folder: Path, extract: Extract, schema: str) -> None:
    content = {
        "extract_id": extract.extract_id,
        "as_of": extract.as_of.isoformat(),
        "data_end": extract.data_end.isoformat(),
        "rows": extract.rows,
        "left_out": extract.left_out,
        "schema": schema,
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _finished(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(
        folder
        for folder in root.iterdir()
        if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
    )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    # The kernel frees the lock when its process dies, so what lies half written is nobody's.
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
