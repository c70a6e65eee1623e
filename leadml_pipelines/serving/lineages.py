"""Lineage of the features for the app: found out in a process of its own, once.

It takes seconds of pure Python, during which every other answer of this process would wait for its
turn again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context

import structlog

from leadml_pipelines.features.lineage import Lineage, lineage_of_all

log = structlog.get_logger(__name__)


def trace_ahead() -> None:
    """Begin to find out where every feature comes from."""
    _traced()


def lineages() -> Mapping[str, Lineage]:
    """Where every feature comes from, by name; waits while it is being found out."""
    try:
        return _traced().result()
    except BrokenProcessPool:
        # Somebody ended the process; here it takes as long, beside everything else.
        log.warning("lineage_process_ended")
        return lineage_of_all()


@cache
def _traced() -> Future[Mapping[str, Lineage]]:
    # A fresh interpreter: a fork would copy the locks of the threads of this one.
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    future = pool.submit(lineage_of_all)
    pool.shutdown(wait=False)
    return future
