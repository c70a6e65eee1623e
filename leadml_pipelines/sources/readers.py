"""Files in batches: CSV and Parquet of any size in bounded memory, only the columns asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.sources.mapping import Files, MappingError

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 50_000
CSV_BLOCK = 2 * 1024 * 1024
"""Bytes of a CSV block; Arrow reads some 30 of them ahead, which bounds the memory."""


@dataclass(frozen=True)
class Piece:
    """A batch of a file.

    Attributes:
        rows: The columns asked for; those of a CSV are all text, an empty field is missing.
        broken: Lines of a CSV that don't have as many fields as its header.
    """

    rows: pd.DataFrame
    broken: tuple[str, ...] = ()


def find(files: Files, data_dir: Path) -> list[Path]:
    """The files of a `[files.<name>]`, sorted by name.

    Raises:
        MappingError: there are none.
    """
    found = sorted(path for path in data_dir.glob(files.path) if path.is_file())
    if not found:
        raise MappingError(f"no file below {data_dir} fits {files.path!r}")
    return found


def count_rows(files: Files, path: Path) -> int | None:
    """The number of rows, where the file tells it without being read."""
    import pyarrow.parquet as pq

    if _format(files, path) == "parquet":
        with _readable(path), pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    return None


def read(files: Files, path: Path, columns: tuple[str, ...]) -> Iterator[Piece]:
    """Yield a file in batches, in its order.

    Raises:
        MappingError: a column is not in the file, or the file is not what it should be.
    """
    with _readable(path):
        if _format(files, path) == "parquet":
            yield from _read_parquet(path, columns)
        else:
            yield from _read_csv(files, path, columns)


def _read_parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _require(path, columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            yield Piece(batch.to_pandas(types_mapper=_whole_numbers))


def _whole_numbers(kind: Any) -> Any:
    """Nullable integers: an id must not become 5.0 because another row has none."""
    import pandas as pd
    import pyarrow as pa

    return pd.Int64Dtype() if pa.types.is_signed_integer(kind) else None


def _read_csv(files: Files, path: Path, columns: tuple[str, ...]) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.csv as csv

    broken: list[str] = []

    def keep(row: Any) -> str:
        broken.append(row.text)
        return "skip"

    def open_csv(convert: csv.ConvertOptions | None) -> Any:
        return csv.open_csv(
            path,
            read_options=csv.ReadOptions(
                block_size=CSV_BLOCK, encoding=files.encoding, use_threads=False
            ),
            parse_options=csv.ParseOptions(
                delimiter=files.delimiter, newlines_in_values=True, invalid_row_handler=keep
            ),
            convert_options=convert,
        )

    with open_csv(None) as header:
        names = header.schema.names
    _require(path, columns, names)
    broken.clear()
    convert = csv.ConvertOptions(
        include_columns=list(columns),
        # Text all the way: "007" stays an id, and the door reads numbers and times itself.
        column_types={name: pa.string() for name in names},
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    with open_csv(convert) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                rows = batch.slice(start, BATCH_ROWS).to_pandas()
                yield Piece(rows, tuple(broken))
                broken.clear()
    if broken:
        nothing = pa.table({name: pa.array([], pa.string()) for name in columns})
        yield Piece(nothing.to_pandas(), tuple(broken))


def _format(files: Files, path: Path) -> str:
    if files.format is not None:
        return files.format
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("csv", "parquet"):
        raise MappingError(f"{path} is neither .csv nor .parquet; name its format in the mapping")
    return suffix


def _require(path: Path, columns: tuple[str, ...], there: list[str]) -> None:
    missing = [name for name in columns if name not in there]
    if missing:
        raise MappingError(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(there)}"
        )


class _readable:  # noqa: N801 - reads as a statement
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowInvalid | pa.ArrowKeyError | LookupError):
            raise MappingError(f"{self._path} can't be read: {error}") from error
