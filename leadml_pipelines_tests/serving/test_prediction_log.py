"""The log of predictions: whole while servers come and go, and never in the way of a request."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
import redis
from pydantic import SecretStr
from structlog.testing import capture_logs

from leadml_pipelines.online import prediction_drain
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Field, Rows, Schema
from leadml_pipelines.online.prediction_drain import PredictionDrain
from leadml_pipelines.online.prediction_stream import Document, PredictionStream
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import prediction_log
from leadml_pipelines.serving.answered import Answered
from leadml_pipelines.serving.assignment import Lot, Part
from leadml_pipelines.serving.connections import StatementFailedError
from leadml_pipelines.serving.found import Found
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.prediction_log import PredictionLog, documents
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.serving.conftest import (
    NO_POSTGRES,
    NO_REDIS,
    NOBODY_LISTENS,
    World,
    wait_for,
)

KEY = "leadml:predictions"
SCHEMA = Schema("lead", (Field("a", "double"),))
AS_OF = 1_767_225_600_000_001


@pytest.fixture(autouse=True)
def empty(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def log_of(metrics: Metrics, home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts logs of quick threads, which end with the test."""
    for name in ("PERIOD", "REST", "DRAIN_PERIOD"):
        monkeypatch.setattr(prediction_log, name, 0.02)
    # What an app without PostgreSQL holds is claimed by the next one at once.
    monkeypatch.setattr(prediction_drain, "CLAIM_AFTER", 0.02)
    monkeypatch.setattr(prediction_drain, "CLAIM_EVERY", 0.02)
    with ExitStack() as at_end:

        def start(redis_url: str, postgres_url: str, **changes: Any) -> PredictionLog:
            settings = Settings(
                home=home, redis_url=redis_url, postgres_url=postgres_url, **changes
            )
            log = PredictionLog(settings, metrics)
            at_end.callback(log.close)
            log.start()
            return log

        yield start


class _Loaded:
    def __init__(self, model_id: str) -> None:
        self.model_id = model_id


class _Model:
    """What the log looks at of a served model."""

    name, entity_type = "churn", "lead"

    def __init__(self, model_id: str) -> None:
        self.model = _Loaded(model_id)


def answered(values: list[float], first: int = 0, challenged: bool = False) -> Answered:
    count = len(values)
    positions = np.arange(count)
    moments = np.full(count, AS_OF)
    rows = Rows(SCHEMA, positions, moments, moments, np.zeros((count, 1)))
    batch = Batch(tuple(f"lead_{first + at}" for at in range(count)), (rows,))
    lot = Lot("churn_2", 0.25) if challenged else None
    model: Any = _Model("churn_2" if challenged else "churn_1")
    return Answered(
        found=Found(batch, ["cache"] * count, AS_OF, np.zeros(count, bool)),
        parts=[Part(model, "challenger" if challenged else "champion", rows, lot)],
        values=np.array(values),
        predictions=np.round(values),
        scores=np.full(count, 50.0),
        as_of=moments,
        timestamp=utc_now(),
        seconds=0.0015,
    )


def counted(metrics: Metrics, outcome: str) -> float:
    labels = {"outcome": outcome}
    return metrics.registry.get_sample_value("leadml_prediction_log_total", labels) or 0.0


def stored(url: str) -> list[str]:
    with connect(url) as connection:
        rows = connection.execute("SELECT entity_id FROM leadml.predictions").fetchall()
    return sorted((row[0] for row in rows), key=lambda name: int(name.removeprefix("lead_")))


def names(count: int, first: int = 0) -> list[str]:
    return [f"lead_{first + at}" for at in range(count)]


def test_a_prediction_is_told_with_all_that_is_known_of_it() -> None:
    given = answered([0.25, 0.75], challenged=True)
    (made,) = documents(given)
    content = json.loads(made.text)
    assert len(content.pop("id")) == 32
    assert made.count == 2
    assert content == {
        "model_name": "churn",
        "model_id": "churn_2",
        "role": "challenger",
        "entity_type": "lead",
        "predicted_at": given.timestamp.isoformat(),
        "degraded": False,
        "latency_ms": 1.5,
        "experiment": "churn_2",
        "traffic_share": 0.25,
        "entity_ids": ["lead_0", "lead_1"],
        "features_as_of": [AS_OF, AS_OF],
        "values": [0.25, 0.75],
        "predictions": [0.0, 1.0],
        "scores": [50.0, 50.0],
        "sources": ["cache", "cache"],
        "stale": [False, False],
    }


def test_who_is_not_scored_has_no_prediction_and_ids_follow_time() -> None:
    first = [json.loads(one.text) for one in documents(answered([0.1, float("nan"), 0.3]), 1)]
    second = [json.loads(one.text) for one in documents(answered([0.1]))]
    assert [one["entity_ids"] for one in first] == [["lead_0"], ["lead_2"]]
    assert all(one["experiment"] is None for one in first)
    ids = [one["id"] for one in first]
    assert len(set(ids)) == 2
    assert max(ids)[:16] <= second[0]["id"][:16]
    assert list(documents(answered([float("nan")]))) == []


def test_what_is_noted_reaches_postgresql_and_leaves_redis(
    log_of: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    log = log_of(redis_url, postgres_url)
    log.note(answered([0.5] * 600))
    log.note(answered([0.5], first=600))
    wait_for(lambda: counted(metrics, "stored") == 601)
    assert stored(postgres_url) == names(601)
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: client.xlen(KEY) == 0)


def test_the_end_of_the_app_loses_nothing(
    log_of: Any, redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PERIOD", "DRAIN_PERIOD"):
        monkeypatch.setattr(prediction_log, name, 3600)
    log = log_of(redis_url, postgres_url)
    log.note(answered([0.5] * 300))
    log.close()
    assert stored(postgres_url) == names(300)
    with redis.Redis.from_url(redis_url) as client:
        assert client.xinfo_consumers(KEY, "postgres") == []


def test_without_postgresql_predictions_wait_in_redis_for_the_next_app(
    log_of: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    log = log_of(redis_url, NO_POSTGRES.get_secret_value())
    with redis.Redis.from_url(redis_url) as client:
        for first in (0, 2):
            log.note(answered([0.5, 0.5], first=first))
            wait_for(lambda: client.get(f"{KEY}:waiting") == str(first + 2).encode())  # noqa: B023
        log.close()
        assert client.get(f"{KEY}:waiting") == b"4"
    log_of(redis_url, postgres_url)
    wait_for(lambda: counted(metrics, "stored") == 4)
    assert stored(postgres_url) == names(4)


class _Gate:
    """An address that forwards to a server only while it is open, as a server that comes and goes.

    Args:
        port: Where the server listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self._open = False
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            one.close()


@pytest.fixture
def gate_to() -> Iterator[Callable[[str], tuple[_Gate, str]]]:
    """Puts a gate before the server of a URL."""
    with ExitStack() as at_end:

        def make(url: str) -> tuple[_Gate, str]:
            authority = url.split("@")[1].split("/")[0]
            gate = _Gate(int(authority.rsplit(":", 1)[1]))
            at_end.callback(gate.close)
            return gate, url.replace(authority, f"127.0.0.1:{gate.port}")

        yield make


def test_while_redis_is_away_predictions_wait_in_memory(
    log_of: Any, gate_to: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    gate, url = gate_to(redis_url)
    log = log_of(url, postgres_url)
    log.note(answered([0.5]))
    wait_for(lambda: counted(metrics, "stored") == 1)
    gate.shut()
    log.note(answered([0.5] * 3, first=1))
    failures = ("leadml_online_failures_total", {"store": "redis"})
    wait_for(lambda: (metrics.registry.get_sample_value(*failures) or 0) >= 2)
    log.note(answered([0.5], first=4))
    gate.open()
    wait_for(lambda: counted(metrics, "stored") == 5)
    assert stored(postgres_url) == names(5)
    assert counted(metrics, "dropped") == 0


def test_a_postgresql_that_comes_and_goes_gets_everything_once(
    log_of: Any, gate_to: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    gate, url = gate_to(postgres_url)
    log = log_of(redis_url, url)
    for first in range(0, 500, 50):
        log.note(answered([0.5] * 50, first=first))
        gate.shut()
        log.note(answered([0.5] * 50, first=500 + first))
        gate.open()
    wait_for(lambda: len(stored(postgres_url)) == 1000, seconds=30)
    assert stored(postgres_url) == names(1000)


def test_what_does_not_fit_into_memory_is_dropped_and_counted(
    log_of: Any, postgres_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "WAITING", 5)
    log = log_of(NO_REDIS.get_secret_value(), postgres_url)
    log.note(answered([0.5] * 3))
    log.note(answered([0.5] * 3))
    assert counted(metrics, "dropped") == 3
    log.note(answered([0.5] * 2))
    log.close()
    assert counted(metrics, "dropped") == 8


def test_a_full_stream_makes_predictions_wait_until_there_is_room(
    log_of: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    log = log_of(redis_url, NO_POSTGRES.get_secret_value(), prediction_log_stream=4)
    log.note(answered([0.5] * 7))
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: client.get(f"{KEY}:waiting") == b"4")
        assert counted(metrics, "dropped") == 0
        log_of(redis_url, postgres_url, prediction_log_stream=4)
        wait_for(lambda: counted(metrics, "stored") == 7)
    assert stored(postgres_url) == names(7)


def test_an_answer_that_nobody_understands_does_not_end_the_log(
    log_of: Any, redis_url: str, postgres_url: str, metrics: Metrics
) -> None:
    log = log_of(redis_url, postgres_url)
    broken = answered([0.5])
    object.__setattr__(broken.parts[0].model, "model", None)
    log.note(broken)
    log.note(answered([0.5]))
    wait_for(lambda: counted(metrics, "stored") == 1)
    assert counted(metrics, "refused") == 1


def test_without_the_setting_nothing_is_kept(
    log_of: Any, redis_url: str, postgres_url: str
) -> None:
    log = log_of(redis_url, postgres_url, prediction_log=False)
    log.note(answered([0.5]))
    log.close()
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(KEY)
    assert stored(postgres_url) == []


def test_what_the_app_answers_is_in_the_log(
    world: World, serving: Callable[[Settings], httpx.Client], postgres_url: str
) -> None:
    client = serving(world.settings)
    ids = [*world.open_ids[:3], world.closed_ids[0]]
    body = {"model_type": "conversion", "entity_ids": ids}
    answers = client.post("/api/v1/ml/predict/batch", json=body).json()["data"]
    query = "SELECT * FROM leadml.predictions ORDER BY entity_id"
    with psycopg.connect(
        postgres_url, row_factory=psycopg.rows.dict_row, autocommit=True
    ) as connection:
        rows = wait_for(lambda: connection.execute(query).fetchall())
    expected = sorted(
        (row for row in answers if row["error"] is None), key=lambda row: str(row["entity_id"])
    )
    assert [row["entity_id"] for row in rows] == [row["entity_id"] for row in expected]
    for row, answer in zip(rows, expected, strict=True):
        assert row["value"] == answer["probability"]
        assert row["prediction"] == answer["prediction"]
        assert (row["model_name"], row["model_id"]) == ("conversion", "conversion_1")
        assert (row["role"], row["experiment"]) == ("champion", None)
        assert row["predicted_at"].isoformat() == answer["timestamp"]
        assert row["features_as_of"].isoformat() == answer["features_as_of"]
        assert (row["source"], row["stale"], row["degraded"]) == ("cache", False, False)
        assert row["latency_ms"] > 0
    logged = 'leadml_prediction_log_total{outcome="stored"} 3.0'
    wait_for(lambda: logged in client.get("/metrics").text)


def test_an_app_without_redis_predicts_as_before(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    lonely = world.settings.model_copy(
        update={"redis_url": SecretStr(f"redis://{NOBODY_LISTENS}/0")}
    )
    client = serving(lonely)
    answer = client.post(
        "/api/v1/ml/predict", json={"model_type": "churn", "entity_id": world.open_ids[0]}
    )
    # No model was published where this app looks, and the log has no part in that.
    assert answer.status_code == 404


def test_what_waits_takes_little_more_memory_than_its_text() -> None:
    given = answered([0.5])
    tracemalloc.start()
    try:
        made = [one for _ in range(500) for one in documents(given)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / len(made) < 2500


def test_a_slow_redis_does_not_keep_the_app_from_ending(
    log_of: Any, redis_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: PredictionStream, given: list[Document]) -> int:
        time.sleep(0.2)
        return len(given)

    monkeypatch.setattr(prediction_log, "CHUNK", 1)
    monkeypatch.setattr(PredictionStream, "add", slow)
    monkeypatch.setattr(prediction_log, "CLOSE_SECONDS", 0.5)
    log = log_of(redis_url, NO_POSTGRES.get_secret_value())
    for first in range(200):
        log.note(answered([0.5], first))
    closing = threading.Thread(target=log.close, daemon=True)
    closing.start()
    closing.join(15)
    assert not closing.is_alive()
    wait_for(lambda: counted(metrics, "dropped") > 100)


def test_old_predictions_are_removed_batch_by_batch(
    log_of: Any, redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = [prediction_log.REMOVED_AT_ONCE] * 3
    pruned: list[int] = []

    def prune(self: PredictionDrain, keep_days: int) -> int:
        pruned.append(keep_days)
        return batches.pop() if batches else 0

    monkeypatch.setattr(PredictionDrain, "prune", prune)
    log = log_of(redis_url, postgres_url)
    wait_for(lambda: len(pruned) == 4)
    log.close()
    assert len(pruned) == 4


def test_what_cannot_be_pruned_waits_for_its_next_time_and_stores_all_the_same(
    log_of: Any,
    redis_url: str,
    postgres_url: str,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def prune(self: PredictionDrain, keep_days: int) -> int:
        tried.append(keep_days)
        raise StatementFailedError("QueryCanceled")

    monkeypatch.setattr(PredictionDrain, "prune", prune)
    with capture_logs() as said:
        log = log_of(redis_url, postgres_url)
        for first in range(3):
            log.note(answered([0.5], first))
            wait_for(lambda: counted(metrics, "stored") == first + 1)  # noqa: B023
    assert len(tried) == 1
    assert [one["event"] for one in said] == ["predictions_not_pruned"]
