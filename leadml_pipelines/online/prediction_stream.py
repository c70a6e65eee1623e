"""The stream of predictions in Redis, between the app that made them and PostgreSQL."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from leadml_pipelines.online import keys

CHUNK = 250
"""Entries that one script adds: Redis does nothing else for a millisecond at the most."""
TIMEOUT = 2.0
"""Seconds that one answer of Redis may take."""

T = TypeVar("T")

_FIELD = b"json"
_MILLISECONDS_ABANDONED = 24 * 3600 * 1000

# What no longer fits is refused, not trimmed: MAXLEN would drop the oldest without a word, also
# those that are being carried to PostgreSQL right now.
_ADD = """
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local added = math.min(math.max(room, 0), #ARGV - 1)
for i = 1, added do redis.call('XADD', KEYS[1], '*', 'json', ARGV[i + 1]) end
return added
"""

# A consumer that is deleted takes along what it holds: only one that holds nothing may go.
_FORGET = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the stream.

    Attributes:
        entry_id: Its id in the stream.
        document: A prediction, JSON; empty if the entry holds none, None if it was deleted.
    """

    entry_id: bytes
    document: bytes | None


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
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # A connection that was closed is opened again; what takes too long is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        self._limit = limit
        self._consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._add = self._redis.register_script(_ADD)
        self._forget = self._redis.register_script(_FORGET)

    def add(self, documents: Sequence[bytes]) -> int:
        """Add predictions in their order, as many as there is room for.

        Args:
            documents: JSON objects; `docs/redis-format.md` lists their members.

        Returns:
            How many were added: the first ones.

        Raises:
            redis.RedisError: nobody knows how many of the next `CHUNK` were added. They may be
                added again: each bears an id, and is stored once.
        """
        added = 0
        for start in range(0, len(documents), CHUNK):
            chunk = documents[start : start + CHUNK]
            taken = int(self._add([keys.PREDICTIONS], [self._limit, *chunk]))
            added += taken
            if taken < len(chunk):
                break
        return added

    def length(self) -> int:
        """How many predictions wait in Redis."""
        return int(self._redis.xlen(keys.PREDICTIONS))

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
        if not entries:
            return
        ids = [entry.entry_id for entry in entries]
        # No transaction: without memory Redis would refuse it, and this is what frees some. The
        # other way round, a cut between the two would leave entries that nobody is ever given.
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xdel(keys.PREDICTIONS, *ids)
            pipe.xack(keys.PREDICTIONS, keys.PREDICTIONS_GROUP, *ids)
            pipe.execute()

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
    return [
        Entry(name, fields.get(_FIELD, b"") if fields else None) for name, fields in found if name
    ]
