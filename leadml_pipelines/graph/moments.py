"""What holds at a moment, asked in Cypher: the same answer on every server and for every zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from leadml_pipelines.graph.model import EdgeKind
from leadml_pipelines.times import require_utc

_REST_OF_THE_MICROSECOND = 999


def moment_parameters(as_of: datetime) -> dict[str, Any]:
    """The parameters `$moment` and `$moment_local` of the conditions of this module.

    The end of the microsecond, to the nanosecond: Neo4j finds two datetimes that are one instant in
    two zones unequal, and orders them by their offset. No time in whole microseconds is equal to
    this one, so that no zone decides. Nanoseconds are cut off, as they are when a time is read.

    Neo4j compares datetimes with a zone only with their like, so that there is one without, too.
    """
    from neo4j.time import DateTime

    as_of = require_utc(as_of, "as_of")
    nanosecond = as_of.microsecond * 1000 + _REST_OF_THE_MICROSECOND
    parts = (as_of.year, as_of.month, as_of.day, as_of.hour, as_of.minute, as_of.second, nanosecond)
    return {"moment": DateTime(*parts, tzinfo=UTC), "moment_local": DateTime(*parts)}


def begun(time: str) -> str:
    """The condition that a time, such as `e.since`, is not after the moment; a missing one is not.

    A time that is none (a date, a text) is never reached.
    """
    return f"coalesce({time} <= $moment, {time} <= $moment_local, {time} IS NULL)"


def holds(kind: EdgeKind, edge: str) -> str:
    """The condition that a relationship holds at the moment: `start <= moment < end`.

    Args:
        kind: Which times it has.
        edge: Its variable.
    """
    start = begun(f"{edge}.{kind.start}")
    if kind.end is None:
        return start
    end = f"{edge}.{kind.end}"
    return f"{start} AND coalesce({end} > $moment, {end} > $moment_local, {end} IS NULL)"
