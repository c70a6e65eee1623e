"""Whether Redis may be asked and believed: after a failure, once it was told what it missed."""

from __future__ import annotations

import threading

import redis
import structlog

from leadml_pipelines.serving.metrics import Metrics

REDIS_TIMEOUT = 0.25
"""Seconds that one answer of Redis may take before PostgreSQL is asked instead."""

log = structlog.get_logger(__name__)


class RedisState:
    """What this process knows of Redis. Safe to share between threads.

    Requests note what goes wrong; `outbox.Courier` alone finds that all is well again.

    Args:
        metrics: Where failures are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._away = False
        self._doubtful = False
        self._notes = 0
        self._refused = ""

    def usable(self) -> bool:
        """Whether Redis may be read and written now."""
        return not self._away

    def doubtful(self) -> bool:
        """Whether Redis may hold values that are untrue: it was not told all that it has to know.

        Ask before Redis is read: what was read while there was doubt is to be doubted.
        """
        return self._doubtful

    def note_failure(self, error: redis.RedisError) -> None:
        """Count a failure, and leave Redis alone from now on unless it is there and refused."""
        self._metrics.failures.labels("redis").inc()
        if isinstance(error, redis.ResponseError):
            # Out of memory, read-only, not permitted: it can still be read. Said once per kind.
            if self._refused != type(error).__name__:
                self._refused = type(error).__name__
                log.warning("redis_refused", error=self._refused)
            return
        if not self._away:
            log.warning("redis_unreachable", error=type(error).__name__)
        with self._lock:
            self._notes += 1
            self._away = self._doubtful = True

    def note_untold(self) -> None:
        """Doubt what Redis holds from now on: there is something that it could not be told."""
        with self._lock:
            self._notes += 1
            self._doubtful = True

    def notes(self) -> int:
        """How often something was noted; to be asked before Redis is told what it missed."""
        return self._notes

    def note_back(self, notes: int, *, told: bool) -> None:
        """Use Redis again, unless something went wrong since `notes` was asked.

        Args:
            notes: What `notes` said before.
            told: Whether Redis now knows all that it missed, so that it can be believed too.
        """
        with self._lock:
            if notes != self._notes:
                return
            self._away = False
            if told:
                self._doubtful = False
                self._refused = ""
