"""Single flight: who computes, who waits, who does not join."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from leadml_pipelines.serving.flights import Flights, FlightTimeoutError
from leadml_pipelines_tests.serving.conftest import wait_for


def _waiters(flights: Flights[str, int], key: str) -> int:
    return len(flights._under_way[key].done._cond._waiters)  # type: ignore[attr-defined]


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
    flights: Flights[str, int] = Flights(5)
    slow = Slow()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(flights.get, ["a"], slow, join_started=True) for _ in range(8)]
        wait_for(lambda: slow.calls)
        wait_for(lambda: _waiters(flights, "a") == 7)
        slow.go.set()
        answers = [future.result() for future in asked]
    assert slow.calls == [["a"]]
    assert [values for values, _ in answers] == [{"a": 1}] * 8
    assert sorted(len(joined) for _, joined in answers) == [0, *[1] * 7]


def test_only_the_keys_that_nobody_computes_are_computed() -> None:
    flights: Flights[str, int] = Flights(5)
    slow = Slow()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, ["a", "b"], slow, join_started=True)
        wait_for(lambda: slow.calls)
        second = pool.submit(flights.get, ["b", "c", "nobody"], slow, join_started=True)
        wait_for(lambda: len(slow.calls) == 2)
        slow.go.set()
        assert first.result() == ({"a": 1, "b": 1}, set())
        assert second.result() == ({"b": 1, "c": 2}, {"b"})
    assert slow.calls == [["a", "b"], ["c", "nobody"]]


def test_a_computation_that_has_begun_is_not_joined_by_who_must_see_more() -> None:
    flights: Flights[str, int] = Flights(5)
    slow = Slow()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, ["a"], slow, join_started=True)
        wait_for(lambda: slow.calls)
        second = pool.submit(flights.get, ["a"], slow, join_started=False)
        wait_for(lambda: len(slow.calls) == 2)
        slow.go.set()
        assert (first.result()[0], second.result()[0]) == ({"a": 1}, {"a": 2})


def test_a_computation_that_waits_for_its_turn_is_joined_by_everybody() -> None:
    flights: Flights[str, int] = Flights(5)
    turn = threading.Event()
    calls: list[list[str]] = []

    def waiting(keys: list[str], started: Callable[[], None]) -> dict[str, int]:
        calls.append(keys)
        assert turn.wait(10)
        started()
        return dict.fromkeys(keys, 1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, ["a"], waiting, join_started=False)
        wait_for(lambda: calls)
        second = pool.submit(flights.get, ["a"], waiting, join_started=False)
        while not second.running():
            pass
        turn.set()
        assert first.result()[0] == second.result()[0] == {"a": 1}


def test_a_failure_reaches_all_who_wait_and_the_next_asker_tries_again() -> None:
    flights: Flights[str, int] = Flights(5)
    begun, go = threading.Event(), threading.Event()

    def failing(keys: list[str], started: Callable[[], None]) -> dict[str, int]:
        begun.set()
        assert go.wait(10)
        raise OSError("gone")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.get, ["a"], failing, join_started=True)
        assert begun.wait(10)
        second = pool.submit(flights.get, ["a"], failing, join_started=True)
        while not second.running():
            pass
        go.set()
        for future in (first, second):
            with pytest.raises(OSError, match="gone"):
                future.result()
    values, joined = flights.get(["a"], lambda keys, started: {"a": 3}, join_started=True)
    assert (values, joined) == ({"a": 3}, set())


def test_who_waits_too_long_for_somebody_else_is_told() -> None:
    flights: Flights[str, int] = Flights(0.05)
    slow = Slow()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(flights.get, ["a"], slow, join_started=True)
        wait_for(lambda: slow.calls)
        with pytest.raises(FlightTimeoutError):
            flights.get(["a"], slow, join_started=True)
        slow.go.set()
