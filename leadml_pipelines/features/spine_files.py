"""Spines from files, and training sets to files: CSV or Parquet, by the end of the name."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.saved_sets import parquet
from leadml_pipelines.times import NaiveTimeError

if TYPE_CHECKING:
    import pandas as pd

_ZONE = re.compile(r"[tT\s]\d{2}[\d:.,]*\s*(?:[zZ]|[+-]\d{2}(?::?\d{2})?)\s*$")
"""A time of day and its zone: the day of a bare date, `-31`, would pass for a zone."""


class SpineFileError(UserError, ValueError):
    """A file that can't be read as a spine or written as a training set; the sentence names it."""


def read_spine(
    path: Path, *, ids: Sequence[str] = ("entity_id",), time: str = "as_of"
) -> pd.DataFrame:
    """Read a spine.

    Args:
        path: `.csv` (a header, commas, UTF-8; an empty field is missing) or `.parquet`.
        ids: Columns of ids, which are text even where they look like numbers.
        time: Column of times. In a CSV each carries its zone, as in `2026-01-31T09:30:00+01:00`.

    Raises:
        SpineFileError: the file is of another kind, broken, or lacks the column of times.
        NaiveTimeError: a time has no zone, or a date no time.
    """
    import pandas as pd

    kind = _kind(path)
    try:
        if kind == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys((*ids, time), "str"),
            dtype_backend="numpy_nullable",
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, OSError) as error:
        raise SpineFileError(f"{path} can't be read as {kind[1:]}: {error}") from error
    if time not in frame:
        raise SpineFileError(f"{path} has no column {time}; it has {', '.join(frame.columns)}")
    return frame.assign(**{time: _times(path, frame[time], time)})


def require_new(path: Path, overwrite: bool) -> None:
    """Refuse a file that is there already, unless it may be written over, or has no known kind.

    Raises:
        SpineFileError: it is, or it is neither `.csv` nor `.parquet`.
    """
    _kind(path)
    if path.exists() and not overwrite:
        raise SpineFileError(f"{path} is there already; name another file, or give --overwrite")


def write_rows(path: Path, frame: pd.DataFrame) -> None:
    """Write a training set, whole or not at all.

    Times with a zone are in UTC in a CSV, with their zone; others stay without one.
    """
    content = parquet(frame)
    if _kind(path) == ".csv":
        zoned = frame.select_dtypes("datetimetz")
        texts = {str(name): _utc_texts(zoned[name]) for name in zoned}
        content = frame.assign(**texts).to_csv(index=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    number, staging = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        Path(staging).chmod(0o644)
        Path(staging).replace(path)
    finally:
        Path(staging).unlink(missing_ok=True)


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise SpineFileError(f"{path} is neither .csv nor .parquet")
    return kind


def _utc_texts(times: pd.Series) -> pd.Series:
    return times.dt.tz_convert("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def _times(path: Path, texts: pd.Series, name: str) -> pd.Series:
    import pandas as pd

    given = texts[texts.notna()]
    naive = given[~given.str.contains(_ZONE)]
    if len(naive):
        # The header is line 1.
        raise NaiveTimeError(
            f"line {naive.index[0] + 2} of {path}: {name} is {naive.iloc[0]}, which is no time "
            "with a zone; write both, as in 2026-01-31T09:30:00+00:00"
        )
    try:
        return pd.to_datetime(texts, format="ISO8601", utc=True).astype("datetime64[us, UTC]")
    except ValueError as error:
        raise SpineFileError(
            f"{path}: {name} holds what is no time, such as 2026-01-31T09:30:00+01:00: {error}"
        ) from error
