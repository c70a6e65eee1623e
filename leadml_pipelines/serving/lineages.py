"""Lineage of the features for the app: found out in a process of its own, once.

It takes seconds of pure Python, during which every other answer of this process would wait for its
turn again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection

import structlog

from leadml_pipelines.features.lineage import Lineage, lineage_of_all

log = structlog.get_logger(__name__)

_ASKING = threading.Lock()


def trace_ahead() -> None:
    """Begin to find out where every feature comes from."""
    with _ASKING:
        _started()


def lineages() -> Mapping[str, Lineage]:
    """Where every feature comes from, by name; waits while it is being found out."""
    with _ASKING:
        return _traced()


@cache
def _traced() -> Mapping[str, Lineage]:
    answer = _started()
    try:
        traced: Mapping[str, Lineage] = answer.recv()
    except EOFError:
        # Somebody ended the process; here it takes as long, beside everything else.
        log.warning("lineage_process_ended")
        return lineage_of_all()
    finally:
        answer.close()
    return traced


@cache
def _started() -> Connection:
    """Where the answer will come from, once the process has it."""
    # A fresh interpreter: a fork would copy the locks of the threads of this one. As a daemon it
    # ends with this process and never holds it up.
    context = get_context("spawn")
    answer, work = context.Pipe(duplex=False)
    context.Process(target=_trace, args=(work,), name="lineage", daemon=True).start()
    # The process has its own copy: with this one open, its end would not be noticed.
    work.close()
    return answer


def _trace(work: Connection) -> None:
    # The app may have ended meanwhile; then nobody waits for it.
    with suppress(BrokenPipeError), work:
        work.send(lineage_of_all())
