"""Spines and results as frames: what goes into an engine, and what comes out of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.view import KEYS, Feature, FeatureView
from leadml_pipelines.times import require_utc_column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    Positions = npt.NDArray[np.int64]


class SpineError(UserError, ValueError):
    """A spine that can't be used; the sentence names the column and what to do."""


def features_of(views: Sequence[FeatureView]) -> list[Feature]:
    """The features of views, in order."""
    return [feature for view in views for feature in view.features]


def checked_spine(spine: pd.DataFrame) -> pd.DataFrame:
    """The two key columns of a spine, in its order, with a fresh index.

    Args:
        spine: `entity_id` as text (a missing one stays, and matches nothing) and `as_of` as
            timezone-aware times.

    Returns:
        A new frame: `entity_id` (object), `as_of` (datetime64[us, UTC]).

    Raises:
        SpineError: a key column is missing or doubled, an id is not text, or a time is missing.
        NaiveTimeError: `as_of` has no time zone.
    """
    import pandas as pd

    for key in KEYS:
        if list(spine.columns).count(key) != 1:
            raise SpineError(f"the spine must have exactly one column {key}")
    ids = spine["entity_id"].astype(object).reset_index(drop=True)
    ids = ids.where(ids.notna(), None)
    wrong = next((value for value in ids if value is not None and not isinstance(value, str)), None)
    if wrong is not None:
        raise SpineError(
            f"entity_id holds {wrong!r}, a {type(wrong).__name__}; ids are text, so convert it"
        )
    moments = spine["as_of"]
    if not len(spine) and not isinstance(moments.dtype, pd.DatetimeTZDtype):
        moments = pd.Series([], dtype="datetime64[us, UTC]")
    moments = require_utc_column(moments, "as_of").reset_index(drop=True)
    if moments.isna().any():
        raise SpineError("as_of is missing in some rows; every row of a spine needs its time")
    return pd.DataFrame({"entity_id": ids, "as_of": moments})


def distinct_keys(keys: pd.DataFrame) -> tuple[pd.DataFrame, Positions]:
    """The distinct rows of a checked spine that can match anything.

    Returns:
        `entity_id`, `as_of` and `position` (0, 1, ...) of each distinct row, and for each row of
        the spine the position of its key: int64[n], -1 where the entity is missing.
    """
    import numpy as np
    import pandas as pd

    entity, ids = pd.factorize(keys["entity_id"])
    moment, moments = pd.factorize(keys["as_of"])
    known = entity >= 0
    # One number per pair: as many as rows at most, so that nothing overflows.
    pairs = entity[known].astype(np.int64) * max(len(moments), 1) + moment[known]
    codes, distinct = pd.factorize(pairs)
    positions = np.full(len(keys), -1, dtype=np.int64)
    positions[known] = codes
    frame = pd.DataFrame(
        {
            "entity_id": pd.Series(ids[distinct // max(len(moments), 1)], dtype=object),
            "as_of": pd.Series(moments[distinct % max(len(moments), 1)], dtype=keys["as_of"].dtype),
            "position": np.arange(len(distinct), dtype=np.int64),
        }
    )
    return frame, positions


def aligned(
    keys: pd.DataFrame, positions: Positions, computed: pa.Table, features: Sequence[Feature]
) -> pd.DataFrame:
    """Give every row of a checked spine its computed values, in the spine's order.

    Args:
        keys: The checked spine.
        positions: Of its rows, from `distinct_keys`.
        computed: `position` and the features, in any order.
        features: Which they are. Rows without an entity get their defaults.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    lost = positions < 0
    row_of = np.empty(computed.num_rows, dtype=np.int64)
    row_of[computed.column("position").to_numpy()] = np.arange(computed.num_rows)
    rows = np.zeros(len(keys), dtype=np.int64)
    rows[~lost] = row_of[positions[~lost]]
    values = computed.drop_columns("position").combine_chunks()
    frame = to_pandas(values.take(pa.array(rows, mask=lost)), features)
    if lost.any():
        for feature in features:
            frame.loc[lost, feature.name] = feature.default
    return pd.concat([keys, frame], axis=1)


def arrow_type(type_: str) -> pa.DataType:
    """Arrow's type for a type of a feature."""
    import pyarrow as pa

    return {
        "double": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "category": pa.string(),
    }[type_]


def to_pandas(table: pa.Table, features: Sequence[Feature]) -> pd.DataFrame:
    """An engine's Arrow result as a frame with the declared types.

    `double` becomes float64 (NaN is missing), `integer` Int64, `boolean` boolean, and `category`
    objects that are text or None. Other columns: times become datetime64[us, UTC], text objects.
    """
    import pandas as pd

    types = {feature.name: feature.type for feature in features}
    columns = {
        name: _column(column, types.get(name, ""))
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pd.DataFrame(columns)


def _column(column: pa.ChunkedArray, type_: str) -> Any:
    import pandas as pd
    import pyarrow as pa

    if type_ == "double":
        return column.cast(pa.float64()).to_numpy()
    if type_ == "integer":
        return column.cast(pa.int64()).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    if type_ == "boolean":
        return column.cast(pa.bool_()).to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    if (
        type_ == "category"
        or pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
    ):
        return pd.Series(column.cast(pa.large_string()).to_pylist(), dtype=object)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", "UTC")).to_pandas().astype("datetime64[us, UTC]")
    return column.to_pandas()
