"""Single flight: of several callers that want the same key at the same time, one computes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Computation = Callable[[list[K], Callable[[], None]], dict[K, V]]
"""From keys to their values; calls its second argument when it begins to look at the data."""


class FlightTimeoutError(RuntimeError):
    """Somebody else's computation took too long."""


class _Flight(Generic[K, V]):
    """One computation of some keys."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.started = False
        self.values: dict[K, V] = {}
        self.error: BaseException | None = None

    def start(self) -> None:
        self.started = True


class Flights(Generic[K, V]):
    """Computations under way, by key. Safe to share between threads."""

    def __init__(self) -> None:
        self._under_way: dict[K, _Flight[K, V]] = {}
        self._lock = threading.Lock()

    def get(
        self,
        keys: Sequence[K],
        compute: Computation[K, V],
        *,
        join_started: bool,
        deadline: float,
    ) -> tuple[dict[K, V], set[K]]:
        """Values of keys; those that nobody computes now are computed together, by this caller.

        Args:
            keys: Distinct keys.
            compute: Computes some of them.
            join_started: Whether a computation will do that has begun already, and so may not have
                seen what happened since. One that has not begun always will.
            deadline: By `time.monotonic`: how long to wait for other callers' computations. The
                own computation must keep to it by itself.

        Returns:
            The values, and the keys that somebody else computed.

        Raises:
            FlightTimeoutError: somebody else's computation took too long.
            Exception: whatever the computation raises, for each who waits for it.
        """
        own: _Flight[K, V] = _Flight()
        mine: list[K] = []
        others: dict[_Flight[K, V], list[K]] = {}
        with self._lock:
            for key in keys:
                flight = self._under_way.get(key)
                if flight is not None and (join_started or not flight.started):
                    others.setdefault(flight, []).append(key)
                else:
                    self._under_way[key] = own
                    mine.append(key)
        if mine:
            self._fly(own, mine, compute)
        values = dict(own.values)
        joined: set[K] = set()
        for flight, wanted in others.items():
            if not flight.done.wait(max(0.0, deadline - time.monotonic())):
                raise FlightTimeoutError("a computation under way took too long")
            if flight.error is not None:
                raise flight.error
            joined.update(wanted)
            values.update((key, flight.values[key]) for key in wanted if key in flight.values)
        return values, joined

    def _fly(self, own: _Flight[K, V], mine: list[K], compute: Computation[K, V]) -> None:
        try:
            own.values = compute(mine, own.start)
        except BaseException as error:
            own.error = error
            raise
        finally:
            with self._lock:
                for key in mine:
                    if self._under_way.get(key) is own:
                        del self._under_way[key]
            own.done.set()
