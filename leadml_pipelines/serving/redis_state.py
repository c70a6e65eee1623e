"""Whether Redis may be asked now: it rests after a failure, and is told what it missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
import structlog

from leadml_pipelines.serving.metrics import Metrics

REDIS_TIMEOUT = 0.25
"""Seconds that one answer of Redis may take before PostgreSQL is asked instead."""
REDIS_REST = 1.0
"""Seconds for which Redis is left alone after it failed."""

log = structlog.get_logger(__name__)


class RedisState:
    """What this process knows of Redis. Safe to share between threads.

    Args:
        metrics: Where failures are counted.
        catch_up: Tells Redis what it missed while it was away; called before it is believed again.
            It raises `redis.RedisError` while Redis is still away.
    """

    def __init__(self, metrics: Metrics, catch_up: Callable[[], object] = lambda: None) -> None:
        self._metrics = metrics
        self._catch_up = catch_up
        self._failed = False
        self._rests_until = 0.0
        self._recovering = threading.Lock()

    def usable(self) -> bool:
        """Whether Redis may be read and written now."""
        if not self._failed:
            return True
        if time.monotonic() < self._rests_until or not self._recovering.acquire(blocking=False):
            return False
        try:
            self._catch_up()
        except redis.RedisError as error:
            self.note_failure(error)
            return False
        else:
            self._failed = False
            return True
        finally:
            self._recovering.release()

    def note_failure(self, error: redis.RedisError) -> None:
        """Leave Redis alone for a while."""
        self._rests_until = time.monotonic() + REDIS_REST
        self._failed = True
        self._metrics.failures.labels("redis").inc()
        log.warning("redis_unreachable", error=type(error).__name__, rests_seconds=REDIS_REST)
