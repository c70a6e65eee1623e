"""A log of served vectors in PostgreSQL, a sample of them, for the skew audit (`docs/audit.md`).

A request only draws lots and leaves what was drawn in memory; a thread of its own writes it down.
When PostgreSQL is slow or away, what no longer fits is dropped and counted: the log never delays a
request and never fails one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Matrix, Micros, Schema
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.times import from_micros, utc_now

WAITING = 50_000
"""Vectors that may wait to be written: some 30 MB."""
PERIOD = 0.5
"""Seconds between two writes."""
REST = 5.0
"""Seconds for which PostgreSQL is left alone after it failed."""
REMEMBERED = 100_000
"""Vectors known to be written: a cached value is served many times and written once."""

_LIMITS = {"connect_timeout": 2, "tcp_user_timeout": 5000}
_STATEMENT_SECONDS = 5
_ANSWER_SECONDS = _STATEMENT_SECONDS + 1
_CLOSE_SECONDS = 10

_COPY = (
    "COPY leadml.served_features (entity_type, entity_id, as_of, computed_at, schema_id, vector, "
    "source, served_at, share) FROM STDIN (FORMAT BINARY)"
)
_TYPES = (
    "text",
    "text",
    "timestamptz",
    "timestamptz",
    "int8",
    "float8[]",
    "text",
    "timestamptz",
    "float8",
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Vectors of one answer that share a schema."""

    schema: Schema
    ids: list[str]
    as_of: Micros
    computed_at: Micros
    values: Matrix
    sources: list[str]
    served_at: datetime
    share: float

    def digest(self, at: int) -> bytes:
        """What tells a vector from every other."""
        name = f"{self.schema.entity_type}\0{self.schema.schema_id}\0{self.ids[at]}\0"
        digest = hashlib.blake2b(name.encode(), digest_size=16)
        digest.update(self.as_of[at].tobytes())
        digest.update(self.computed_at[at].tobytes())
        digest.update(self.values[at].tobytes())
        return digest.digest()

    def row(self, at: int) -> tuple[Any, ...]:
        """A vector as a row of the table."""
        return (
            self.schema.entity_type,
            self.ids[at],
            from_micros(int(self.as_of[at])),
            from_micros(int(self.computed_at[at])),
            self.schema.schema_id,
            self.values[at].tolist(),
            self.sources[at],
            self.served_at,
            self.share,
        )


class ServedLog:
    """Writes a sample of what is served into `leadml.served_features`.

    Nothing is opened before the first vector is drawn. Safe to share between threads.

    Args:
        postgres_url: `postgresql://...`.
        share: Share of the served vectors that is logged, 0 to 1.
        metrics: Where to count.
    """

    def __init__(self, postgres_url: str, share: float, metrics: Metrics) -> None:
        self._url = make_conninfo(postgres_url, **_LIMITS)
        self._share = share
        self._logged = metrics.audited.labels("logged")
        self._dropped = metrics.audited.labels("dropped")
        self._random = np.random.default_rng()
        self._turn = threading.Lock()
        self._waiting: list[_Drawn] = []
        self._count = 0
        self._writer: threading.Thread | None = None
        self._closing = threading.Event()
        # The writer's own.
        self._connection: psycopg.Connection[Any] | None = None
        self._known: dict[bytes, None] = {}

    def note(self, batch: Batch, sources: Sequence[str | None]) -> None:
        """Draw some of the vectors of an answer, to be written later.

        Args:
            batch: What is answered, as it was stored or computed: before anything is masked or
                recoded for the caller.
            sources: Where each of the batch's entities was found.
        """
        if self._share <= 0:
            return
        for group in batch.groups:
            drawn = np.flatnonzero(self._random.random(len(group.positions)) < self._share)
            if not len(drawn):
                continue
            places = group.positions[drawn].tolist()
            self._put(
                _Drawn(
                    group.schema,
                    [batch.entity_ids[at] for at in places],
                    # Copies: the group is a view over the bytes of the whole answer.
                    group.as_of[drawn],
                    group.computed_at[drawn],
                    group.values[drawn],
                    [sources[at] or "" for at in places],
                    utc_now(),
                    self._share,
                )
            )

    def close(self) -> None:
        """Write what waits, if PostgreSQL lets us within a few seconds, and end."""
        self._closing.set()
        if self._writer is not None:
            self._writer.join(_CLOSE_SECONDS)

    def _put(self, drawn: _Drawn) -> None:
        with self._turn:
            if self._count + len(drawn.ids) > WAITING:
                self._dropped.inc(len(drawn.ids))
                return
            self._waiting.append(drawn)
            self._count += len(drawn.ids)
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name="served-log", daemon=True)
                self._writer.start()

    def _run(self) -> None:
        pause = PERIOD
        while not self._closing.wait(pause):
            pause = PERIOD if self._write_waiting() else REST
        self._write_waiting()
        if self._connection is not None:
            self._connection.close()

    def _write_waiting(self) -> bool:
        """Write what waits; False when PostgreSQL did not take it, and it was dropped."""
        with self._turn:
            waiting, self._waiting = self._waiting, []
            count, self._count = self._count, 0
        if not count:
            return True
        try:
            written = self._write(waiting)
        except Exception as error:
            # Whatever it is must not end the thread: nothing would ever be logged again.
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._dropped.inc(count)
            # Of PostgreSQL only the kind: a driver's message may quote the address.
            unforeseen = not isinstance(error, psycopg.Error)
            kind = type(error).__name__
            log.warning("served_vectors_dropped", count=count, error=kind, exc_info=unforeseen)
            return False
        self._logged.inc(written)
        return True

    def _write(self, waiting: Sequence[_Drawn]) -> int:
        new: dict[bytes, tuple[Any, ...]] = {}
        for drawn in waiting:
            for at in range(len(drawn.ids)):
                digest = drawn.digest(at)
                if digest not in self._known and digest not in new:
                    new[digest] = drawn.row(at)
        if not new:
            return 0
        if self._connection is None:
            self._connection = connect(self._url, answer_seconds=_ANSWER_SECONDS, autocommit=True)
            self._connection.execute(f"SET statement_timeout = '{_STATEMENT_SECONDS}s'".encode())
        schemas = {(s.entity_type, s.schema_id): s for s in (drawn.schema for drawn in waiting)}
        with self._connection.transaction(), self._connection.cursor() as cursor:
            # Each time: those that no vector needs are forgotten.
            cursor.executemany(
                "INSERT INTO leadml.served_schemas (entity_type, schema_id, document) "
                "VALUES (%s, %s, %s::jsonb) ON CONFLICT DO NOTHING",
                [(*key, schema.document.decode()) for key, schema in schemas.items()],
            )
            with cursor.copy(_COPY) as copy:
                copy.set_types(_TYPES)
                for row in new.values():
                    copy.write_row(row)
        self._known |= dict.fromkeys(new)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return len(new)
