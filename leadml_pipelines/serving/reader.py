"""Features of entities: from Redis, and computed in PostgreSQL at once where Redis lacks them.

A value that is missing, was made untrue by an event, is older than its freshness or can't be read
is computed there and then (`read_through.py`). Where it can't be computed, the newest checked
snapshot stays (`snapshot_fallback.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import redis
import structlog

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.present import Clock
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Rows
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.ages import AgeLimits, older, without_expired
from leadml_pipelines.serving.connections import PostgresUnavailableError, StatementFailedError
from leadml_pipelines.serving.errors import some
from leadml_pipelines.serving.flights import FlightTimeoutError
from leadml_pipelines.serving.found import Found, Server, Source
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.read_clock import ReadClock
from leadml_pipelines.serving.read_counts import ReadCounts
from leadml_pipelines.serving.read_through import PresentLookup, ReadThrough
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.serving.seen import Seen
from leadml_pipelines.serving.snapshot_fallback import SnapshotFallback, SnapshotLookup

if TYPE_CHECKING:
    from leadml_pipelines.serving.served_log import ServedLog

_EVER = np.iinfo(np.int64).max
"""Later than every moment."""
_NO_VIEWS = AgeLimits.of(())

log = structlog.get_logger(__name__)


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
        known = catalogue() if views is None else views
        self._store = store
        self._metrics = metrics
        self._served_log = served_log
        self._redis_state = redis_state
        self._postgres_away = postgres_away
        self._limits = {name: AgeLimits.of(known.views(name)) for name in known.entities}
        self._clock = ReadClock(clock, store, redis_state)
        self._read_through = ReadThrough(store, present, metrics, redis_state)
        self._fallback = SnapshotFallback(snapshots, known)
        self._counts = ReadCounts(metrics)

    def read(self, entity_type: str, ids: Sequence[str]) -> Found:
        """Features of entities, unknown ones included.

        Raises:
            EntityIdError: an id can be no key.
            ApiError: neither Redis nor PostgreSQL can say anything of any of them.
        """
        seen = Seen(doubtful=self._redis_state.doubtful())
        cached = self._read_cache(entity_type, ids, seen)
        batch = Batch(tuple(ids), ()) if cached is None else cached
        now = self._clock.now(entity_type)
        limits = self._limits.get(entity_type, _NO_VIEWS)
        sources: list[Source | None] = ["cache"] * len(ids)
        missing = batch.missing()
        stale = older(batch, _EVER if seen.doubtful else now - limits.freshness)
        due = stale | older(batch, now - limits.due) if limits.ttl else stale
        filled = bool(missing) or bool(due.any())
        if filled:
            for position in missing:
                sources[position] = None
            batch = self._fill(entity_type, batch, sources, stale, due.copy(), seen)
        now = self._clock.advance(entity_type, batch, now)
        if self._served_log is not None:
            # As they are stored: what has outlived its time to live is no skew.
            self._served_log.note(batch, sources)
        if limits.ttl:
            groups = tuple(without_expired(rows, now, limits) for rows in batch.groups)
            batch = Batch(batch.entity_ids, groups)
        found = Found(
            batch, sources, now, stale, self._degraded(seen), seen.unavailable, seen.shortage
        )
        self._counts.answered(found, filled=filled)
        return found

    def _read_cache(self, entity_type: str, ids: Sequence[str], seen: Seen) -> Batch | None:
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

    def _fill(
        self,
        entity_type: str,
        batch: Batch,
        sources: list[Source | None],
        stale: npt.NDArray[np.bool_],
        due: npt.NDArray[np.bool_],
        seen: Seen,
    ) -> Batch:
        """The batch with what was computed instead of what was missing or due.

        `sources` and `stale` are brought up to date. What was due stays if it can't be computed.
        """
        ids = batch.entity_ids
        missing = [at for at, source in enumerate(sources) if source is None]
        wanted = sorted({*missing, *np.flatnonzero(due).tolist()})
        names = list(dict.fromkeys(ids[at] for at in wanted))
        self._counts.computed(names, {ids[at] for at in missing}, seen)
        try:
            computed = self._read_through.values(entity_type, names, seen)
        except (PostgresUnavailableError, StatementFailedError, FlightTimeoutError) as error:
            seen.postgres_failed = True
            self._metrics.failures.labels("postgres").inc()
            log.warning("not_computed", entity_type=entity_type, error=str(error))
            if not missing:
                return batch
            if isinstance(error, PostgresUnavailableError):
                seen.lack(ids, missing, "PostgreSQL did not answer")
                return batch
            rows = self._fallback.rows(entity_type, ids, missing, seen)
            for at in missing:
                if at not in seen.unavailable:
                    sources[at], stale[at] = "snapshot", True
            return Batch(ids, (*batch.groups, *rows))
        payloads: list[bytes | None] = [None] * len(ids)
        for at in wanted:
            payload = payloads[at] = computed.get((entity_type, ids[at]))
            sources[at] = None if payload is None else "computed"
            stale[at] = False
        rows = self._read_through.rows(payloads, ids)
        kept = (_without(group, due) for group in batch.groups) if due.any() else batch.groups
        return Batch(ids, (*(group for group in kept if len(group.positions)), *rows))

    def _degraded(self, seen: Seen) -> tuple[Server, ...]:
        servers: tuple[tuple[Server, bool], ...] = (
            ("postgres", seen.postgres_failed or self._postgres_away()),
            ("redis", seen.doubtful or not seen.redis_answered),
        )
        return tuple(server for server, lacking in servers if lacking)


def _without(rows: Rows, left_out: npt.NDArray[np.bool_]) -> Rows:
    """Rows but for some positions of the batch."""
    kept = ~left_out[rows.positions]
    return rows if kept.all() else rows.where(kept)
