"""Features of entities: from Redis, and from PostgreSQL where Redis lacks them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, Protocol

import redis
import structlog

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Rows, Schema, decode
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.online.publish import Packed, pack
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.online.values import schema_for
from leadml_pipelines.serving.errors import ApiError, some
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.times import to_micros, utc_now

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.serving.served_log import ServedLog

REDIS_TIMEOUT = 0.25
"""Seconds that one answer of Redis may take before PostgreSQL is asked instead."""
REDIS_REST = 1.0
"""Seconds for which Redis is left alone after it failed."""
STALE_AFTER = 26 * 3600
"""Seconds after which features are stale: a nightly snapshot and two hours to make it."""
LOOKUPS = 4
"""Lookups in PostgreSQL at the same time; the connections that this process may take there."""
LOOKUP_WAIT = 2.0
"""Seconds that a lookup waits for its turn before the request is refused."""

Source = Literal["cache", "snapshot"]

log = structlog.get_logger(__name__)


class SnapshotLike(Protocol):
    """The newest checked snapshot, or some entities of it."""

    @property
    def frame(self) -> pd.DataFrame:
        """`entity_id` and the features."""

    @property
    def as_of(self) -> datetime:
        """The moment it describes."""


class SnapshotUnavailableError(RuntimeError):
    """PostgreSQL did not answer."""


SnapshotLookup = Callable[[str, list[str]], SnapshotLike]
"""From an entity type and ids to what the newest checked snapshot has of them.

Raises `SnapshotUnavailableError` when PostgreSQL does not answer, and `LookupError` when there is
no checked snapshot yet."""


@dataclass(frozen=True, slots=True)
class Found:
    """Entities that were asked for.

    Attributes:
        batch: Their values; unknown entities are in none of its groups.
        sources: Where each entity was found, None for an unknown one.
        now: The present moment, microseconds, from which ages are counted.
        why_unknown: Why nobody is known, where there is a reason.
    """

    batch: Batch
    sources: list[Source | None]
    now: int
    why_unknown: str = ""

    def unknown(self) -> list[str]:
        """The ids that nobody knows."""
        ids = self.batch.entity_ids
        return [ids[at] for at, source in enumerate(self.sources) if source is None]

    def age_seconds(self, as_of: int) -> float:
        """Time between a moment (microseconds) and now."""
        return max(0, self.now - as_of) / 1e6


class FeatureReader:
    """Reads features; Redis down or a key missing sends it to PostgreSQL, which fills Redis again.

    Args:
        store: The online store.
        lookup: The newest checked snapshot in PostgreSQL.
        metrics: Where to count.
        clock: `now`, or `data` for a historical data set, whose present is its newest snapshot.
        served_log: Where a sample of what is read is written down, for the audit.
    """

    def __init__(
        self,
        store: OnlineStore,
        lookup: SnapshotLookup,
        metrics: Metrics,
        clock: Literal["now", "data"] = "now",
        served_log: ServedLog | None = None,
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._metrics = metrics
        self._clock = clock
        self._served_log = served_log
        self._turns = threading.BoundedSemaphore(LOOKUPS)
        self._redis_rests_until = 0.0
        self._present: dict[str, tuple[float, int]] = {}
        self._grown: dict[str, tuple[Schema | None, Schema]] = {}

    def read(self, entity_type: str, ids: Sequence[str]) -> Found:
        """Features of entities, unknown ones included.

        Raises:
            EntityIdError: an id can be no key.
            ApiError: neither Redis nor PostgreSQL can say; the message tells which ids.
        """
        broken: dict[str, bytes] = {}
        cached = self._read_cache(entity_type, ids, broken)
        batch = cached or Batch(tuple(ids), ())
        sources: list[Source | None] = ["cache"] * len(ids)
        missing = batch.missing()
        for position in missing:
            sources[position] = None
        why = ""
        if missing:
            groups, why = self._read_snapshot(
                entity_type, ids, missing, broken, fill=cached is not None
            )
            for group in groups:
                for position in group.positions.tolist():
                    sources[position] = "snapshot"
            batch = Batch(batch.entity_ids, (*batch.groups, *groups))
        found = Found(batch, sources, self._now(entity_type), why)
        self._count(found)
        if self._served_log is not None:
            self._served_log.note(found.batch, found.sources)
        return found

    def read_known(self, entity_type: str, ids: Sequence[str]) -> Found:
        """Features of entities, all of which must be known.

        Raises:
            ApiError: 404 naming the unknown ones; 503 as `read` does.
        """
        found = self.read(entity_type, ids)
        unknown = found.unknown()
        if unknown:
            raise _unknown_entity(entity_type, unknown, found.why_unknown)
        return found

    def _read_cache(
        self, entity_type: str, ids: Sequence[str], broken: dict[str, bytes]
    ) -> Batch | None:
        """What Redis has, noting what can't be read there; None when it can't be asked."""
        if time.monotonic() < self._redis_rests_until:
            entity_keys(entity_type, ids)
            return None
        try:
            batch = self._store.read_batch(entity_type, ids, broken)
        except redis.RedisError as error:
            self._note_redis_failure(error)
            return None
        if broken:
            self._metrics.failures.labels("redis").inc()
            log.error("broken_values_in_redis", entity_type=entity_type, ids=some(broken))
        return batch

    def _note_redis_failure(self, error: redis.RedisError) -> None:
        self._redis_rests_until = time.monotonic() + REDIS_REST
        self._metrics.failures.labels("redis").inc()
        log.warning("redis_unreachable", error=type(error).__name__, rests_seconds=REDIS_REST)

    def _read_snapshot(
        self,
        entity_type: str,
        ids: Sequence[str],
        missing: list[int],
        broken: dict[str, bytes],
        *,
        fill: bool,
    ) -> tuple[list[Rows], str]:
        """What PostgreSQL has of the missing entities, written back to Redis if `fill`.

        Returns:
            The rows, and why there are none where that has a reason.
        """
        wanted = list(dict.fromkeys(ids[at] for at in missing))
        started = utc_now()
        try:
            snapshot = self._look_up(entity_type, wanted, redis_answered=fill)
        except LookupError as error:
            return [], str(error)
        if snapshot.frame.empty:
            return [], ""
        current = self._current_schema(entity_type) if fill else None
        packed = self._pack(entity_type, snapshot, started, current)
        by_id = dict(zip(packed.ids, packed.payloads, strict=True))
        payloads: list[bytes | None] = [None] * len(ids)
        for position in missing:
            payloads[position] = by_id.get(ids[position])
        groups = decode(payloads, list(ids), lambda number: packed.schema)
        # Before the first publication (or after Redis was emptied) there is no schema to write by:
        # one made of just these rows would be another one for each request.
        if current is not None:
            known = {name: value for name, value in broken.items() if name in by_id}
            self._write_back(entity_type, packed, known)
        return groups, ""

    def _look_up(
        self, entity_type: str, wanted: list[str], *, redis_answered: bool
    ) -> SnapshotLike:
        if not self._turns.acquire(timeout=LOOKUP_WAIT):
            raise self._unavailable(wanted, "PostgreSQL is busy", redis_answered=redis_answered)
        try:
            return self._lookup(entity_type, wanted)
        except SnapshotUnavailableError as error:
            self._metrics.failures.labels("postgres").inc()
            log.warning("postgres_did_not_answer", error=str(error))
            raise self._unavailable(
                wanted, "PostgreSQL did not answer", redis_answered=redis_answered
            ) from error
        finally:
            self._turns.release()

    def _unavailable(self, wanted: list[str], why: str, *, redis_answered: bool) -> ApiError:
        state = "Redis does not have them" if redis_answered else "Redis can't be reached"
        return ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "features_unavailable",
            f"no features now for {some(wanted)}: {state} and {why}; try again shortly",
        )

    def _pack(
        self, entity_type: str, snapshot: SnapshotLike, started: datetime, current: Schema | None
    ) -> Packed:
        features = catalogue().features(entity_type)
        # Words that the current schema lacks are gathered over the requests, so that there are at
        # most as many schemas as such words.
        base, grown = self._grown.get(entity_type, (None, None))
        previous = grown if base == current else current
        schema = schema_for(entity_type, features, snapshot.frame, previous)
        self._grown[entity_type] = (current, schema)
        return pack(schema, features, snapshot.frame, snapshot.as_of, started)

    def _current_schema(self, entity_type: str) -> Schema | None:
        try:
            return self._store.current_schema(entity_type)
        except redis.RedisError as error:
            self._note_redis_failure(error)
            return None

    def _write_back(self, entity_type: str, packed: Packed, broken: dict[str, bytes]) -> None:
        try:
            if broken:
                self._store.discard(entity_type, broken)
            self._store.put_schema(packed.schema)
            self._store.write_batch(entity_type, packed.ids, packed.payloads)
        except redis.RedisError as error:
            self._note_redis_failure(error)

    def _now(self, entity_type: str) -> int:
        """The present in microseconds, by the clock of the settings."""
        now = to_micros(utc_now())
        if self._clock == "now":
            return now
        known, present = self._present.get(entity_type, (0.0, 0))
        if time.monotonic() - known > 5 and time.monotonic() >= self._redis_rests_until:
            try:
                newest = self._store.snapshot_as_of(entity_type)
            except redis.RedisError as error:
                self._note_redis_failure(error)
                newest = None
            present = present if newest is None else to_micros(newest)
            self._present[entity_type] = (time.monotonic(), present)
        return present or now

    def _count(self, found: Found) -> None:
        for source in ("cache", "snapshot", None):
            count = found.sources.count(source)
            if count:
                self._metrics.entities.labels(source or "nowhere").inc(count)
        limit = found.now - STALE_AFTER * 1_000_000
        stale = sum(int((group.as_of < limit).sum()) for group in found.batch.groups)
        if stale:
            self._metrics.stale.inc(stale)


def _unknown_entity(entity_type: str, ids: Sequence[str], why: str) -> ApiError:
    one = len(set(ids)) == 1
    message = f"no {entity_type} is known by {'the id' if one else 'these ids:'} {some(ids)}"
    return ApiError(
        HTTPStatus.NOT_FOUND, "unknown_entity", f"{message} ({why})" if why else message
    )
