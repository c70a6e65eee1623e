"""Spines in any form, a frame or an Arrow table: their columns, their times, and what is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.times import NaiveTimeError, require_utc_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


def is_frame(spine: Any) -> bool:
    """Whether a spine is a frame, not an Arrow table."""
    import pandas as pd

    return isinstance(spine, pd.DataFrame)


def column_names(spine: Any) -> list[str]:
    """The names of a spine's columns."""
    import pyarrow as pa

    return list(spine.column_names if isinstance(spine, pa.Table) else spine.columns)


def require_free(columns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse features named like a column of the spine."""
    taken = [str(column) for column in columns if column in set(names)]
    if taken:
        raise SpineError(
            f"the spine has a column named {', '.join(taken)}, as a feature is; rename it"
        )


def column_of(spine: Any, name: str) -> Any:
    """A column of a spine, which must be there exactly once."""
    import pyarrow as pa

    count = column_names(spine).count(name)
    if count != 1:
        raise SpineError(
            f"the spine must have exactly one column {name}, and has {count or 'none'}"
            f"{near(name, column_names(spine)) if not count else ''}"
        )
    return spine.column(name) if isinstance(spine, pa.Table) else spine[name]


def arrow_of(spine: Any, name: str) -> pa.ChunkedArray:
    """A column of a spine as Arrow."""
    import pyarrow as pa

    column = column_of(spine, name)
    if isinstance(column, pa.ChunkedArray):
        return column
    try:
        return pa.chunked_array([pa.Array.from_pandas(column)])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SpineError(
            f"column {name} of the spine holds values of several types; keys are all text or all "
            "whole numbers, so convert it"
        ) from error


def spine_times(spine: pd.DataFrame | pa.Table, time: str) -> np.ndarray:
    """A spine's times in microseconds.

    Raises:
        SpineError: the column is missing or doubled, or a time is missing.
        NaiveTimeError: a time has no zone.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    column = column_of(spine, time)
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
    frame.columns = pd.Index(table.column_names)
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
        dtype: Any = pd.api.types.pandas_dtype(str(kind).capitalize().replace("Uint", "UInt"))
        return column.to_pandas(types_mapper={kind: dtype}.get)
    if pa.types.is_floating(kind):
        return column.to_pandas()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        micros = column.cast(pa.timestamp("us", "UTC"), safe=False)
        return micros.to_pandas().astype("datetime64[us, UTC]")
    return pd.Series(column.to_pylist(), dtype=object)


def near(name: str, known: Any) -> str:
    """`; did you mean ...?`, if anything known is like a name."""
    found = get_close_matches(name, [str(k) for k in known], n=3)
    return f"; did you mean {' or '.join(found)}?" if found else ""
