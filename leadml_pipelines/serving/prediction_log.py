"""The log of predictions: noted by requests, sent to Redis, brought to PostgreSQL, by two threads.

A request only leaves its answer in memory. When Redis is slow, away or full, what was answered
waits there; what no longer fits is dropped and counted. The log never delays a request and never
fails one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import orjson
import redis
import structlog

from leadml_pipelines.online.prediction_drain import (
    REMOVED_AT_ONCE,
    Drained,
    PredictionDrain,
)
from leadml_pipelines.online.prediction_stream import CHUNK, Document, PredictionStream
from leadml_pipelines.serving.answered import Answered
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import to_micros

WAITING = 50_000
"""Predictions that may wait in memory: some 30 MB, if each came alone."""
ROWS = 250
"""Predictions in a document at the most."""
PERIOD = 0.1
"""Seconds between two looks for what was noted."""
REST = 1.0
"""Seconds for which Redis is left alone after it took less than all."""
DRAIN_PERIOD = 1.0
"""Seconds between two looks into the stream."""
PRUNE_EVERY = 3600.0
"""Seconds between two removals of what is too old."""
CLOSE_SECONDS = 5.0
"""Seconds that the end of the app waits for the servers to take what waits."""

_DRAIN_SECONDS = 2.0
"""Seconds after which the drain looks whether the app ends."""
_LAST_ANSWER = 1.0
"""Seconds that the last question to a server may take at the end."""
_ID_BYTES = 8

log = structlog.get_logger(__name__)


def documents(answered: Answered, most: int = ROWS) -> Iterator[Document]:
    """The predictions of an answer, each part of them with an id of its own.

    Entities that the model does not score have none.

    Args:
        answered: The answer.
        most: Predictions in a document.
    """
    stem = f"{to_micros(answered.timestamp):016x}"
    found = answered.found
    for part in answered.parts:
        lot = part.lot
        common = {
            "model_name": part.model.name,
            "model_id": part.model.model.model_id,
            "role": part.role,
            "entity_type": part.model.entity_type,
            "predicted_at": answered.timestamp,
            "degraded": bool(found.degraded),
            "latency_ms": answered.seconds * 1000,
            "experiment": None if lot is None else lot.experiment,
            "traffic_share": None if lot is None else lot.share,
        }
        its = part.rows.positions
        scored = its[~np.isnan(answered.values[its])]
        for start in range(0, len(scored), most):
            at = scored[start : start + most]
            places = at.tolist()
            content = {
                "id": stem + os.urandom(_ID_BYTES).hex(),
                "entity_ids": [found.batch.entity_ids[place] for place in places],
                "features_as_of": answered.as_of[at],
                "values": answered.values[at],
                "predictions": answered.predictions[at],
                "scores": answered.scores[at],
                "sources": [found.sources[place] for place in places],
                "stale": found.stale[at],
                **common,
            }
            made = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
            # A copy of its own size: orjson's keeps the kilobytes that it was written in.
            yield Document(bytes(memoryview(made)), len(places))


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
        self._most = min(ROWS, settings.prediction_log_stream)
        self._keep_days = settings.prediction_log_keep_days
        self._metrics = metrics
        self._stream = PredictionStream(settings.require_redis(), settings.prediction_log_stream)
        self._connections = Connections(settings.require_postgres(), 1)
        self._drain = PredictionDrain(self._stream, self._connections.run)
        self._turn = threading.Lock()
        self._noted: list[Answered] = []
        self._count = 0
        self._closing = threading.Event()
        self._until = float("inf")
        self._threads: list[threading.Thread] = []
        # The sender's own: what Redis did not take yet.
        self._unsent: list[Document] = []
        self._said: str | None = None
        # The drainer's own.
        self._away: str | None = None
        self._prune_at = float("-inf")

    def start(self) -> None:
        """Begin to send and to drain, if there is a log."""
        if not self._on:
            return
        for name, run in (("prediction-log", self._send), ("prediction-drain", self._carry)):
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
            self._threads[-1].start()

    def note(self, answered: Answered) -> None:
        """Keep an answer, to be sent later; it must not change any more."""
        if not self._on:
            return
        count = len(answered.values)
        with self._turn:
            if self._count + count <= WAITING:
                self._noted.append(answered)
                self._count += count
                return
        self._metrics.prediction_log.labels("dropped").inc(count)

    def close(self) -> None:
        """Send and store what waits, as far as the servers let us in `CLOSE_SECONDS`, and end.

        What was not sent by then is lost, and counted; what was not stored waits in Redis.
        """
        if not self._closing.is_set():
            self._until = time.monotonic() + CLOSE_SECONDS
            self._closing.set()
        for thread in self._threads:
            # One more answer of a server may have to be waited for.
            thread.join(max(0.0, self._until - time.monotonic()) + _LAST_ANSWER)
            if thread.is_alive():
                log.warning("prediction_log_not_waited_for", thread=thread.name)
        self._connections.close()
        self._stream.close()

    def _send(self) -> None:
        pause = PERIOD
        while not self._closing.wait(pause):
            pause = PERIOD if self._send_noted() else REST
        if not self._send_noted():
            lost = sum(one.count for one in self._unsent)
            self._metrics.prediction_log.labels("dropped").inc(lost)
            log.warning("predictions_dropped", count=lost)

    def _send_noted(self) -> bool:
        """Send what waits; False when Redis did not take it all, and it goes on waiting."""
        try:
            self._unsent += self._documents()
            while self._unsent:
                if time.monotonic() > self._until:
                    return False
                chunk = self._unsent[:CHUNK]
                added = self._stream.add(chunk)
                del self._unsent[:added]
                self._leave(sum(one.count for one in chunk[:added]))
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

    def _documents(self) -> list[Document]:
        with self._turn:
            noted, self._noted = self._noted, []
        made: list[Document] = []
        for answered in noted:
            count = 0
            try:
                for document in documents(answered, self._most):
                    made.append(document)
                    count += document.count
            except Exception:
                # It would be the same the next time, and hold up all others.
                log.exception("prediction_not_understood")
                self._metrics.prediction_log.labels("refused").inc()
            # Entities that the model does not score have no prediction.
            self._leave(len(answered.values) - count)
        return made

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
            if time.monotonic() >= self._prune_at and not self._closing.is_set():
                self._prune()
        # The other thread sends the last ones first.
        self._threads[0].join(max(0.0, self._until - time.monotonic()))
        if time.monotonic() < self._until:
            self._store()
        try:
            self._stream.leave()
        except redis.RedisError as error:
            log.warning("prediction_drain_not_left", error=type(error).__name__)

    def _store(self) -> None:
        """Bring to PostgreSQL what is in Redis; what can't be brought stays there."""
        away = None
        try:
            self._drain.drain(
                min(_DRAIN_SECONDS, self._until - time.monotonic()), self._note_drained
            )
            self._metrics.prediction_log_waiting.set(self._stream.waiting())
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

    def _prune(self) -> None:
        """Remove some of what is too old; the next turn goes on if there is more."""
        # First: what fails is tried again in an hour, not at every turn.
        self._prune_at = time.monotonic() + PRUNE_EVERY
        try:
            if self._drain.prune(self._keep_days) >= REMOVED_AT_ONCE:
                self._prune_at = float("-inf")
            else:
                self._stream.forget_consumers()
        except (PostgresUnavailableError, StatementFailedError) as error:
            log.warning("predictions_not_pruned", why=f"postgres: {error}")
        except redis.RedisError as error:
            log.warning("predictions_not_pruned", why=f"redis: {type(error).__name__}")
        except Exception:
            log.exception("predictions_not_pruned")

    def _note_drained(self, drained: Drained) -> None:
        counts = {"stored": drained.stored, "known": drained.known, "refused": drained.refused}
        for outcome, count in counts.items():
            self._metrics.prediction_log.labels(outcome).inc(count)
