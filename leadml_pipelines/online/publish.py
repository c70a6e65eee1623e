"""Putting a feature snapshot online."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from leadml_pipelines.online.format import Micros, Schema, encode
from leadml_pipelines.online.keys import is_allowed_id
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.online.values import FeatureLike, check, schema_for
from leadml_pipelines.times import require_utc, require_utc_column, to_micros, utc_now

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 10_000
"""Entities that are packed at once: bounds the memory, whatever the size of the snapshot."""

Progress = Callable[[int, int], None]
"""Told how many entities of how many are done."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a snapshot.

    Attributes:
        written: Entities whose values are online now.
        kept_newer: Entities that already had newer values online, which stay.
        held_back: Values that were not put online; their feature is missing there.
        reasons: How many were held back, by `feature: reason`.
        schema_id: Schema of the values.
        seconds: How long it took.
        is_current: Whether readers now see this snapshot as the newest whole one.
    """

    written: int
    kept_newer: int
    held_back: int
    reasons: Mapping[str, int]
    schema_id: int
    seconds: float
    is_current: bool


@dataclass(frozen=True, slots=True)
class Packed:
    """Entities ready to be written.

    Attributes:
        schema: Schema of the payloads; store it first.
        ids: Entity ids.
        payloads: Their packed values.
        held_back: Values that were left out, by (feature or `entity_id`, reason).
    """

    schema: Schema
    ids: list[str]
    payloads: list[bytes]
    held_back: Counter[tuple[str, str]]


def publish_snapshot(
    store: OnlineStore,
    entity_type: str,
    features: Sequence[FeatureLike],
    frame: pd.DataFrame,
    as_of: datetime,
    progress: Progress | None = None,
    *,
    leave_out: Set[str] = frozenset(),
    checked_at: datetime | None = None,
    computed_at: datetime | None = None,
) -> Published:
    """Put a checked snapshot online; the pointer to it moves last.

    A value out of its range or of a wrong type is left out and counted, never written. An entity
    that has something newer online keeps it.

    Args:
        store: Where to.
        entity_type: Such as `lead`.
        features: Features of the catalogue.
        frame: `entity_id` and the features; may have `as_of` and `computed_at` of its own per row.
        as_of: The moment that the snapshot describes.
        progress: Told how many entities of how many are done.
        leave_out: Entities that changed since (`changed.changed_since`).
        checked_at: When it was found whole; the pointer tells it.
        computed_at: When the rows were computed: PostgreSQL's clock before they were read, or
            what an event made untrue meanwhile would count as newer than the event. The present
            if None, which will do where nothing is posted.

    Raises:
        ValueError: the frame lacks a feature or its times have no zone.
    """
    if leave_out:
        frame = frame[~frame["entity_id"].isin(leave_out)]
    start = time.perf_counter()
    known = utc_now() if computed_at is None else require_utc(computed_at, "computed_at")
    moment = require_utc(as_of, "as_of")
    schema = schema_for(entity_type, features, frame, store.current_schema(entity_type))
    store.put_schema(schema)
    written = kept_newer = 0
    held_back: Counter[tuple[str, str]] = Counter()
    for first in range(0, len(frame), CHUNK):
        packed = pack(schema, features, frame.iloc[first : first + CHUNK], moment, known)
        outcome = store.write_batch(entity_type, packed.ids, packed.payloads)
        written += outcome.written
        kept_newer += outcome.kept_newer
        held_back += packed.held_back
        if outcome.future:
            held_back["as_of", "in the future"] += outcome.future
        if progress is not None:
            progress(min(first + CHUNK, len(frame)), len(frame))
    details = {"entities": written + kept_newer, "published_at": utc_now().isoformat()}
    if checked_at is not None:
        details["checked_at"] = require_utc(checked_at, "checked_at").isoformat()
    moved = store.point_to_snapshot(schema, moment, details)
    return Published(
        written=written,
        kept_newer=kept_newer,
        held_back=held_back.total(),
        reasons={f"{what}: {why}": count for (what, why), count in held_back.most_common()},
        schema_id=schema.schema_id,
        seconds=time.perf_counter() - start,
        is_current=moved,
    )


def pack(
    schema: Schema,
    features: Sequence[FeatureLike],
    frame: pd.DataFrame,
    as_of: datetime,
    computed_at: datetime,
) -> Packed:
    """Check and pack the entities of a frame.

    Args:
        schema: From `schema_for` of a frame that contains this one.
        features: The same features, with their ranges.
        frame: `entity_id` and the features; `as_of` and `computed_at` where rows have their own.
        as_of: Moment of the rows where the frame has no such column.
        computed_at: When the rows were computed, likewise; not later than they were read, or an
            old row could win over a correction of the same moment.
    """
    ids = frame["entity_id"].astype(object).tolist()
    allowed = [at for at, entity_id in enumerate(ids) if is_allowed_id(entity_id)]
    held_back: Counter[tuple[str, str]] = Counter()
    if len(allowed) < len(ids):
        held_back["entity_id", "can be no key"] = len(ids) - len(allowed)
        frame, ids = frame.iloc[allowed], [ids[at] for at in allowed]
    checked = check(schema, features, frame)
    payloads = encode(
        schema,
        _micros(frame, "as_of", as_of),
        _micros(frame, "computed_at", computed_at),
        checked.values,
    )
    return Packed(schema, ids, payloads, held_back + checked.held_back)


def _micros(frame: pd.DataFrame, column: str, default: datetime) -> Micros | int:
    """A column of times as microseconds since 1970 UTC, or the default for all."""
    if column not in frame:
        return to_micros(default)
    moments = require_utc_column(frame[column], column)
    if moments.isna().any():
        raise ValueError(f"column {column} has a missing time; every row needs one")
    return moments.to_numpy("datetime64[us]").astype(np.int64)
