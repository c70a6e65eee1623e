"""The present moment, from which the ages of values are counted."""

from __future__ import annotations

import time

import redis

from leadml_pipelines.features.present import Clock
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.times import to_micros, utc_now


class ReadClock:
    """The clock of the settings. Safe to share between threads.

    Args:
        clock: `now`, or `data` for a historical data set, whose present is its newest snapshot.
        store: Knows the newest snapshot.
        redis_state: Whether Redis may be asked.
    """

    def __init__(self, clock: Clock, store: OnlineStore, redis_state: RedisState) -> None:
        self._clock = clock
        self._store = store
        self._redis_state = redis_state
        self._data_present: dict[str, tuple[float, int]] = {}

    def now(self, entity_type: str) -> int:
        """The present in microseconds; 0 while it is not known."""
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

    def advance(self, entity_type: str, batch: Batch, now: int) -> int:
        """The present after these values were seen: a historical data set reaches as far as any."""
        if self._clock == "now":
            return now
        reached = max([now, *(int(group.as_of.max()) for group in batch.groups)])
        if reached > now:
            known, _ = self._data_present.get(entity_type, (-10.0, 0))
            self._data_present[entity_type] = (known, reached)
        return reached or to_micros(utc_now())
