"""The log of served vectors: whole, sampled, and never in the way of a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Field, Rows, Schema
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import served_log
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.served_log import ServedLog
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import from_micros, to_micros, utc_now
from leadml_pipelines_tests.serving.conftest import NOBODY_LISTENS, World, wait_for
from leadml_pipelines_tests.tables import empty_tables

SCHEMA = Schema("lead", (Field("a", "double"), Field("b", "category", vocabulary=("x", "ü"))))
WIDER = Schema("lead", (*SCHEMA.fields, Field("c", "integer", "events")))
AS_OF = 1_767_225_600_000_001


@pytest.fixture(autouse=True)
def empty(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.served_features", "leadml.served_schemas")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def rows(schema: Schema, positions: list[int], values: Any, as_of: int = AS_OF) -> Rows:
    matrix = np.array(values, float).reshape(len(positions), len(schema.fields))
    moments = np.full(len(positions), as_of)
    return Rows(schema, np.array(positions, np.intp), moments, moments + 7, matrix)


def batch(ids: list[str], *groups: Rows) -> Batch:
    return Batch(tuple(ids), groups)


def many(count: int, as_of: int = AS_OF) -> Batch:
    ids = [f"lead_{i}" for i in range(count)]
    return batch(ids, rows(SCHEMA, list(range(count)), [[i, 0] for i in range(count)], as_of))


def counted(metrics: Metrics, outcome: str) -> float:
    name, labels = "leadml_audit_vectors_total", {"outcome": outcome}
    return metrics.registry.get_sample_value(name, labels) or 0.0


def stored(url: str) -> list[tuple[Any, ...]]:
    with connect(url) as connection:
        return connection.execute(
            "SELECT entity_type, entity_id, as_of, computed_at, schema_id, vector, source "
            "FROM leadml.served_features ORDER BY entity_id"
        ).fetchall()


def test_a_vector_is_logged_to_the_bit_with_its_schema(postgres_url: str, metrics: Metrics) -> None:
    log = ServedLog(postgres_url, 1.0, metrics)
    before = utc_now()
    log.note(
        batch(
            ["one", "nobody", "two"],
            rows(SCHEMA, [2], [-0.0, 1.0]),
            rows(WIDER, [0], [0.1 + 0.2, float("nan"), 2.0**53]),
        ),
        ["cache", None, "snapshot"],
    )
    log.close()
    moments = (from_micros(AS_OF), from_micros(AS_OF + 7))
    one, two = stored(postgres_url)
    assert one[:5] == ("lead", "one", *moments, WIDER.schema_id)
    assert two[:5] == ("lead", "two", *moments, SCHEMA.schema_id)
    assert str(one[5]) == "[0.30000000000000004, nan, 9007199254740992.0]"
    assert str(two[5]) == "[-0.0, 1.0]"
    assert (one[6], two[6]) == ("cache", "snapshot")
    with connect(postgres_url) as connection:
        documents = connection.execute(
            "SELECT schema_id, document FROM leadml.served_schemas"
        ).fetchall()
        served_at = connection.execute("SELECT min(served_at) FROM leadml.served_features")
        assert before <= served_at.fetchone()[0] <= utc_now()  # type: ignore[index]
    assert {number: len(document["features"]) for number, document in documents} == {
        SCHEMA.schema_id: 2,
        WIDER.schema_id: 3,
    }
    assert counted(metrics, "logged") == 2


@settings(max_examples=15, deadline=None)
@given(vector=st.lists(st.floats(allow_infinity=False), min_size=2, max_size=2))
def test_any_vector_comes_back_as_it_was_served(vector: list[float], postgres_url: str) -> None:
    log = ServedLog(postgres_url, 1.0, Metrics())
    log.note(batch(["one"], rows(SCHEMA, [0], vector)), ["cache"])
    log.close()
    with connect(postgres_url) as connection:
        found = connection.execute("DELETE FROM leadml.served_features RETURNING vector")
        (row,) = found.fetchall()
    assert [value.hex() for value in row[0]] == [float(value).hex() for value in vector]


def test_a_sample_is_logged(postgres_url: str, metrics: Metrics) -> None:
    log = ServedLog(postgres_url, 0.25, metrics)
    log.note(many(4000), ["cache"] * 4000)
    log.close()
    # Six standard deviations.
    assert 830 < len(stored(postgres_url)) < 1170


def test_without_a_share_nothing_is_logged_and_no_thread_started(metrics: Metrics) -> None:
    log = ServedLog(f"postgresql://{NOBODY_LISTENS}/x", 0.0, metrics)
    log.note(many(10), ["cache"] * 10)
    assert log._writer is None
    log.close()
    assert counted(metrics, "dropped") == 0


def test_a_vector_that_is_served_again_is_logged_once_and_an_altered_one_again(
    postgres_url: str, metrics: Metrics
) -> None:
    log = ServedLog(postgres_url, 1.0, metrics)
    for value in (1.0, 1.0, 2.0, 1.0):
        log.note(batch(["one"], rows(SCHEMA, [0], [value, 0.0])), ["cache"])
    log.close()
    assert sorted(row[5] for row in stored(postgres_url)) == [[1.0, 0.0], [2.0, 0.0]]


def test_what_is_logged_is_what_was_served_and_not_what_became_of_it(
    postgres_url: str, metrics: Metrics
) -> None:
    log = ServedLog(postgres_url, 1.0, metrics)
    group = rows(SCHEMA, [0], [1.0, 0.0])
    log.note(batch(["one"], group), ["cache"])
    group.values[:] = 9.0
    log.close()
    assert stored(postgres_url)[0][5] == [1.0, 0.0]


def test_vectors_are_written_while_the_app_runs(postgres_url: str, metrics: Metrics) -> None:
    log = ServedLog(postgres_url, 1.0, metrics)
    log.note(many(3), ["cache"] * 3)
    wait_for(lambda: len(stored(postgres_url)) == 3)
    log.close()


def test_without_postgresql_vectors_are_dropped_and_counted(metrics: Metrics) -> None:
    log = ServedLog(f"postgresql://{NOBODY_LISTENS}/x", 1.0, metrics)
    log.note(many(3), ["cache"] * 3)
    log.close()
    assert counted(metrics, "dropped") == 3
    assert counted(metrics, "logged") == 0


def test_a_slow_postgresql_delays_nobody_and_what_does_not_fit_is_dropped(
    postgres_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "WAITING", 1000)
    monkeypatch.setattr(served_log, "PERIOD", 0.01)
    log = ServedLog(postgres_url, 1.0, metrics)
    with connect(postgres_url) as blocker:
        blocker.execute("LOCK TABLE leadml.served_features IN ACCESS EXCLUSIVE MODE")
        log.note(many(400), ["cache"] * 400)
        wait_for(lambda: log._count == 0)
        # The writer waits for the table now; these wait in memory, as far as they fit.
        for i in range(1, 9):
            log.note(many(400, AS_OF + i), ["cache"] * 400)
        assert log._count == 800
        assert counted(metrics, "dropped") == 6 * 400
    log.close()
    assert len(stored(postgres_url)) == 3 * 400


def test_after_a_failure_the_log_connects_again(
    postgres_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "PERIOD", 0.01)
    monkeypatch.setattr(served_log, "REST", 0.01)
    log = ServedLog(postgres_url, 1.0, metrics)
    log.note(many(1), ["cache"])
    wait_for(lambda: stored(postgres_url))
    with connect(postgres_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    log.note(many(1, AS_OF + 1), ["cache"])
    wait_for(lambda: counted(metrics, "dropped") == 1)
    log.note(many(1, AS_OF + 2), ["cache"])
    wait_for(lambda: len(stored(postgres_url)) == 2)
    log.close()


def test_a_failure_that_nobody_foresaw_drops_what_waited_and_the_log_goes_on(
    postgres_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "PERIOD", 0.01)
    monkeypatch.setattr(served_log, "REST", 0.01)
    original, failed = ServedLog._write, threading.Event()

    def once(log: ServedLog, waiting: Any) -> int:
        if failed.is_set():
            return original(log, waiting)
        failed.set()
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(ServedLog, "_write", once)
    log = ServedLog(postgres_url, 1.0, metrics)
    log.note(many(2), ["cache"] * 2)
    wait_for(lambda: counted(metrics, "dropped") == 2)
    log.note(many(3, AS_OF + 1), ["cache"] * 3)
    wait_for(lambda: len(stored(postgres_url)) == 3)
    log.close()


def test_a_schema_that_was_forgotten_is_written_again_with_the_next_vector(
    postgres_url: str, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "PERIOD", 0.01)
    log = ServedLog(postgres_url, 1.0, metrics)
    schemas = "SELECT count(*) FROM leadml.served_schemas"
    for turn in range(2):
        log.note(many(1, AS_OF + turn), ["cache"])
        wait_for(lambda: counted(metrics, "logged") == turn + 1)  # noqa: B023
        with connect(postgres_url) as connection:
            assert connection.execute(schemas).fetchone() == (1,)
            connection.execute("TRUNCATE leadml.served_schemas")
    log.close()


def test_what_the_app_answers_is_logged_with_its_source(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    everything = world.settings.model_copy(update={"audit_sample": 1.0})
    ids = ["lead_3", "lead_4"]
    as_of = {}
    client = serving(everything)
    for _ in range(2):
        answer = client.post("/api/v1/features/batch", json={"entity_ids": ids}).json()
        as_of = {name: meta["as_of"] for name, meta in answer["meta"].items()}
    url = world.settings.require_postgres()
    wait_for(lambda: len(stored(url)) == 2)
    assert [row[1] for row in stored(url)] == ids
    assert {row[6] for row in stored(url)} == {"cache"}
    assert all(to_micros(row[2]) > 0 for row in stored(url))
    assert set(as_of) == set(ids)
    batch_read = world.store.read_batch("lead", ids)
    for row, values in zip(stored(url), batch_read.groups[0].values, strict=True):
        assert np.array(row[5]).tobytes() == values.tobytes()


def test_an_app_without_postgresql_answers_as_before(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    lonely = world.settings.model_copy(
        update={"audit_sample": 1.0, "postgres_url": _secret(f"postgresql://{NOBODY_LISTENS}/x")}
    )
    client = serving(lonely)
    for _ in range(3):
        answer = client.post("/api/v1/features/batch", json={"entity_ids": ["lead_3"]})
        assert answer.status_code == 200
        time.sleep(0.05)


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)
