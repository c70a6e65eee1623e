from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from leadml_pipelines.services.signals import signals_interrupt, uninterrupted

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
