"""Features of entities: from Redis, and computed in PostgreSQL at once where Redis lacks them.

A value that is missing, was made untrue by an event, is older than its freshness or can't be read
is computed there and then, by one caller however many ask, and written back. The newest checked
snapshot stays as what is left when PostgreSQL is there but can't compute (a view that takes too
long, a column that the customer renamed): yesterday's values, marked `stale`, are worth more to a
caller than none. They are never written back, for they may lack an event that was posted since.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import redis
import structlog
from prometheus_client import Counter

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.present import Clock
from leadml_pipelines.features.view import FRESHNESS
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import (
    FormatError,
    Moments,
    Rows,
    Schema,
    decode,
    encode,
    moments,
)
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.online.publish import pack
from leadml_pipelines.online.store import MAX_BATCH, OnlineStore
from leadml_pipelines.online.values import check_rows, schema_for
from leadml_pipelines.serving.connections import PostgresUnavailableError, StatementFailedError
from leadml_pipelines.serving.errors import ApiError, some
from leadml_pipelines.serving.flights import Flights, FlightTimeoutError
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.serving.schemas import WritingSchemas
from leadml_pipelines.serving.staleness import StaleShare
from leadml_pipelines.times import to_micros, utc_now

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.postgres_engine import PresentRow
    from leadml_pipelines.features.view import Feature
    from leadml_pipelines.serving.served_log import ServedLog

COMPUTING_SECONDS = 5.0
"""What computing may take for each thousand entities of a read, waiting for other callers'
computations included."""
TOGETHER = 100
"""Most entities of one computation: what is computed by the deadline is written back, and the next
read need not begin anew."""

Source = Literal["cache", "computed", "snapshot"]

Server = Literal["postgres", "redis"]
"""A server that an answer has to do without."""

SOURCES: tuple[Source | None, ...] = ("cache", "computed", "snapshot", None)

_EVER = np.iinfo(np.int64).max
"""Later than every moment."""
_MICROSECOND = timedelta(microseconds=1)

_Key = tuple[str, str]
"""Entity type and id."""

log = structlog.get_logger(__name__)


class SnapshotLike(Protocol):
    """The newest checked snapshot, or some entities of it."""

    @property
    def frame(self) -> pd.DataFrame:
        """`entity_id` and the features."""

    @property
    def as_of(self) -> datetime:
        """The moment it describes."""


SnapshotLookup = Callable[[str, Sequence[str]], SnapshotLike]
"""From an entity type and ids to what the newest checked snapshot has of them.

Raises `PostgresUnavailableError`, `StatementFailedError`, and `LookupError` when there is no
checked snapshot yet."""


class PresentLookup(Protocol):
    """Computes entities as of now; `lookup.PresentReader` is one."""

    def __call__(
        self,
        entity_type: str,
        ids: Sequence[str],
        started: Callable[[], None],
        deadline: float,
    ) -> list[PresentRow]:
        """The entities among these that exist; none is begun after the deadline."""

    def features(self, entity_type: str) -> Sequence[Feature]:
        """The features that are computed, in their order."""


@dataclass(frozen=True, slots=True)
class Found:
    """Entities that were asked for.

    Attributes:
        batch: Their values; unknown entities are in none of its groups.
        sources: Where each entity was found, None for an unknown or unavailable one.
        now: The present moment, microseconds, from which ages are counted.
        stale: Whether each entity's values are older than they should be, or may be untrue, and
            could not be computed anew, bool[n].
        degraded: Servers that could not be asked or believed.
        unavailable: Positions of entities of which nobody can say now whether they are known.
        shortage: Why not; None if there are none.
    """

    batch: Batch
    sources: list[Source | None]
    now: int
    stale: npt.NDArray[np.bool_]
    degraded: tuple[Server, ...] = ()
    unavailable: frozenset[int] = frozenset()
    shortage: ApiError | None = None

    def unknown(self) -> list[str]:
        """The ids that nobody knows, and that somebody was asked for."""
        ids = self.batch.entity_ids
        return [
            ids[at]
            for at, source in enumerate(self.sources)
            if source is None and at not in self.unavailable
        ]

    def age_seconds(self, as_of: int) -> float:
        """Time between a moment (microseconds) and now."""
        return max(0, self.now - as_of) / 1e6


@dataclass(frozen=True, slots=True)
class _Limits:
    """How old values of an entity type may be, in microseconds.

    Attributes:
        freshness: Older ones are stale.
        ttl: Older values of these features count as missing, by age.
    """

    freshness: int
    ttl: tuple[tuple[int, frozenset[str]], ...]

    @property
    def due(self) -> int:
        """Age past which values are computed anew."""
        return min([self.freshness, *(age for age, _ in self.ttl)])


class FeatureReader:
    """Reads features. Safe to share between threads.

    Args:
        store: The online store.
        present: Computes entities as of now.
        snapshots: The newest checked snapshot in PostgreSQL.
        metrics: Where to count.
        clock: `now`, or `data` for a historical data set, whose present is its newest snapshot.
        redis_state: Whether Redis may be asked and believed.
        postgres_away: Whether PostgreSQL was away at the last look.
        served_log: Where a sample of what is read is written down, for the audit.
        views: The catalogue; the built-in one by default.
    """

    def __init__(
        self,
        store: OnlineStore,
        present: PresentLookup,
        snapshots: SnapshotLookup,
        metrics: Metrics,
        clock: Clock = "now",
        *,
        redis_state: RedisState,
        postgres_away: Callable[[], bool] = lambda: False,
        served_log: ServedLog | None = None,
        views: Catalogue | None = None,
    ) -> None:
        self._store = store
        self._present = present
        self._snapshots = snapshots
        self._metrics = metrics
        self._clock = clock
        self._served_log = served_log
        self._redis_state = redis_state
        self._postgres_away = postgres_away
        self._views = catalogue() if views is None else views
        self._limits: dict[str, _Limits] = {}
        self._schemas = WritingSchemas(self._current_schema)
        self._flights: Flights[_Key, bytes] = Flights()
        self._data_present: dict[str, tuple[float, int]] = {}
        self._share = StaleShare()
        metrics.stale_share.set_function(self._share.share)
        self._from: dict[Source | None, Counter] = {
            source: metrics.entities.labels(source or "nowhere") for source in SOURCES
        }

    def read(self, entity_type: str, ids: Sequence[str]) -> Found:
        """Features of entities, unknown ones included.

        Raises:
            EntityIdError: an id can be no key.
            ApiError: neither Redis nor PostgreSQL can say anything of any of them.
        """
        seen = _Seen(doubtful=self._redis_state.doubtful())
        cached = self._read_cache(entity_type, ids, seen)
        batch = Batch(tuple(ids), ()) if cached is None else cached
        now = self._now(entity_type)
        limits = self._limits_of(entity_type)
        sources: list[Source | None] = ["cache"] * len(ids)
        missing = batch.missing()
        stale = _older(batch, _EVER if seen.doubtful else now - limits.freshness)
        due = stale | _older(batch, now - limits.due) if limits.ttl else stale
        filled = bool(missing) or bool(due.any())
        if filled:
            for position in missing:
                sources[position] = None
            batch = self._fill(entity_type, batch, sources, stale, due.copy(), seen)
        if self._clock == "data":
            now = self._advance(entity_type, batch, now)
        if self._served_log is not None:
            # As they are stored: what has outlived its time to live is no skew.
            self._served_log.note(batch, sources)
        if limits.ttl:
            groups = tuple(_expired(rows, now, limits) for rows in batch.groups)
            batch = Batch(batch.entity_ids, groups)
        found = Found(
            batch, sources, now, stale, self._degraded(seen), seen.unavailable, seen.shortage
        )
        self._count(found, filled=filled)
        return found

    def read_known(self, entity_type: str, ids: Sequence[str]) -> Found:
        """Features of entities, none of which may be unknown; some may be unavailable.

        Raises:
            ApiError: 404 naming the unknown ones; 503 as `read` does.
        """
        found = self.read(entity_type, ids)
        unknown = found.unknown()
        if unknown:
            raise unknown_entity(entity_type, unknown)
        return found

    # The cache

    def _read_cache(self, entity_type: str, ids: Sequence[str], seen: _Seen) -> Batch | None:
        """What Redis has; None when it can't be asked."""
        if not self._redis_state.usable():
            entity_keys(entity_type, ids)
            return None
        try:
            batch = self._store.read_batch(entity_type, ids, seen.broken, seen.invalidated)
        except redis.RedisError as error:
            self._redis_state.note_failure(error)
            return None
        seen.redis_answered = True
        if seen.broken:
            self._metrics.failures.labels("redis").inc()
            log.error("broken_values_in_redis", entity_type=entity_type, ids=some(seen.broken))
        return batch

    # What the cache lacks

    def _fill(
        self,
        entity_type: str,
        batch: Batch,
        sources: list[Source | None],
        stale: npt.NDArray[np.bool_],
        due: npt.NDArray[np.bool_],
        seen: _Seen,
    ) -> Batch:
        """The batch with what was computed instead of what was missing or due.

        `sources` and `stale` are brought up to date. What was due stays if it can't be computed.
        """
        ids = batch.entity_ids
        missing = [at for at, source in enumerate(sources) if source is None]
        wanted = sorted({*missing, *np.flatnonzero(due).tolist()})
        names = list(dict.fromkeys(ids[at] for at in wanted))
        self._count_reasons(names, {ids[at] for at in missing}, seen)
        try:
            computed = self._computed(entity_type, names, seen)
        except (PostgresUnavailableError, StatementFailedError, FlightTimeoutError) as error:
            seen.postgres_failed = True
            self._metrics.failures.labels("postgres").inc()
            log.warning("not_computed", entity_type=entity_type, error=str(error))
            if not missing:
                return batch
            if isinstance(error, PostgresUnavailableError):
                seen.lack(ids, missing, "PostgreSQL did not answer")
                return batch
            rows = self._from_snapshot(entity_type, ids, missing, seen)
            for at in missing:
                if at not in seen.unavailable:
                    sources[at], stale[at] = "snapshot", True
            return Batch(ids, (*batch.groups, *rows))
        payloads: list[bytes | None] = [None] * len(ids)
        for at in wanted:
            payload = payloads[at] = computed.get((entity_type, ids[at]))
            sources[at] = None if payload is None else "computed"
            stale[at] = False
        rows = decode(payloads, ids, self._schemas.by_id)
        kept = (_without(group, due) for group in batch.groups) if due.any() else batch.groups
        return Batch(ids, (*(group for group in kept if len(group.positions)), *rows))

    def _computed(self, entity_type: str, names: list[str], seen: _Seen) -> dict[_Key, bytes]:
        """The packed values of those that exist, as of now; each is computed by one caller."""
        deadline = time.monotonic() + COMPUTING_SECONDS * math.ceil(len(names) / MAX_BATCH)
        values: dict[_Key, bytes] = {}
        for start in range(0, len(names), TOGETHER):
            some_names = names[start : start + TOGETHER]
            values |= self._computed_together(entity_type, some_names, seen, deadline)
        return values

    def _computed_together(
        self, entity_type: str, names: list[str], seen: _Seen, deadline: float
    ) -> dict[_Key, bytes]:
        def compute(mine: list[_Key], started: Callable[[], None]) -> dict[_Key, bytes]:
            return self._compute(entity_type, [name for _, name in mine], started, seen, deadline)

        def get(keys: list[_Key], *, join_started: bool) -> tuple[dict[_Key, bytes], set[_Key]]:
            return self._flights.get(keys, compute, join_started=join_started, deadline=deadline)

        # What was invalidated says since when a computation will do. Without Redis nobody knows,
        # and only one that has not begun yet is certain to see all that happened so far.
        believed = seen.redis_answered and not seen.doubtful
        wanted = [(entity_type, name) for name in names]
        values, joined = get(wanted, join_started=believed)
        late = [
            key for key in joined if not _new_enough(values.get(key), seen.invalidated.get(key[1]))
        ]
        if late:
            for key in late:
                values.pop(key, None)
            values |= get(late, join_started=False)[0]
        return values

    def _compute(
        self,
        entity_type: str,
        names: list[str],
        started: Callable[[], None],
        seen: _Seen,
        deadline: float,
    ) -> dict[_Key, bytes]:
        found = self._present(entity_type, names, started, deadline)
        if not found:
            return {}
        features = self._present.features(entity_type)
        values = [row.values for row in found]
        schema = self._schemas.of_rows(entity_type, features, values, ask=seen.redis_answered)
        checked = check_rows(schema, features, values)
        for (name, reason), count in checked.held_back.items():
            self._metrics.held_back.labels(name, reason).inc(count)
        as_of = np.array([to_micros(row.as_of) for row in found], np.int64)
        computed_at = np.array([to_micros(row.computed_at) for row in found], np.int64)
        payloads = encode(schema, as_of, computed_at, checked.values)
        ids = [row.entity_id for row in found]
        if seen.redis_answered and self._redis_state.usable():
            self._write_back(entity_type, schema, ids, payloads, seen)
        return {(entity_type, name): value for name, value in zip(ids, payloads, strict=True)}

    def _write_back(
        self, entity_type: str, schema: Schema, ids: list[str], payloads: list[bytes], seen: _Seen
    ) -> None:
        broken = {name: seen.broken[name] for name in ids if name in seen.broken}
        try:
            if broken:
                self._store.discard(entity_type, broken)
            written = self._store.write_batch(entity_type, ids, payloads, schema=schema)
        except redis.RedisError as error:
            self._redis_state.note_failure(error)
            return
        if written.future:
            self._metrics.held_back.labels("as_of", "in the future").inc(written.future)

    def _from_snapshot(
        self, entity_type: str, ids: Sequence[str], missing: list[int], seen: _Seen
    ) -> list[Rows]:
        """What the newest checked snapshot has of missing entities; the rest is unavailable."""
        names = list(dict.fromkeys(ids[at] for at in missing))
        started = utc_now()
        try:
            snapshot = self._snapshots(entity_type, names)
        except (PostgresUnavailableError, StatementFailedError, LookupError) as error:
            log.warning("no_snapshot_instead", entity_type=entity_type, error=str(error))
            why = "PostgreSQL can neither compute them nor give those of a snapshot"
            seen.lack(ids, missing, why)
            return []
        features = self._views.features(entity_type)
        schema = schema_for(entity_type, features, snapshot.frame)
        packed = pack(schema, features, snapshot.frame, snapshot.as_of, started)
        by_id = dict(zip(packed.ids, packed.payloads, strict=True))
        lacking = [at for at in missing if ids[at] not in by_id]
        if lacking:
            why = "PostgreSQL can't compute them, and the newest snapshot does not know them"
            seen.lack(ids, lacking, why)
        payloads: list[bytes | None] = [None] * len(ids)
        for position in missing:
            payloads[position] = by_id.get(ids[position])
        return decode(payloads, ids, lambda number: schema)

    def _current_schema(self, entity_type: str) -> Schema | None:
        try:
            return self._store.current_schema(entity_type)
        except redis.RedisError as error:
            self._redis_state.note_failure(error)
        except FormatError as error:
            # Only words are continued from it: without it they get codes of their own.
            self._metrics.failures.labels("redis").inc()
            log.error("broken_schema_in_redis", entity_type=entity_type, error=str(error))
        return None

    # Time

    def _limits_of(self, entity_type: str) -> _Limits:
        limits = self._limits.get(entity_type)
        if limits is None:
            views = self._views.views(entity_type)
            ttl: dict[int, frozenset[str]] = {}
            for view in views:
                if view.ttl is not None:
                    # Values exactly as old as the time to live have outlived it, as offline.
                    age = view.ttl // _MICROSECOND - 1
                    names = frozenset(feature.name for feature in view.features)
                    ttl[age] = ttl.get(age, frozenset()) | names
            freshness = min((view.freshness for view in views), default=FRESHNESS) // _MICROSECOND
            limits = self._limits[entity_type] = _Limits(freshness, tuple(sorted(ttl.items())))
        return limits

    def _now(self, entity_type: str) -> int:
        """The present in microseconds, by the clock of the settings; 0 while it is not known."""
        if self._clock == "now":
            return to_micros(utc_now())
        known, present = self._data_present.get(entity_type, (-10.0, 0))
        if time.monotonic() - known > 5 and self._redis_state.usable():
            try:
                newest = self._store.snapshot_as_of(entity_type)
            except redis.RedisError as error:
                self._redis_state.note_failure(error)
                newest = None
            present = max(present, 0 if newest is None else to_micros(newest))
            self._data_present[entity_type] = (time.monotonic(), present)
        return present

    def _advance(self, entity_type: str, batch: Batch, now: int) -> int:
        """The present of a historical data set, which reaches as far as any value that is seen."""
        reached = max([now, *(int(group.as_of.max()) for group in batch.groups)])
        if reached > now:
            known, _ = self._data_present.get(entity_type, (-10.0, 0))
            self._data_present[entity_type] = (known, reached)
        return reached or to_micros(utc_now())

    # What is said of it

    def _degraded(self, seen: _Seen) -> tuple[Server, ...]:
        servers: tuple[tuple[Server, bool], ...] = (
            ("postgres", seen.postgres_failed or self._postgres_away()),
            ("redis", seen.doubtful or not seen.redis_answered),
        )
        return tuple(server for server, lacking in servers if lacking)

    def _count(self, found: Found, *, filled: bool) -> None:
        known = 0
        for source in SOURCES if filled else SOURCES[:1]:
            count = found.sources.count(source) if filled else len(found.sources)
            if count:
                self._from[source].inc(count)
                known += count if source is not None else 0
        stale = int(found.stale.sum())
        if stale:
            self._metrics.stale.inc(stale)
        self._share.note(known, stale)

    def _count_reasons(self, names: list[str], missing: set[str], seen: _Seen) -> None:
        for name in names:
            if not seen.redis_answered:
                reason = "redis_down"
            elif name not in missing:
                reason = "doubtful" if seen.doubtful else "stale"
            elif name in seen.invalidated:
                reason = "invalidated"
            else:
                reason = "broken" if name in seen.broken else "missing"
            self._metrics.computed.labels(reason).inc()


@dataclass(slots=True)
class _Seen:
    """What a read noticed.

    Attributes:
        doubtful: Whether what Redis has may be untrue.
        redis_answered: Whether Redis could be asked.
        postgres_failed: Whether PostgreSQL was asked and did not compute.
        broken: Values that can't be read, by id.
        invalidated: Since when values are untrue, by id.
        unavailable: Positions of which neither server can say anything.
        shortage: Why not.
    """

    doubtful: bool
    redis_answered: bool = False
    postgres_failed: bool = False
    broken: dict[str, bytes] = field(default_factory=dict)
    invalidated: dict[str, Moments] = field(default_factory=dict)
    unavailable: frozenset[int] = frozenset()
    shortage: ApiError | None = None

    def lack(self, ids: Sequence[str], positions: Sequence[int], why: str) -> None:
        """Note which entities can't be had now.

        Raises:
            ApiError: none of all is left that could be answered.
        """
        self.unavailable = frozenset(positions)
        self.shortage = _unavailable([ids[at] for at in positions], why, self)
        if len(positions) == len(ids):
            raise self.shortage


def unknown_entity(entity_type: str, ids: Sequence[str]) -> ApiError:
    """The error of ids that nobody knows: 404, naming the first few."""
    what = "the id" if len(set(ids)) == 1 else "these ids:"
    return ApiError(
        HTTPStatus.NOT_FOUND, "unknown_entity", f"no {entity_type} is known by {what} {some(ids)}"
    )


def _unavailable(names: Sequence[str], why: str, seen: _Seen) -> ApiError:
    state = "Redis does not have them" if seen.redis_answered else "Redis can't be reached"
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "features_unavailable",
        f"no features now for {some(names)}: {state} and {why}; try again shortly",
    )


def _older(batch: Batch, limit: int) -> npt.NDArray[np.bool_]:
    """Which entities' values are from before a moment, bool[n]."""
    older = np.zeros(len(batch.entity_ids), bool)
    for group in batch.groups:
        older[group.positions] = group.as_of < limit
    return older


def _new_enough(payload: bytes | None, untrue: Moments | None) -> bool:
    """Whether a computation that somebody else began saw what this caller must see."""
    return untrue is None or (payload is not None and moments(payload) >= untrue)


def _without(rows: Rows, left_out: npt.NDArray[np.bool_]) -> Rows:
    """Rows but for some positions of the batch."""
    kept = ~left_out[rows.positions]
    return rows if kept.all() else rows.where(kept)


def _expired(rows: Rows, now: int, limits: _Limits) -> Rows:
    """Rows whose features are missing where their view's time to live has passed."""
    values = rows.values
    for ttl, names in limits.ttl:
        old = rows.as_of < now - ttl
        if old.any():
            values = values.copy() if values is rows.values else values
            at = [place for name, place in rows.schema.positions.items() if name in names]
            values[np.ix_(np.flatnonzero(old), np.array(at, np.intp))] = np.nan
    return rows if values is rows.values else replace(rows, values=values)
