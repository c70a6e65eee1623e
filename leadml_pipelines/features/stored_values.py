"""Values of stored features for the rows of a spine: computed from events, or out of snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from leadml_pipelines.features.frames import arrow_type
from leadml_pipelines.features.histories import History, HistoryColumn, SnapshotTable
from leadml_pipelines.features.point_in_time import join_histories
from leadml_pipelines.features.spines import arrow_of, column_of, spine_times
from leadml_pipelines.features.view import Feature, FeatureView

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

Values = dict[str, "pa.ChunkedArray"]
"""Feature -> its values, in the order of the spine's rows."""


class BulkEngine(Protocol):
    """What the store needs of the bulk engine."""

    def compute(self, views: Sequence[FeatureView], spine: pd.DataFrame) -> pd.DataFrame:
        """Views for every row of a spine, in its order."""
        ...

    def sql(self, query: str, params: Any = None, **frames: pd.DataFrame) -> pd.DataFrame:
        """A query over the source tables and the given frames."""
        ...


def values_from_events(
    engine: BulkEngine,
    views: Sequence[FeatureView],
    features: Sequence[Feature],
    rows: pd.DataFrame,
    chunk_rows: int | None = None,
) -> Values:
    """Features computed from raw events as of each row.

    Args:
        engine: Over the events.
        views: Views of one entity type.
        features: Which of their features.
        rows: `entity_id` and `as_of`, as `key_rows` makes them.
        chunk_rows: How many rows at a time; all if None.
    """
    import pandas as pd

    names = [feature.name for feature in features]
    step = max(len(rows), 1) if chunk_rows is None else chunk_rows
    parts = [
        engine.compute(views, rows.iloc[start : start + step])[names]
        for start in range(0, max(len(rows), 1), step)
    ]
    computed = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return {f.name: to_arrow(computed[f.name], f.type) for f in features}


def values_from_snapshots(
    url: str,
    views: Sequence[FeatureView],
    features: Sequence[Feature],
    spine: Any,
    key: str,
    time: str,
    chunk_rows: int | None = None,
    **limits: Any,
) -> Values:
    """Features out of the newest checked snapshot not after each row's time.

    Args:
        url: `postgresql://...`.
        views: Views of one entity type; each one's time to live is applied.
        features: Which of their features.
        spine: A frame or an Arrow table.
        key: Its column of ids.
        time: Its column of times.
        chunk_rows: How many rows at a time; all if None.
        limits: As those of `join_histories`.
    """
    import pyarrow as pa

    histories = [
        History(
            view.name,
            SnapshotTable(url, view),
            {key: "entity_id"},
            "as_of",
            created_time="created_at",
            # A day that was filled in afterwards was computed under both clocks as of its moment.
            created_filters=False,
            ttl=view.ttl,
            features=[HistoryColumn(f.name, type=f.type) for f in features if f in view.features],
        )
        for view in views
    ]
    # Keys and times alone: other columns of the spine may be named like features.
    moments = pa.array(spine_times(spine, time)).cast(pa.timestamp("us", "UTC"))
    narrow = pa.table({key: arrow_of(spine, key), time: moments})
    joined: Any = join_histories(narrow, histories, time=time, chunk_rows=chunk_rows, **limits)
    return {feature.name: joined.column(feature.name) for feature in features}


def key_rows(spine: Any, key: str, moments: np.ndarray) -> pd.DataFrame:
    """A spine as the engine takes it: `entity_id` and `as_of`, with a fresh index."""
    import pandas as pd

    ids = column_of(spine, key)
    if not isinstance(spine, pd.DataFrame):
        ids = pd.Series(ids.to_pylist(), dtype=object)
    times = pd.Series(moments, dtype="int64").astype("datetime64[us]").dt.tz_localize("UTC")
    return pd.DataFrame({"entity_id": ids.reset_index(drop=True), "as_of": times})


def to_arrow(column: pd.Series, type_: str) -> pa.ChunkedArray:
    """A column of a feature of a type, as Arrow."""
    import pyarrow as pa

    return pa.chunked_array([pa.array(column, arrow_type(type_), from_pandas=True)])
