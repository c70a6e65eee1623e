"""The stream of predictions in Redis, between the app that made them and PostgreSQL."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from leadml_pipelines.online import keys
from leadml_pipelines.online.client import redis_client

CHUNK = 50
"""Entries that one script adds: Redis does nothing else for a millisecond or two at the most."""
TIMEOUT = 2.0
"""Seconds that one answer of Redis may take."""

T = TypeVar("T")

_DOCUMENT = b"json"
_COUNT = b"count"
_MILLISECONDS_ABANDONED = 24 * 3600 * 1000

# What no longer fits is refused, not trimmed: MAXLEN would drop the oldest without a word, also
# those that are being carried to PostgreSQL right now, and it counts entries, not predictions.
_ADD = """
local waiting = 0
if redis.call('XLEN', KEYS[1]) > 0 then waiting = tonumber(redis.call('GET', KEYS[2]) or 0) end
local added = 0
for i = 2, #ARGV, 2 do
  local count = tonumber(ARGV[i])
  if waiting + count > tonumber(ARGV[1]) then break end
  redis.call('XADD', KEYS[1], '*', 'count', count, 'json', ARGV[i + 1])
  waiting = waiting + count
  added = added + 1
end
redis.call('SET', KEYS[2], waiting)
return added
"""

# Without memory Redis refuses a transaction, and this is what frees some; a script that began by
# freeing may go on. The number starts anew where it can be known: what somebody else deleted from
# the stream would be missing in it for ever.
_DONE = """
local removed = 0
for i = 2, #ARGV, 2 do
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then removed = removed + tonumber(ARGV[i + 1]) end
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
end
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[2])
else redis.pcall('DECRBY', KEYS[2], removed) end
"""

# A consumer that is deleted takes along what it holds: only one that holds nothing may go.
_FORGET = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


_KEYS = [keys.PREDICTIONS, keys.PREDICTIONS_WAITING]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the stream.

    Attributes:
        entry_id: Its id in the stream.
        document: Predictions, JSON; empty if the entry holds none, None if it was deleted.
        count: How many predictions it holds.
    """

    entry_id: bytes
    document: bytes | None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """Predictions that share a model and a moment, ready to be added.

    Attributes:
        text: JSON; `docs/redis-format.md` lists its members.
        count: How many predictions it holds.
    """

    text: bytes
    count: int


class PredictionStream:
    """Adds predictions, and gives them out to be stored. Safe to share between threads.

    What was taken is held by this consumer until `done`; if its process ends before, another
    consumer claims it.

    Args:
        url: `redis://...` or `rediss://...`.
        limit: Predictions that may wait.
        timeout_seconds: How long one answer of Redis may take.
    """

    def __init__(self, url: str, limit: int, *, timeout_seconds: float = TIMEOUT) -> None:
        self._redis = redis_client(url, timeout_seconds)
        self._limit = limit
        self._consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._add = self._redis.register_script(_ADD)
        self._done = self._redis.register_script(_DONE)
        self._forget = self._redis.register_script(_FORGET)

    def add(self, documents: Sequence[Document]) -> int:
        """Add predictions in their order, as long as there is room.

        Returns:
            How many documents were added: the first ones.

        Raises:
            redis.RedisError: nobody knows how many of the next `CHUNK` were added. They may be
                added again: each bears an id, and is stored once.
        """
        added = 0
        for start in range(0, len(documents), CHUNK):
            chunk = documents[start : start + CHUNK]
            pairs = [part for one in chunk for part in (one.count, one.text)]
            taken = int(self._add(_KEYS, [self._limit, *pairs]))
            added += taken
            if taken < len(chunk):
                break
        return added

    def waiting(self) -> int:
        """How many predictions wait in Redis."""
        found: Any = self._redis.get(keys.PREDICTIONS_WAITING)
        return max(0, int(found or 0))

    def new(self, count: int) -> list[Entry]:
        """Entries that no consumer was given yet, the oldest first; now held by this one."""
        return self._read(b">", count)

    def held(self, count: int) -> list[Entry]:
        """Entries that this consumer holds and is not done with, the oldest first."""
        return self._read(b"0", count)

    def claim(self, count: int, idle_seconds: float) -> list[Entry]:
        """Entries that a consumer was given that long ago and is not done with.

        Redis measures by its own clock: where that is set back, a crashed consumer's entries are
        claimed as much later; where it is set ahead, a living one's are, and are stored twice,
        which is once.
        """
        answer: Any = self._in_group(
            lambda: self._redis.xautoclaim(
                keys.PREDICTIONS,
                keys.PREDICTIONS_GROUP,
                self._consumer,
                int(idle_seconds * 1000),
                count=count,
            )
        )
        return _entries(answer[1])

    def done(self, entries: Sequence[Entry]) -> None:
        """Forget entries that are stored."""
        if entries:
            pairs = [part for one in entries for part in (one.entry_id, one.count)]
            self._done(_KEYS, [keys.PREDICTIONS_GROUP, *pairs])

    def forget_consumers(self) -> None:
        """Remove the names of consumers that were not heard of for a day and hold nothing."""
        found: Any = self._in_group(
            lambda: self._redis.xinfo_consumers(keys.PREDICTIONS, keys.PREDICTIONS_GROUP)
        )
        for consumer in found:
            if consumer["idle"] > _MILLISECONDS_ABANDONED:
                self._forget([keys.PREDICTIONS], [keys.PREDICTIONS_GROUP, consumer["name"]])

    def leave(self) -> None:
        """Remove this consumer's name, unless it holds something that another has to claim."""
        self._in_group(
            lambda: self._forget([keys.PREDICTIONS], [keys.PREDICTIONS_GROUP, self._consumer])
        )

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()

    def _read(self, start: bytes, count: int) -> list[Entry]:
        answer: Any = self._in_group(
            lambda: self._redis.xreadgroup(
                keys.PREDICTIONS_GROUP, self._consumer, {keys.PREDICTIONS: start}, count
            )
        )
        return [entry for _, part in answer or () for entry in _entries(part)]

    def _in_group(self, command: Callable[[], T]) -> T:
        """Do something that needs the consumer group, which is made when it is not there."""
        try:
            return command()
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
        try:
            # From the first entry on: they may have come before any consumer.
            self._redis.xgroup_create(
                keys.PREDICTIONS, keys.PREDICTIONS_GROUP, id="0", mkstream=True
            )
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        return command()


def _entries(found: Any) -> list[Entry]:
    """Entries as redis-py gives them; one that was deleted meanwhile has no fields."""
    return [_entry(name, fields) for name, fields in found if name]


def _entry(name: bytes, fields: dict[bytes, bytes] | None) -> Entry:
    if not fields:
        return Entry(name, None)
    count = fields.get(_COUNT, b"1")
    known = count.isdigit() and len(count) < 10
    return Entry(name, fields.get(_DOCUMENT, b"") if known else b"", int(count) if known else 1)
