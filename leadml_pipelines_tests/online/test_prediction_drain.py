"""Predictions on their way from Redis to PostgreSQL: none lost, none counted twice."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis

from leadml_pipelines.online import prediction_drain
from leadml_pipelines.online.prediction_drain import Drained, PredictionDrain, drain_now
from leadml_pipelines.online.prediction_stream import Document, PredictionStream
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import to_micros
from leadml_pipelines_tests.online.logged import document

KEY = "leadml:predictions"


@pytest.fixture(autouse=True)
def empty(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")


@pytest.fixture
def stream_of(redis_url: str) -> Iterator[Callable[[], PredictionStream]]:
    with ExitStack() as at_end:

        def make() -> PredictionStream:
            stream = PredictionStream(redis_url, 100_000)
            at_end.callback(stream.close)
            return stream

        yield make


@pytest.fixture
def stream(stream_of: Callable[[], PredictionStream]) -> PredictionStream:
    return stream_of()


@pytest.fixture
def drain_of(postgres_url: str) -> Iterator[Callable[[PredictionStream], PredictionDrain]]:
    with ExitStack() as at_end:

        def make(stream: PredictionStream) -> PredictionDrain:
            connection = at_end.enter_context(connect(postgres_url, autocommit=True))
            return PredictionDrain(stream, lambda work: work(connection))

        yield make


def stored(url: str) -> list[str]:
    with connect(url) as connection:
        rows = connection.execute("SELECT entity_id FROM leadml.predictions").fetchall()
    return sorted((row[0] for row in rows), key=lambda name: int(name.removeprefix("lead_")))


def names(count: int) -> list[str]:
    return [f"lead_{number}" for number in range(count)]


def documents(count: int) -> list[Document]:
    return [document(number) for number in range(count)]


def test_every_member_of_a_prediction_is_stored(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    stream.add([document(5, entity_ids=['ü"\\ :x'], experiment="churn_2", traffic_share=0.1)])
    assert drain_of(stream).drain() == Drained(stored=1)
    with connect(postgres_url) as connection:
        (row,) = connection.execute("SELECT * FROM leadml.predictions").fetchall()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert row == (
        f"{5:032x}-1", "churn", "churn_1", "champion", "lead", 'ü"\\ :x',
        moment + timedelta(microseconds=1), moment + timedelta(seconds=1),
        0.625, 0.0, None, "cache", False, False, 1.5, "churn_2", 0.1,
    )  # fmt: skip


def test_chances_and_moments_are_stored_to_the_bit(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308]
    moments = [0, 1, 1_767_225_600_123_457, 4_102_444_799_999_999]
    stream.add([document(0, 4, values=values, features_as_of=moments)])
    drain_of(stream).drain()
    with connect(postgres_url) as connection:
        query = "SELECT value, features_as_of FROM leadml.predictions ORDER BY prediction_id"
        rows = connection.execute(query).fetchall()
    assert [row[0] for row in rows] == values
    assert [to_micros(row[1]) for row in rows] == moments


def test_all_that_waits_is_stored_and_leaves_redis(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    count = 3 * prediction_drain.BATCH + 6
    stream.add([document(number, 3) for number in range(0, count, 3)])
    assert drain_of(stream).drain() == Drained(stored=count)
    assert stored(postgres_url) == names(count)
    assert (stream.waiting(), stream.held(5)) == (0, [])


def test_a_prediction_that_was_sent_twice_is_stored_once(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    stream.add([document(1), document(2), document(1)])
    drain = drain_of(stream)
    assert drain.drain() == Drained(stored=2, known=1)
    stream.add([document(2), document(3)])
    assert drain.drain() == Drained(stored=1, known=1)
    assert stored(postgres_url) == ["lead_1", "lead_2", "lead_3"]


def test_an_entry_that_is_stored_already_keeps_no_other_from_being_stored(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    drain = drain_of(stream)
    stream.add([document(0, 3)])
    assert drain.drain() == Drained(stored=3)
    stream.add([document(0, 3), document(3, 2)])
    assert drain.drain() == Drained(stored=2, known=3)
    assert stored(postgres_url) == names(5)


def test_of_an_entry_that_was_pruned_in_part_no_row_is_stored_twice(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    drain = drain_of(stream)
    stream.add([document(0, 3)])
    drain.drain()
    with connect(postgres_url) as connection:
        connection.execute("DELETE FROM leadml.predictions WHERE entity_id = 'lead_0'")
    stream.add([document(0, 3), document(3)])
    assert drain.drain() == Drained(stored=2, known=2)
    assert stored(postgres_url) == names(4)


def test_while_postgresql_is_away_all_of_it_waits(
    stream: PredictionStream, postgres_url: str
) -> None:
    with connect(postgres_url, autocommit=True) as connection:

        def run(work: Callable[[Any], Any]) -> Any:
            if away:
                raise psycopg.OperationalError("away")
            return work(connection)

        drain = PredictionDrain(stream, run)
        away = True
        for number in range(3):
            stream.add([document(number)])
            with pytest.raises(psycopg.OperationalError):
                drain.drain()
        assert stream.waiting() == 3
        away = False
        assert drain.drain() == Drained(stored=3)
    assert stored(postgres_url) == names(3)


def test_a_cut_between_commit_and_removal_counts_nothing_twice(
    stream: PredictionStream,
    drain_of: Any,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream.add(documents(5))
    drain = drain_of(stream)

    def cut(entries: Any) -> None:
        raise redis.ConnectionError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(stream, "done", cut)
        with pytest.raises(redis.ConnectionError):
            drain.drain()
    assert stored(postgres_url) == names(5)
    assert drain.drain() == Drained(known=5)
    assert stored(postgres_url) == names(5)
    assert stream.waiting() == 0


def test_a_cut_in_the_middle_of_the_removal_counts_nothing_twice(
    stream: PredictionStream, drain_of: Any, postgres_url: str, redis_url: str
) -> None:
    stream.add(documents(2))
    (first,) = stream.new(1)
    with redis.Redis.from_url(redis_url) as client:
        client.xdel(KEY, first.entry_id)
    drain = drain_of(stream)
    drain._holding = True
    assert drain.drain() == Drained(stored=1, known=1)
    assert stored(postgres_url) == ["lead_1"]
    assert stream.held(5) == []


def test_entries_whose_delivery_was_cut_off_are_asked_for_again(
    stream: PredictionStream,
    drain_of: Any,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream.add(documents(3))
    drain = drain_of(stream)
    new = stream.new

    def cut(count: int) -> Any:
        new(count)
        raise redis.TimeoutError("given out, and never arrived")

    with monkeypatch.context() as patch:
        patch.setattr(stream, "new", cut)
        with pytest.raises(redis.TimeoutError):
            drain.drain()
    assert drain.drain() == Drained(stored=3)


def test_a_transaction_that_failed_is_done_again_as_a_whole(
    stream: PredictionStream, postgres_url: str
) -> None:
    stream.add(documents(3))
    with connect(postgres_url) as connection:
        failed: list[bool] = []

        def run(work: Callable[[Any], Any]) -> Any:
            answer = work(connection)
            if not failed:
                failed.append(True)
                connection.rollback()
                raise psycopg.OperationalError("lost before the commit")
            connection.commit()
            return answer

        drain = PredictionDrain(stream, run)
        with pytest.raises(psycopg.OperationalError):
            drain.drain()
        assert stored(postgres_url) == []
        assert drain.drain() == Drained(stored=3)
    assert stored(postgres_url) == names(3)


_KILLED = """
import os, signal, sys
from leadml_pipelines.online.prediction_drain import PredictionDrain
from leadml_pipelines.online.prediction_stream import PredictionStream
from leadml_pipelines.postgres import connect

step, redis_url, postgres_url = sys.argv[1:]
stream = PredictionStream(redis_url, 100_000)
connection = connect(postgres_url, autocommit=True)
end = lambda: os.kill(os.getpid(), signal.SIGKILL)

def run(work):
    if step == "taken":
        end()
    with connection.transaction():
        answer = work(connection)
        if step == "inserted":
            end()
    if step == "committed":
        end()
    return answer

PredictionDrain(stream, run).drain()
"""


@pytest.mark.parametrize("step", ["taken", "inserted", "committed"])
def test_a_process_that_is_killed_at_any_step_loses_nothing_and_repeats_nothing(
    stream: PredictionStream,
    drain_of: Any,
    redis_url: str,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    stream.add(documents(20))
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, step, redis_url, postgres_url],
        env=os.environ,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert stream.waiting() == 20
    monkeypatch.setattr(prediction_drain, "CLAIM_AFTER", 0.0)
    drained = drain_of(stream).drain()
    assert drained == (Drained(known=20) if step == "committed" else Drained(stored=20))
    assert stored(postgres_url) == names(20)
    assert stream.waiting() == 0


def test_several_drains_at_once_store_each_prediction_once(
    stream_of: Any, drain_of: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everything is claimed from everyone all the time, as after a jump of Redis's clock.
    monkeypatch.setattr(prediction_drain, "CLAIM_AFTER", 0.0)
    monkeypatch.setattr(prediction_drain, "CLAIM_EVERY", 0.0)
    monkeypatch.setattr(prediction_drain, "BATCH", 50)
    source = stream_of()
    source.add(documents(1000))
    results: list[Drained] = []
    failures: list[Exception] = []

    def work(drain: PredictionDrain) -> None:
        try:
            results.append(drain.drain())
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(drain_of(stream_of()),), name=f"drain-{at}")
        for at in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(result.stored for result in results) == 1000
    assert stored(postgres_url) == names(1000)
    assert source.waiting() == 0


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not json",
        b"{}",
        b"7",
        b"\xff\xfe",
        b"}],[{",
        b"[" * 100_000,
        b" " * 2_000_000,
        document(9, role="king").text,
        document(9, predicted_at="yesterday-ish").text,
        document(9, values=[None]).text,
        document(9, values=[]).text,
        document(9, 2, entity_ids=["one"]).text,
        document(9, entity_ids="one").text,
        document(9, entity_ids=["a\0b"]).text,
        document(9, id=None).text,
        # Random, for PostgreSQL would compress anything else into what its index takes.
        document(9, id=secrets.token_hex(6000)).text,
    ],
)
def test_what_is_no_prediction_is_refused_and_holds_nobody_up(
    stream: PredictionStream, drain_of: Any, postgres_url: str, redis_url: str, bad: bytes
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        stream.add([document(0)])
        client.xadd(KEY, {"json": bad})
    stream.add([document(1)])
    drain = drain_of(stream)
    assert drain.drain() == Drained(stored=2, refused=1)
    assert stored(postgres_url) == names(2)
    assert stream.waiting() == 0
    stream.add([document(2)])
    assert drain.drain() == Drained(stored=1)


def test_a_table_that_is_not_there_yet_refuses_nothing(
    stream: PredictionStream, drain_of: Any, postgres_url: str
) -> None:
    stream.add(documents(2))
    drain = drain_of(stream)
    with connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE leadml.predictions RENAME TO elsewhere")
        try:
            with pytest.raises(psycopg.errors.UndefinedTable):
                drain.drain()
        finally:
            connection.execute("ALTER TABLE leadml.elsewhere RENAME TO predictions")
    assert drain.drain() == Drained(stored=2)


def test_anyone_may_store_what_waits_before_reading_the_table(
    stream: PredictionStream, redis_url: str, postgres_url: str
) -> None:
    stream.add(documents(3))
    assert drain_now(redis_url, postgres_url) == Drained(stored=3)
    assert drain_now(redis_url, postgres_url) == Drained()
    with redis.Redis.from_url(redis_url) as client:
        assert client.xinfo_consumers(KEY, "postgres") == []


def test_a_time_limit_ends_between_two_batches(
    stream: PredictionStream, drain_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_drain, "BATCH", 2)
    stream.add(documents(5))
    drain = drain_of(stream)
    assert drain.drain(seconds=0) == Drained(stored=2)
    told: list[Drained] = []
    assert drain.drain(note=told.append) == Drained(stored=3)
    assert told == [Drained(stored=2), Drained(stored=1), Drained()]


def test_old_predictions_are_removed_and_young_ones_stay(
    stream: PredictionStream,
    drain_of: Any,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction_drain, "REMOVED_AT_ONCE", 2)
    now = datetime.now(UTC)
    ages = [timedelta(days=40), timedelta(days=31), timedelta(days=30, hours=1), timedelta(days=29)]
    stream.add([document(at, predicted_at=(now - age).isoformat()) for at, age in enumerate(ages)])
    drain = drain_of(stream)
    drain.drain()
    assert [drain.prune(30) for _ in range(3)] == [2, 1, 0]
    assert stored(postgres_url) == ["lead_3"]
