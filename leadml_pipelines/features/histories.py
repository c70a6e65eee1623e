"""What a history is: dated rows about entities, and what of them a training set may take.

Plain data: importing this costs nothing, and nothing is read before a join asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Union, get_args

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.view import FeatureType, FeatureView

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class HistoryError(UserError, ValueError):
    """A history, or what is asked of it, can't be used; the sentence names it and the way out."""


@dataclass(frozen=True)
class SnapshotTable:
    """The snapshots of a view that were kept in PostgreSQL, as the source of a history.

    Only moments whose snapshot was found whole are read: no other ever went online.

    Attributes:
        url: `postgresql://...`.
        view: The view.
    """

    url: str = field(repr=False)
    view: FeatureView


Source = Union[Path, Sequence[Path], "pa.Table", "pd.DataFrame", str, SnapshotTable]
"""Where a history's rows are: Parquet (a path, with `*` if need be, or several), an Arrow table, a
frame, DuckDB SQL, or the snapshots of a view."""


@dataclass(frozen=True)
class HistoryColumn:
    """A column of a history that becomes a feature.

    Attributes:
        column: Its name in the source.
        name: Name of the feature; that of the column if empty.
        type: What its values become: `double`, `integer`, `boolean` or `category` (text); as they
            are if None.
    """

    column: str
    name: str = ""
    type: FeatureType | None = None

    @property
    def feature(self) -> str:
        """Name of the feature."""
        return self.name or self.column


@dataclass(frozen=True, eq=False)
class History:
    """Dated rows about entities: what was known of whom, since when.

    A row of a spine at `t` gets the row of its entity with the greatest event time not after `t`
    that was known at `t`. Two rows with one event time are the same fact told twice: the greatest
    created time wins, and of those that share that too, the one whose columns, compared in the
    order of their names, are greatest, so that the physical order of the rows never matters. A row
    without an event time is never seen.

    Attributes:
        name: What the history is called in errors and full names.
        source: Where the rows are.
        keys: Which entity a row is about: the name of the key column in spine and source, or
            several, or `{column of the spine: column of the source}`; empty for a history about
            nobody in particular, such as a market's. A missing key matches nothing.
        event_time: Column of the moment that a row describes, with a time zone.
        created_time: Column of the moment a row became known, with a time zone; None if that is the
            event time. Where it is null, the row counts as known at its event time.
        created_filters: Whether a row is hidden before its created time. False for a history that
            was filled in afterwards from what had been known at the time: then it only breaks ties.
        ttl: Time to live: a row counts in `(t - ttl, t]` only; None for no limit.
        features: The columns that are features; all but keys and times if empty.
    """

    name: str
    source: Source
    keys: str | Sequence[str] | Mapping[str, str]
    event_time: str
    created_time: str | None = None
    created_filters: bool = True
    ttl: timedelta | None = None
    features: Sequence[str | HistoryColumn] = ()

    def __post_init__(self) -> None:
        """Refuse a declaration that has no meaning."""
        if not _NAME.fullmatch(self.name):
            raise HistoryError(
                f"a history is named {self.name!r}; use letters, digits and _, and begin with none "
                "of the digits"
            )
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise HistoryError(f"history {self.name} has ttl {self.ttl}; it must be over nothing")
        if isinstance(self.features, str):
            raise HistoryError(f"the features of history {self.name} are one text; give a list")
        names = [column.feature for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise HistoryError(
                f"history {self.name} has two features named {', '.join(twice)}; rename one: "
                "HistoryColumn(column, name=...)"
            )
        for column in self.columns:
            if column.type is not None and column.type not in get_args(FeatureType):
                raise HistoryError(
                    f"feature {column.feature} of history {self.name} has type {column.type!r}; "
                    f"use one of {', '.join(get_args(FeatureType))}"
                )

    @property
    def key_columns(self) -> dict[str, str]:
        """Column of the spine -> column of the source."""
        if isinstance(self.keys, str):
            return {self.keys: self.keys}
        if isinstance(self.keys, Mapping):
            return dict(self.keys)
        return {key: key for key in self.keys}

    @property
    def columns(self) -> tuple[HistoryColumn, ...]:
        """The features as declared; empty if all columns are."""
        return tuple(HistoryColumn(c) if isinstance(c, str) else c for c in self.features)
