"""How large a share of the answered entities was stale, over the last minutes."""

from __future__ import annotations

import threading
import time
from collections import deque

WINDOW_SECONDS = 300.0

_BUCKET_SECONDS = 10.0


class StaleShare:
    """A sliding share. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: deque[list[float]] = deque()

    def note(self, answered: int, stale: int) -> None:
        """Count one answer.

        Args:
            answered: Entities in it that are known.
            stale: How many of them were stale.
        """
        now = time.monotonic()
        with self._lock:
            if not self._buckets or now - self._buckets[-1][0] >= _BUCKET_SECONDS:
                self._buckets.append([now, 0, 0])
                self._drop_old(now)
            bucket = self._buckets[-1]
            bucket[1] += answered
            bucket[2] += stale

    def share(self) -> float:
        """The share over the window; 0 when nothing was asked."""
        with self._lock:
            self._drop_old(time.monotonic())
            answered = sum(bucket[1] for bucket in self._buckets)
            stale = sum(bucket[2] for bucket in self._buckets)
        return stale / answered if answered else 0.0

    def _drop_old(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] > WINDOW_SECONDS:
            self._buckets.popleft()
