"""Signals that end a command: they interrupt it once, and not while it cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this command as Ctrl-C does: an exception, then clean-up.

    Outside of the main thread, which alone can set handlers, it does nothing.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back further signals while things are being stopped, so that nothing is left running.

    Outside of the main thread it does nothing: signals interrupt only the main thread.
    """

    # Not SIG_IGN, which a process that is started meanwhile would inherit.
    def disregard(_number: int, _frame: object) -> None:
        return

    with _handled_by(disregard):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Deliver signals at the end, to whoever handled them before.

    For native code that calls back into Python: an exception that a signal raises in there would
    unwind through frames that can't bear it. Keep what is inside short. Outside of the main thread
    it does nothing: signals interrupt only the main thread.
    """
    came: list[int] = []
    try:
        with _handled_by(lambda number, _frame: came.append(number)):
            yield
    finally:
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        for number in _ENDING:
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
