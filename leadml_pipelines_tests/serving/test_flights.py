"""Single flight: who computes, who waits, who does not join."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from leadml_pipelines.serving.flights import Computation, Flights, FlightTimeoutError
from leadml_pipelines_tests.serving.conftest import wait_for


def _waiters(flights: Flights[str, int], key: str) -> int:
    return len(flights._under_way[key].done._cond._waiters)  # type: ignore[attr-defined]


def _get(
    flights: Flights[str, int],
    keys: list[str],
    compute: Computation[str, int],
    *,
    join_started: bool = True,
    seconds: float = 10,
) -> tuple[dict[str, int], set[str]]:
    deadline = time.monotonic() + seconds
    return flights.get(keys, compute, join_started=join_started, deadline=deadline)


class Slow:
    """A computation that begins at once and ends when it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, keys: list[str], started: Callable[[], None]) -> dict[str, int]:
        self.calls.append(keys)
        number = len(self.calls)
        started()
        assert self.go.wait(10)
        return {key: number for key in keys if key != "nobody"}


def test_many_askers_of_a_key_wait_for_one_computation() -> None:
    flights: Flights[str, int] = Flights()
    slow = Slow()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(_get, flights, ["a"], slow) for _ in range(8)]
        wait_for(lambda: slow.calls)
        wait_for(lambda: _waiters(flights, "a") == 7)
        slow.go.set()
        answers = [future.result() for future in asked]
    assert slow.calls == [["a"]]
    assert [values for values, _ in answers] == [{"a": 1}] * 8
    assert sorted(len(joined) for _, joined in answers) == [0, *[1] * 7]


def test_only_the_keys_that_nobody_computes_are_computed() -> None:
    flights: Flights[str, int] = Flights()
    slow = Slow()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_get, flights, ["a", "b"], slow)
        wait_for(lambda: slow.calls)
        second = pool.submit(_get, flights, ["b", "c", "nobody"], slow)
        wait_for(lambda: len(slow.calls) == 2)
        slow.go.set()
        assert first.result() == ({"a": 1, "b": 1}, set())
        assert second.result() == ({"b": 1, "c": 2}, {"b"})
    assert slow.calls == [["a", "b"], ["c", "nobody"]]


def test_a_computation_that_has_begun_is_not_joined_by_who_must_see_more() -> None:
    flights: Flights[str, int] = Flights()
    slow = Slow()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_get, flights, ["a"], slow)
        wait_for(lambda: slow.calls)
        second = pool.submit(_get, flights, ["a"], slow, join_started=False)
        wait_for(lambda: len(slow.calls) == 2)
        slow.go.set()
        assert (first.result()[0], second.result()[0]) == ({"a": 1}, {"a": 2})


def test_a_computation_that_waits_for_its_turn_is_joined_by_everybody() -> None:
    flights: Flights[str, int] = Flights()
    turn = threading.Event()
    calls: list[list[str]] = []

    def waiting(keys: list[str], started: Callable[[], None]) -> dict[str, int]:
        calls.append(keys)
        assert turn.wait(10)
        started()
        return dict.fromkeys(keys, 1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_get, flights, ["a"], waiting, join_started=False)
        wait_for(lambda: calls)
        second = pool.submit(_get, flights, ["a"], waiting, join_started=False)
        wait_for(lambda: _waiters(flights, "a") == 1)
        turn.set()
        assert (first.result(), second.result()) == (({"a": 1}, set()), ({"a": 1}, {"a"}))
    assert calls == [["a"]]


def test_a_failure_reaches_all_who_wait_and_the_next_asker_tries_again() -> None:
    flights: Flights[str, int] = Flights()
    go = threading.Event()
    calls: list[list[str]] = []

    def failing(keys: list[str], started: Callable[[], None]) -> dict[str, int]:
        calls.append(keys)
        assert go.wait(10)
        raise OSError("gone")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_get, flights, ["a"], failing)
        wait_for(lambda: calls)
        second = pool.submit(_get, flights, ["a"], failing)
        wait_for(lambda: _waiters(flights, "a") == 1)
        go.set()
        for future in (first, second):
            with pytest.raises(OSError, match="gone"):
                future.result()
    assert calls == [["a"]]
    assert _get(flights, ["a"], lambda keys, started: {"a": 3}) == ({"a": 3}, set())


def test_who_waits_too_long_for_somebody_else_is_told() -> None:
    flights: Flights[str, int] = Flights()
    slow = Slow()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_get, flights, ["a"], slow)
        wait_for(lambda: slow.calls)
        with pytest.raises(FlightTimeoutError):
            _get(flights, ["a"], slow, seconds=0.05)
        slow.go.set()


def test_the_deadline_is_one_for_all_computations_that_are_waited_for() -> None:
    """Each of them ends in time by itself; one after the other they take too long."""
    flights: Flights[str, int] = Flights()
    keys = [str(at) for at in range(5)]
    ends = {key: threading.Event() for key in keys}
    begun: list[str] = []

    def until_its_end(mine: list[str], started: Callable[[], None]) -> dict[str, int]:
        begun.extend(mine)
        assert ends[mine[0]].wait(10)
        return dict.fromkeys(mine, 1)

    def end_one_after_the_other() -> None:
        for key in keys:
            time.sleep(0.3)
            ends[key].set()

    with ThreadPoolExecutor(6) as pool:
        for key in keys:
            pool.submit(_get, flights, [key], until_its_end)
        wait_for(lambda: len(begun) == len(keys))
        pool.submit(end_one_after_the_other)
        with pytest.raises(FlightTimeoutError):
            _get(flights, keys, until_its_end, seconds=0.5)
