"""The online store in Redis: packed values, their schemas, the pointer to the newest snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import redis

from leadml_pipelines.closing import Closing
from leadml_pipelines.online import keys
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.client import redis_client
from leadml_pipelines.online.format import (
    FormatError,
    Moments,
    Schema,
    decode,
    document_id,
    invalidation,
)
from leadml_pipelines.times import from_micros, to_micros

MAX_BATCH = 1000
"""Most entities that one round trip asks for; a longer read is split."""
JITTER = 0.1
"""Share by which a time to live is longer or shorter, so that keys don't expire all at once."""
CLOCK_SKEW_SECONDS = 60
"""How far in the future `as_of` may lie before a value is refused."""

SCHEMA_SECONDS = 30 * 24 * 3600
"""How long a schema document lives after it was last written, or was current; twice as long as a
value at least."""
KEPT_SCHEMAS = 1000
"""Schemas that are kept in memory."""

_KEYS_PER_SCRIPT = 250
_SCRIPTS_PER_TRIP = 8

# For each key: the stored value stays if it is newer (by as_of, then by computed_at). A value dated
# in the future is refused, for it would keep every real one out. A key of another type than ours
# is replaced. Lua's numbers are float64: exact for microseconds until the year 2255.
_WRITE = """
local now = redis.call('TIME')
local limit = (now[1] + tonumber(ARGV[1])) * 1000000 + now[2]
local written, future = 0, 0
for i, key in ipairs(KEYS) do
  local value = ARGV[2 * i]
  local as_of, computed = struct.unpack('<i8i8', value, 9)
  if as_of > limit then
    future = future + 1
  else
    local old = redis.pcall('GETRANGE', key, 8, 23)
    local keep = false
    if type(old) == 'table' then
      if not string.find(old.err, 'WRONGTYPE', 1, true) then return old end
    elseif #old == 16 then
      local old_as_of, old_computed = struct.unpack('<i8i8', old)
      keep = old_as_of > as_of or (old_as_of == as_of and old_computed > computed)
    end
    if not keep then
      redis.call('SET', key, value, 'PX', ARGV[2 * i + 1])
      written = written + 1
    end
  end
end
return {written, future}
"""

# A value that nobody can read is removed, unless it was replaced meanwhile.
_DISCARD = """
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i] then redis.call('DEL', key) end
end
"""

# A document lives on from each write of its values; the current one lives without end already.
_KEEP_SCHEMA = """
if redis.call('TTL', KEYS[1]) ~= -1 then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
"""

# The pointer moves only forward; the current schema moves with it, and lives without end: under
# lack of memory Redis must not take it for something to spare. The one before may end.
_POINT = """
local old = redis.call('GET', KEYS[1])
if old and tonumber(cjson.decode(old)['as_of_micros']) > tonumber(ARGV[2]) then return 0 end
local before = redis.call('GET', KEYS[2])
if before and before ~= ARGV[3] then
  redis.call('EXPIRE', string.sub(KEYS[3], 1, -#ARGV[3] - 1) .. before, ARGV[4])
end
redis.call('PERSIST', KEYS[3])
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


class OnlineStoreError(RuntimeError):
    """The store holds something that contradicts what shall be written."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch of writes.

    Attributes:
        written: Values that are in Redis now.
        kept_newer: Keys that already held something newer.
        future: Values refused because they are dated in the future.
    """

    written: int
    kept_newer: int
    future: int


class OnlineStore(Closing):
    """Packed values in Redis. Safe to share between threads; connections come from a pool.

    Args:
        url: `redis://...` or `rediss://...`.
        ttl_seconds: How long a value lives, give or take a tenth.
        timeout_seconds: How long one answer of Redis may take.
        max_connections: Size of the pool.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_seconds: int = 3600,
        timeout_seconds: float = 5.0,
        max_connections: int = 64,
    ) -> None:
        self._redis = redis_client(url, timeout_seconds, max_connections)
        self._ttl_milliseconds = ttl_seconds * 1000
        self._schema_seconds = max(SCHEMA_SECONDS, 2 * ttl_seconds)
        self._random = np.random.default_rng()
        self._schemas: dict[tuple[str, int], Schema] = {}
        self._write = self._redis.register_script(_WRITE)
        self._discard = self._redis.register_script(_DISCARD)
        self._keep_schema = self._redis.register_script(_KEEP_SCHEMA)
        self._point = self._redis.register_script(_POINT)

    @property
    def longest_life_seconds(self) -> float:
        """How long a value may live at the most."""
        return self._ttl_milliseconds / 1000 * (1 + JITTER)

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()

    def ping(self) -> None:
        """Ask Redis for a sign of life.

        Raises:
            redis.RedisError: there is none.
        """
        self._redis.ping()

    def instance(self) -> str:
        """Which run of which server answers; another one may lack what this one was told.

        Raises:
            redis.exceptions.NoPermissionError: the user of the URL may not ask for `INFO`.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.info("server")
            pipe.info("replication")
            server, replication = pipe.execute()
        # The second changes when a replica takes over, or takes up another server's data.
        return f"{server.get('run_id', '')}/{replication.get('master_replid', '')}"

    # Schemas

    def put_schema(self, schema: Schema) -> int:
        """Store a schema under its id and return the id. The current schema does not change.

        Raises:
            OnlineStoreError: another schema has the same id.
        """
        key = keys.schema_key(schema.entity_type, schema.schema_id)
        stored: Any = self._redis.get(key)
        if stored not in (None, schema.document):
            if document_id(stored) == schema.schema_id:
                raise OnlineStoreError(
                    f"{key} holds another schema with the same id; rename or reorder a feature"
                )
            self._redis.set(key, schema.document, keepttl=True)  # it was damaged
        self._keep_schema(keys=[key], args=[schema.document, self._schema_seconds])
        self._remember(schema)
        return schema.schema_id

    def schema(self, entity_type: str, schema_id: int) -> Schema | None:
        """The schema of an id, from memory if it was seen before; None if Redis lacks it.

        Raises:
            FormatError: what Redis holds is not the document of this id.
        """
        known = self._schemas.get((entity_type, schema_id))
        if known is not None:
            return known
        key = keys.schema_key(entity_type, schema_id)
        document: Any = self._redis.get(key)
        if document is None:
            return None
        if document_id(document) != schema_id:
            raise FormatError(f"{key} holds a document of another id")
        schema = Schema.from_document(document)
        self._remember(schema)
        return schema

    def _remember(self, schema: Schema) -> None:
        if len(self._schemas) >= KEPT_SCHEMAS:
            self._schemas.clear()  # those in use are soon there again
        self._schemas[schema.entity_type, schema.schema_id] = schema

    def current_schema(self, entity_type: str) -> Schema | None:
        """The schema of the newest whole snapshot; None before the first, or if Redis lacks it.

        Raises:
            FormatError: what Redis holds is not the document of its id.
        """
        current: Any = self._redis.get(keys.current_schema_key(entity_type))
        return None if current is None else self.schema(entity_type, int(current))

    # Values

    def write_batch(
        self,
        entity_type: str,
        ids: Sequence[str],
        payloads: Sequence[bytes],
        progress: Callable[[int], None] | None = None,
        *,
        schema: Schema | None = None,
    ) -> Written:
        """Write packed values; each key keeps what it has if that is newer, atomically.

        Args:
            entity_type: Such as `lead`.
            ids: Entity ids.
            payloads: The packed value of each, from `format.encode`.
            progress: Told how many more are done.
            schema: Stored in the same round trip before the values, and so lives on.

        Raises:
            OnlineStoreError: another schema has the same id.
        """
        if schema is not None and (entity_type, schema.schema_id) not in self._schemas:
            self.put_schema(schema)
        names = entity_keys_checked(entity_type, ids, payloads)
        spread = self._random.uniform(1 - JITTER, 1 + JITTER, len(names))
        lives = (self._ttl_milliseconds * spread).astype(np.int64).tolist()
        written = future = 0
        for trip in _slices(len(names), _KEYS_PER_SCRIPT * _SCRIPTS_PER_TRIP):
            calls = []
            for part in _slices(trip.stop - trip.start, _KEYS_PER_SCRIPT):
                at = slice(trip.start + part.start, trip.start + part.stop)
                arguments: list[Any] = [CLOCK_SKEW_SECONDS]
                for payload, life in zip(payloads[at], lives[at], strict=True):
                    arguments += (payload, life)
                calls.append((names[at], arguments))
            try:
                answers = self._write_trip(calls, schema)
            except redis.exceptions.NoScriptError:
                # Redis was started anew. What was written before this is written again.
                self._redis.script_load(_WRITE)
                self._redis.script_load(_KEEP_SCHEMA)
                answers = self._write_trip(calls, schema)
            written += sum(answer[0] for answer in answers)
            future += sum(answer[1] for answer in answers)
            if progress is not None:
                progress(trip.stop - trip.start)
        return Written(written, len(names) - written - future, future)

    def _write_trip(
        self, calls: Sequence[tuple[list[str], list[Any]]], schema: Schema | None
    ) -> list[Any]:
        """One round trip of the script by its digest; redis-py would first ask if it is there."""
        with self._redis.pipeline(transaction=False) as pipe:
            if schema is not None:
                key = keys.schema_key(schema.entity_type, schema.schema_id)
                document, seconds = schema.document, self._schema_seconds
                pipe.evalsha(self._keep_schema.sha, 1, key, document, seconds)
            for names, arguments in calls:
                pipe.evalsha(self._write.sha, len(names), *names, *arguments)
            answers = pipe.execute()
        return answers[schema is not None :]

    def invalidate(
        self,
        entity_type: str,
        ids: Sequence[str],
        moment: datetime,
        computed_at: datetime | None = None,
    ) -> Written:
        """Say that whatever is older than `moment` is no longer true of these entities.

        Their keys then count as missing, and a value computed before `moment` can no longer be
        written over that, however late its writer comes.

        Args:
            entity_type: Such as `lead`.
            ids: Entity ids.
            moment: The `as_of` from which values are true again.
            computed_at: Where values may keep their `as_of` and be computed anew (a historical
                data set): what was computed before this is no longer true either.
        """
        known = None if computed_at is None else to_micros(computed_at)
        payload = invalidation(to_micros(moment), known)
        return self.write_batch(entity_type, ids, [payload] * len(ids))

    def forget(self, entity_type: str, ids: Sequence[str]) -> None:
        """Remove whatever is there of entities."""
        names = keys.entity_keys(entity_type, ids)
        for part in _slices(len(names), MAX_BATCH):
            self._redis.unlink(*names[part])

    def discard(self, entity_type: str, broken: Mapping[str, bytes]) -> None:
        """Remove values that can't be read, by id; one that was replaced meanwhile stays.

        Without this, what a broken value takes for its time could keep every later one out.
        """
        names = keys.entity_keys(entity_type, list(broken))
        self._discard(keys=names, args=list(broken.values()))

    def read_batch(
        self,
        entity_type: str,
        ids: Sequence[str],
        broken: dict[str, bytes] | None = None,
        invalidated: dict[str, Moments] | None = None,
    ) -> Batch:
        """Read entities in one round trip per thousand.

        Args:
            entity_type: Such as `lead`.
            ids: Entity ids.
            broken: Takes up the values that can't be read, by id; they then count as missing.
            invalidated: Takes up since when the values of invalidated entities are untrue, by id.

        Raises:
            EntityIdError: an id can be no key.
            FormatError: without `broken`: a value is broken or of an unknown schema; the message
                names its key.
            redis.RedisError: Redis can't be reached.
        """
        names = keys.entity_keys(entity_type, ids)
        payloads: list[bytes | None] = []
        for part in _slices(len(names), MAX_BATCH):
            answer: Any = self._redis.mget(names[part])
            payloads += answer

        def note(position: int, error: FormatError) -> None:
            if broken is not None:
                broken[ids[position]] = payloads[position] or b""

        def note_invalidated(position: int, moments: Moments) -> None:
            if invalidated is not None:
                invalidated[ids[position]] = moments

        groups = decode(
            payloads,
            names,
            lambda number: self.schema(entity_type, number),
            None if broken is None else note,
            note_invalidated,
        )
        return Batch(tuple(ids), tuple(groups))

    # The snapshot pointer

    def point_to_snapshot(
        self, schema: Schema, as_of: datetime, details: Mapping[str, Any]
    ) -> bool:
        """Declare the snapshot of `as_of` whole. Call it after its last value is written.

        Args:
            schema: Schema of its values; becomes the current one.
            as_of: The moment it describes.
            details: What else the pointer tells, JSON-ready.

        Returns:
            False if the pointer was already at a later snapshot, and stays there.
        """
        pointer = {
            **details,
            "as_of": as_of.isoformat(),
            "as_of_micros": to_micros(as_of),
            "schema_id": schema.schema_id,
        }
        entity_type = schema.entity_type
        moved: Any = self._point(
            keys=[
                keys.snapshot_key(entity_type),
                keys.current_schema_key(entity_type),
                keys.schema_key(entity_type, schema.schema_id),
            ],
            args=[
                json.dumps(pointer),
                to_micros(as_of),
                schema.schema_id,
                self._schema_seconds,
            ],
        )
        return bool(moved)

    def snapshot(self, entity_type: str) -> dict[str, Any] | None:
        """The pointer to the newest whole snapshot; None before the first."""
        text: Any = self._redis.get(keys.snapshot_key(entity_type))
        return None if text is None else json.loads(text)

    def snapshot_as_of(self, entity_type: str) -> datetime | None:
        """The moment that the newest whole snapshot describes; None before the first."""
        pointer = self.snapshot(entity_type)
        return None if pointer is None else from_micros(pointer["as_of_micros"])


def entity_keys_checked(
    entity_type: str, ids: Sequence[str], payloads: Sequence[bytes]
) -> list[str]:
    """The keys of entities whose payloads are as many as they are.

    Raises:
        ValueError: they are not.
    """
    if len(ids) != len(payloads):
        raise ValueError(f"{len(ids)} {entity_type} ids but {len(payloads)} values")
    return keys.entity_keys(entity_type, ids)


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
