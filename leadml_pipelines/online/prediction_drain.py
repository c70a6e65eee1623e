"""Carrying predictions from the stream in Redis into `leadml.predictions`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import structlog

from leadml_pipelines.online.prediction_stream import Entry, PredictionStream
from leadml_pipelines.postgres import connect

BATCH = 50
"""Entries that are stored in one transaction: 12,500 predictions at the most."""
CLAIM_AFTER = 60.0
"""Seconds after which what another consumer was given is taken over. Longer than storing takes."""
CLAIM_EVERY = 10.0
"""Seconds between two looks for such entries."""
MAX_DOCUMENT = 1024 * 1024
"""Bytes of an entry; what is longer is none of ours."""

REMOVED_AT_ONCE = 10_000
"""Old predictions that are removed in one transaction."""

# PostgreSQL reads the documents itself: nothing is parsed in the process that answers requests. A
# document without entities makes a row of nothing, which the table refuses.
_ROWS = b"""
INSERT INTO leadml.predictions (
    prediction_id, model_name, model_id, role, entity_type, entity_id, features_as_of,
    predicted_at, value, prediction, score, source, stale, degraded, latency_ms, experiment,
    traffic_share)
SELECT answer.id || '-' || row.place, model_name, model_id, role, entity_type, row.entity_id,
    'epoch'::timestamptz + row.as_of::bigint * interval '1 microsecond',
    predicted_at, row.value::float8, row.prediction::float8, row.score::float8, row.source,
    row.stale::boolean, degraded, latency_ms, experiment, traffic_share
FROM json_to_recordset(%s::json) AS answer (
    id text, model_name text, model_id text, role text, entity_type text, predicted_at timestamptz,
    degraded boolean, latency_ms float4, experiment text, traffic_share float8, entity_ids json,
    features_as_of json, "values" json, predictions json, scores json, sources json, stale json)
LEFT JOIN LATERAL ROWS FROM (
    json_array_elements_text(entity_ids), json_array_elements_text(features_as_of),
    json_array_elements_text("values"), json_array_elements_text(predictions),
    json_array_elements_text(scores), json_array_elements_text(sources),
    json_array_elements_text(answer.stale)
) WITH ORDINALITY AS row (entity_id, as_of, value, prediction, score, source, stale, place) ON true
"""
# A document is stored as a whole, so one look tells whether it is there; a look for each row, and
# rows that come to the index in another order than its own, take PostgreSQL a third as long again.
_INSERT = (
    _ROWS
    + b"""
WHERE NOT EXISTS (SELECT FROM leadml.predictions WHERE prediction_id = answer.id || '-1')
ORDER BY 1
"""
)
# Where one was sent twice at once, or two drains store the same, or a part was pruned.
_INSERT_MISSING = _ROWS + b"ON CONFLICT (prediction_id) DO NOTHING"

_ROW_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.StatementTooComplex,
    # A text that is too long for the table's index.
    psycopg.errors.ProgramLimitExceeded,
)
"""What an entry is to blame for; anything else is PostgreSQL's, and passes."""

T = TypeVar("T")
Run = Callable[[Callable[[psycopg.Connection[Any]], Any]], Any]
"""Does some work over a connection in autocommit mode; `serving.connections.Connections.run`."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of predictions.

    Attributes:
        stored: Those that are in PostgreSQL since now.
        known: Those that had been there already.
        refused: Those of entries that are none, which were removed.
    """

    stored: int = 0
    known: int = 0
    refused: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.stored + self.known + self.refused

    def __add__(self, other: Drained) -> Drained:
        return Drained(
            self.stored + other.stored, self.known + other.known, self.refused + other.refused
        )


class PredictionDrain:
    """Stores what the stream holds; several may do so at once, in any number of processes.

    An entry leaves Redis only after the transaction that stored it was committed, so nothing is
    lost; each prediction has an id that the table holds once, so nothing is counted twice.

    Args:
        stream: Where from.
        run: Where to: `Connections.run`, or `lambda work: work(connection)`.
    """

    def __init__(self, stream: PredictionStream, run: Run) -> None:
        self._stream = stream
        self._run = run
        self._turn = threading.Lock()
        self._holding = False
        self._claimed_at = float("-inf")

    def drain(
        self, seconds: float = float("inf"), note: Callable[[Drained], None] = lambda drained: None
    ) -> Drained:
        """Store all that waits now.

        Args:
            seconds: No further batch is begun after them.
            note: Told what became of each batch; a later one may fail.

        Raises:
            redis.RedisError: Redis can't be reached.
            psycopg.Error, or what `run` makes of it: PostgreSQL can't take them; what was taken
                from the stream is stored by the next call, or by another consumer.
        """
        until = time.monotonic() + seconds
        total = Drained()
        with self._turn:
            while True:
                drained = self._step()
                note(drained)
                total += drained
                if not drained.count or time.monotonic() >= until:
                    return total

    def prune(self, keep_days: int) -> int:
        """Remove predictions that are older, `REMOVED_AT_ONCE` at the most; returns how many.

        Raises:
            psycopg.Error, or what `run` makes of it.
        """
        removed: int = self._run(lambda connection: _remove(connection, keep_days))
        return removed

    def _step(self) -> Drained:
        entries = self._next()
        drained = Drained()
        if entries:
            drained = self._run(lambda connection: _store(connection, entries))
            self._stream.done(entries)
        self._holding = False
        return drained

    def _next(self) -> list[Entry]:
        """What is held since a failure, else what others left behind, else what is new."""
        if self._holding:
            held = self._stream.held(BATCH)
            if held:
                return held
        # Before they are asked for: Redis may give out entries and fail to tell.
        self._holding = True
        if time.monotonic() >= self._claimed_at + CLAIM_EVERY:
            claimed = self._stream.claim(BATCH, CLAIM_AFTER)
            if claimed:
                return claimed
            self._claimed_at = time.monotonic()
        return self._stream.new(BATCH)


def _store(connection: psycopg.Connection[Any], entries: Sequence[Entry]) -> Drained:
    drained = Drained()
    texts: dict[Entry, str] = {}
    for entry in entries:
        text = _text(entry.document)
        if text is not None:
            texts[entry] = text
        elif entry.document is None:
            # Stored by whoever deleted it and was cut off before it could say so.
            drained += Drained(known=entry.count)
        else:
            drained += Drained(refused=entry.count)
            _say_refused(entry, "no JSON text of predictions")
    try:
        return drained + _insert(connection, _INSERT, texts)
    except _ROW_ERRORS:
        # One by one, to find which it is: the others are sound. It may only be stored already.
        for entry, text in texts.items():
            try:
                drained += _insert(connection, _INSERT_MISSING, {entry: text})
            except _ROW_ERRORS as error:
                drained += Drained(refused=entry.count)
                _say_refused(entry, type(error).__name__)
        return drained


def _insert(
    connection: psycopg.Connection[Any], statement: bytes, texts: Mapping[Entry, str]
) -> Drained:
    if not texts:
        return Drained()
    stored = connection.execute(statement, (f"[{','.join(texts.values())}]",)).rowcount
    return Drained(stored, sum(entry.count for entry in texts) - stored)


def _text(document: bytes | None) -> str | None:
    if document is None or not 0 < len(document) <= MAX_DOCUMENT:
        return None
    try:
        return document.decode()
    except UnicodeDecodeError:
        return None


def _say_refused(entry: Entry, why: str) -> None:
    log.error(
        "logged_prediction_refused",
        entry=entry.entry_id.decode(errors="replace"),
        why=why,
        begins=(entry.document or b"")[:200].decode(errors="replace"),
    )


def _remove(connection: psycopg.Connection[Any], keep_days: int) -> int:
    return connection.execute(
        "DELETE FROM leadml.predictions WHERE prediction_id IN ("
        " SELECT prediction_id FROM leadml.predictions"
        " WHERE predicted_at < now() - make_interval(days => %s) LIMIT %s)",
        (keep_days, REMOVED_AT_ONCE),
    ).rowcount


def drain_now(redis_url: str, postgres_url: str) -> Drained:
    """Store all that waits now, from outside the app: before something reads the table.

    Args:
        redis_url: Where the stream is.
        postgres_url: PostgreSQL, migrated.

    Raises:
        redis.RedisError, psycopg.Error: a server can't be reached; nothing is lost.
    """
    with (
        closing(PredictionStream(redis_url, limit=0)) as stream,
        connect(postgres_url, autocommit=True) as connection,
    ):
        drained = PredictionDrain(stream, lambda work: work(connection)).drain()
        stream.leave()
        return drained
