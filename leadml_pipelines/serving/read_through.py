"""What Redis lacks is computed in PostgreSQL, by one caller however many ask, and written back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import redis
import structlog

from leadml_pipelines.online.format import (
    FormatError,
    Moments,
    Rows,
    Schema,
    decode,
    encode,
    moments,
)
from leadml_pipelines.online.store import MAX_BATCH, OnlineStore
from leadml_pipelines.online.values import check_rows
from leadml_pipelines.serving.flights import Flights
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.serving.schemas import WritingSchemas
from leadml_pipelines.serving.seen import Seen
from leadml_pipelines.times import to_micros

if TYPE_CHECKING:
    from leadml_pipelines.features.postgres_engine import PresentRow
    from leadml_pipelines.features.view import Feature

COMPUTING_SECONDS = 5.0
"""What computing may take for each thousand entities of a read, waiting for other callers'
computations included."""
TOGETHER = 100
"""Most entities of one computation: what is computed by the deadline is written back, and the next
read need not begin anew."""

Key = tuple[str, str]
"""Entity type and id."""

log = structlog.get_logger(__name__)


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


class ReadThrough:
    """Computes entities as of now. Safe to share between threads.

    Args:
        store: Where values are written back to.
        present: Computes entities as of now.
        metrics: Where to count.
        redis_state: Whether Redis may be written to.
    """

    def __init__(
        self,
        store: OnlineStore,
        present: PresentLookup,
        metrics: Metrics,
        redis_state: RedisState,
    ) -> None:
        self._store = store
        self._present = present
        self._metrics = metrics
        self._redis_state = redis_state
        self._schemas = WritingSchemas(self._current_schema)
        self._flights: Flights[Key, bytes] = Flights()

    def values(self, entity_type: str, names: list[str], seen: Seen) -> dict[Key, bytes]:
        """The packed values of those that exist, as of now; each is computed by one caller.

        Args:
            entity_type: Such as `lead`.
            names: Their ids, each once.
            seen: What the read noticed so far.

        Raises:
            PostgresUnavailableError, StatementFailedError, FlightTimeoutError: they can't be
                computed, or not in time.
        """
        deadline = time.monotonic() + COMPUTING_SECONDS * math.ceil(len(names) / MAX_BATCH)
        values: dict[Key, bytes] = {}
        for start in range(0, len(names), TOGETHER):
            some_names = names[start : start + TOGETHER]
            values |= self._computed_together(entity_type, some_names, seen, deadline)
        return values

    def _computed_together(
        self, entity_type: str, names: list[str], seen: Seen, deadline: float
    ) -> dict[Key, bytes]:
        def compute(mine: list[Key], started: Callable[[], None]) -> dict[Key, bytes]:
            return self._compute(entity_type, [name for _, name in mine], started, seen, deadline)

        def get(keys: list[Key], *, join_started: bool) -> tuple[dict[Key, bytes], set[Key]]:
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
        seen: Seen,
        deadline: float,
    ) -> dict[Key, bytes]:
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
        self, entity_type: str, schema: Schema, ids: list[str], payloads: list[bytes], seen: Seen
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

    def rows(self, payloads: Sequence[bytes | None], ids: Sequence[str]) -> list[Rows]:
        """Packed values of `values` as rows.

        Args:
            payloads: One for each position of the batch, None where there is none.
            ids: The ids of these positions.
        """
        return decode(payloads, ids, self._schemas.by_id)

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


def _new_enough(payload: bytes | None, untrue: Moments | None) -> bool:
    """Whether a computation that somebody else began saw what this caller must see."""
    return untrue is None or (payload is not None and moments(payload) >= untrue)
