"""The log of predictions: noted by requests, sent to Redis, brought to PostgreSQL, by two threads.

A request only leaves its answer in memory. When Redis is slow, away or full, what was answered
waits there; what no longer fits is dropped and counted. The log never delays a request and never
fails one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import redis
import structlog

from leadml_pipelines.online.prediction_drain import Drained, PredictionDrain
from leadml_pipelines.online.prediction_stream import CHUNK, PredictionStream
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import Part
from leadml_pipelines.serving.reader import Found
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import to_micros

WAITING = 50_000
"""Predictions that may wait in memory: some 25 MB."""
PERIOD = 0.1
"""Seconds between two looks for what was noted."""
REST = 1.0
"""Seconds for which Redis is left alone after it took less than all."""
DRAIN_PERIOD = 1.0
"""Seconds between two looks into the stream."""
PRUNE_EVERY = 3600.0
"""Seconds between two removals of what is too old."""

_DRAIN_SECONDS = 5.0
"""Seconds after which the drain looks whether the app ends."""
_ID_BYTES = 8

log = structlog.get_logger(__name__)


Answers = Sequence[tuple[Part, Sequence[tuple[int, Mapping[str, Any]]]]]
"""Of each part of a request, the place and the answer of each row."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a request was answered."""

    answers: Answers
    found: Found
    predicted_at: datetime
    seconds: float

    def documents(self) -> Iterator[bytes]:
        """The predictions as JSON, each with an id of its own."""
        stem = f"{to_micros(self.predicted_at):016x}"
        for part, rows in self.answers:
            lot = part.lot
            common = {
                "model_name": part.model.name,
                "model_id": part.model.model.model_id,
                "role": part.role,
                "entity_type": part.model.entity_type,
                "predicted_at": self.predicted_at,
                "degraded": bool(self.found.degraded),
                "latency_ms": self.seconds * 1000,
                "experiment": None if lot is None else lot.experiment,
                "traffic_share": None if lot is None else lot.share,
            }
            for at, row in rows:
                if row.get("error") is not None:
                    continue
                chance = row.get("probability")
                yield orjson.dumps(
                    {
                        "prediction_id": stem + os.urandom(_ID_BYTES).hex(),
                        "entity_id": row["entity_id"],
                        "features_as_of": row["features_as_of"],
                        "value": row.get("value") if chance is None else chance,
                        "prediction": row["prediction"],
                        "score": row.get("quality_score"),
                        "source": self.found.sources[at] or "",
                        "stale": bool(self.found.stale[at]),
                        **common,
                    }
                )


class PredictionLog:
    """Sends what is predicted to the stream in Redis, and from there to `leadml.predictions`.

    Both threads run in the app that answers: it has connections to both servers already, and nobody
    has to run and watch anything else for the log to be whole. Several apps may do so at once.
    Nothing is opened before `start`. Safe to share between threads.

    Args:
        settings: Addresses of Redis and PostgreSQL, whether to log, how much, and how long.
        metrics: Where to count.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._on = settings.prediction_log
        self._keep_days = settings.prediction_log_keep_days
        self._metrics = metrics
        self._stream = PredictionStream(settings.require_redis(), settings.prediction_log_stream)
        self._connections = Connections(settings.require_postgres(), 1)
        self._drain = PredictionDrain(self._stream, self._connections.run)
        self._turn = threading.Lock()
        self._noted: list[_Answered] = []
        self._count = 0
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        # The sender's own: what Redis did not take yet.
        self._unsent: list[bytes] = []
        self._said: str | None = None
        # The drainer's own.
        self._away: str | None = None
        self._pruned_at = float("-inf")

    def start(self) -> None:
        """Begin to send and to drain, if there is a log."""
        if not self._on:
            return
        for name, run in (("prediction-log", self._send), ("prediction-drain", self._carry)):
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
            self._threads[-1].start()

    def note(self, answers: Answers, found: Found, predicted_at: datetime, seconds: float) -> None:
        """Keep an answer, to be sent later; it must not change any more.

        Args:
            answers: The predictions as they are answered, each with `entity_id`, `prediction`,
                `features_as_of`, and `probability` or `value`; one with an `error` is none.
            found: What the features were found in.
            predicted_at: The moment of the answer.
            seconds: How long it took.
        """
        if not self._on:
            return
        count = sum(len(rows) for _, rows in answers)
        with self._turn:
            if self._count + count <= WAITING:
                self._noted.append(_Answered(answers, found, predicted_at, seconds))
                self._count += count
                return
        self._metrics.prediction_log.labels("dropped").inc(count)

    def close(self) -> None:
        """Send and store what waits, if the servers let us within a few seconds, and end."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._connections.close()
        self._stream.close()

    def _send(self) -> None:
        pause = PERIOD
        while not self._closing.wait(pause):
            pause = PERIOD if self._send_noted() else REST
        if not self._send_noted():
            self._metrics.prediction_log.labels("dropped").inc(len(self._unsent))
            log.warning("predictions_dropped", count=len(self._unsent))

    def _send_noted(self) -> bool:
        """Send what waits; False when Redis did not take it all, and it goes on waiting."""
        try:
            self._unsent += self._documents()
            while self._unsent:
                chunk = self._unsent[:CHUNK]
                added = self._stream.add(chunk)
                del self._unsent[:added]
                self._leave(added)
                if added < len(chunk):
                    self._say("full")
                    return False
        except redis.RedisError as error:
            self._metrics.failures.labels("redis").inc()
            self._say(type(error).__name__)
            return False
        except Exception:
            # Whatever it is must not end the thread: nothing would ever be logged again.
            log.exception("predictions_not_sent")
            return False
        self._said = None
        return True

    def _documents(self) -> list[bytes]:
        with self._turn:
            noted, self._noted = self._noted, []
        documents: list[bytes] = []
        for answered in noted:
            before = len(documents)
            try:
                for document in answered.documents():
                    documents.append(document)
                    if len(documents) % CHUNK == 0:
                        # A request that waits for its turn gets it.
                        time.sleep(0)
            except Exception:
                # It would be the same the next time, and hold up all others.
                log.exception("prediction_not_understood")
                self._metrics.prediction_log.labels("refused").inc()
            # Rows with an error are no predictions.
            rows = sum(len(rows) for _, rows in answered.answers)
            self._leave(rows - (len(documents) - before))
        return documents

    def _leave(self, count: int) -> None:
        with self._turn:
            self._count -= count

    def _say(self, why: str) -> None:
        # Once per outage.
        if self._said != why:
            self._said = why
            log.warning("predictions_wait", why=why, count=self._count)

    def _carry(self) -> None:
        while not self._closing.wait(DRAIN_PERIOD):
            self._store()
        # The other thread sends the last ones first.
        self._threads[0].join()
        self._store()
        try:
            self._stream.leave()
        except redis.RedisError as error:
            log.warning("prediction_drain_not_left", error=type(error).__name__)

    def _store(self) -> None:
        """Bring to PostgreSQL what is in Redis; what can't be brought stays there."""
        away = None
        try:
            self._drain.drain(_DRAIN_SECONDS, self._note_drained)
            self._metrics.prediction_log_waiting.set(self._stream.length())
            if time.monotonic() >= self._pruned_at + PRUNE_EVERY:
                self._drain.prune(self._keep_days)
                self._stream.forget_consumers()
                self._pruned_at = time.monotonic()
        except (PostgresUnavailableError, StatementFailedError) as error:
            away = f"postgres: {error}"
        except redis.RedisError as error:
            away = f"redis: {type(error).__name__}"
        except Exception:
            # Without this thread nothing would be stored any more.
            log.exception("prediction_drain_failed")
        if away is not None and self._away is None:
            log.warning("predictions_not_stored", why=away)
        self._away = away

    def _note_drained(self, drained: Drained) -> None:
        counts = {"stored": drained.stored, "known": drained.known, "refused": drained.refused}
        for outcome, count in counts.items():
            self._metrics.prediction_log.labels(outcome).inc(count)
