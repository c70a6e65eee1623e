from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from leadml_pipelines.signals import deferred, signals_interrupt, uninterrupted

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDING)
def test_each_ending_signal_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_signals_are_held_back_within_and_handled_afterwards(number: signal.Signals) -> None:
    with signals_interrupt():
        with uninterrupted():
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_a_process_that_is_started_meanwhile_can_be_interrupted() -> None:
    with uninterrupted(), subprocess.Popen(["sleep", "60"]) as child:  # noqa: S607
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=5) == -signal.SIGTERM


@pytest.mark.parametrize("number", ENDING)
def test_a_deferred_signal_interrupts_at_the_end(number: signal.Signals) -> None:
    done: list[str] = []

    def work() -> None:
        with signals_interrupt(), deferred():
            os.kill(os.getpid(), number)
            done.append("work")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_a_deferred_signal_interrupts_also_when_the_work_fails() -> None:
    def work() -> None:
        with signals_interrupt(), deferred():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("the work failed")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_outside_of_the_main_thread_nothing_is_held_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with uninterrupted(), signals_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
