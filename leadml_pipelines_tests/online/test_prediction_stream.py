"""The stream of predictions in Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from leadml_pipelines.online.prediction_stream import CHUNK, Document, PredictionStream
from leadml_pipelines_tests.online.logged import document

KEY = "leadml:predictions"


@pytest.fixture
def stream_of(redis_url: str) -> Iterator[Callable[[int], PredictionStream]]:
    with ExitStack() as at_end:

        def make(limit: int = 10_000) -> PredictionStream:
            stream = PredictionStream(redis_url, limit)
            at_end.callback(stream.close)
            return stream

        yield make


@pytest.fixture
def stream(stream_of: Callable[..., PredictionStream]) -> PredictionStream:
    return stream_of()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def documents(count: int) -> list[Document]:
    return [document(number) for number in range(count)]


def test_what_was_added_is_given_out_once_in_its_order(stream: PredictionStream) -> None:
    given = documents(CHUNK + 3)
    assert stream.add(given) == len(given)
    first = stream.new(CHUNK)
    assert [entry.document for entry in first + stream.new(CHUNK)] == [one.text for one in given]
    assert stream.new(CHUNK) == []


def test_what_was_added_before_any_consumer_is_not_lost(
    stream_of: Callable[..., PredictionStream],
) -> None:
    stream_of().add(documents(2))
    assert len(stream_of().new(10)) == 2


def test_a_full_stream_takes_no_more_and_loses_nothing(
    stream_of: Callable[..., PredictionStream],
) -> None:
    stream = stream_of(CHUNK + 5)
    given = documents(2 * CHUNK)
    assert stream.add(given) == CHUNK + 5
    assert stream.add(given) == 0
    assert stream.waiting() == CHUNK + 5
    taken = stream.new(1000)
    assert [entry.document for entry in taken] == [one.text for one in given[: CHUNK + 5]]
    assert stream.add(given) == 0
    stream.done(taken[:3])
    assert stream.add(given) == 3


def test_what_counts_is_the_predictions_of_an_entry(
    stream_of: Callable[..., PredictionStream],
) -> None:
    stream = stream_of(10)
    assert stream.add([document(0, 6), document(6, 4), document(10, 1)]) == 2
    first, second = stream.new(5)
    assert (first.count, second.count, stream.waiting()) == (6, 4, 10)
    stream.done([first])
    stream.done([first])
    assert stream.waiting() == 4
    assert stream.add([document(11, 7)]) == 0
    assert stream.add([document(11, 6)]) == 1


def test_what_somebody_else_deleted_takes_up_no_room(
    stream_of: Callable[..., PredictionStream], client: redis.Redis
) -> None:
    stream = stream_of(10)
    stream.add([document(0, 6), document(6, 4)])
    client.delete(KEY)
    assert stream.add([document(0, 10)]) == 1
    (entry,) = stream.new(5)
    client.xdel(KEY, entry.entry_id)
    stream.done([entry])
    assert stream.waiting() == 0


def test_two_that_add_at_once_do_not_exceed_the_limit(
    stream_of: Callable[..., PredictionStream],
) -> None:
    streams = [stream_of(1000) for _ in range(4)]
    added: list[int] = []
    threads = [
        threading.Thread(target=lambda it=it: added.append(it.add(documents(400))))  # type: ignore[misc]
        for it in streams
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == streams[0].waiting() == 1000


def test_two_consumers_are_given_different_entries(
    stream_of: Callable[..., PredictionStream],
) -> None:
    one, two = stream_of(), stream_of()
    one.add(documents(6))
    a, b = one.new(4), two.new(4)
    assert len(a) + len(b) == 6
    assert not {entry.entry_id for entry in a} & {entry.entry_id for entry in b}


def test_what_is_held_is_given_again_until_it_is_done(stream: PredictionStream) -> None:
    stream.add(documents(3))
    taken = stream.new(10)
    assert stream.held(10) == taken
    stream.done(taken[:2])
    assert stream.held(10) == taken[2:]
    stream.done(taken[2:])
    assert (stream.held(10), stream.waiting()) == ([], 0)


def test_what_a_vanished_consumer_held_is_claimed_after_a_while(
    stream_of: Callable[..., PredictionStream],
) -> None:
    gone, alive = stream_of(), stream_of()
    gone.add(documents(3))
    taken = gone.new(10)
    assert alive.claim(10, 60) == []
    time.sleep(0.05)
    assert alive.claim(10, 0.02) == taken
    assert alive.held(10) == taken
    assert gone.held(10) == []


def test_an_emptied_redis_is_used_on(stream: PredictionStream, client: redis.Redis) -> None:
    stream.add(documents(1))
    stream.new(1)
    client.flushdb()
    assert (stream.held(5), stream.claim(5, 0), stream.new(5)) == ([], [], [])
    stream.add(documents(2))
    assert len(stream.new(5)) == 2


def test_a_redis_without_memory_takes_nothing_and_gives_out_all(
    stream: PredictionStream, client: redis.Redis
) -> None:
    # Only the group can't be made then: whoever drains has made it long before.
    stream.new(1)
    stream.add(documents(5))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError):
            stream.add(documents(1))
        taken = stream.new(5)
        stream.done(taken[:4])
        assert stream.held(5) == taken[4:]
    finally:
        client.config_set("maxmemory", 0)


def test_an_entry_that_is_none_of_ours_has_no_document(
    stream: PredictionStream, client: redis.Redis
) -> None:
    client.xadd(KEY, {"other": "field"})
    client.xadd(KEY, {"count": "many", "json": "{}"})
    assert [(entry.document, entry.count) for entry in stream.new(5)] == [(b"", 1)] * 2


def test_an_entry_that_was_deleted_meanwhile_has_no_document(
    stream: PredictionStream, client: redis.Redis
) -> None:
    stream.add(documents(2))
    first, second = stream.new(5)
    client.xdel(KEY, first.entry_id)
    held = stream.held(5)
    assert [entry.document for entry in held] == [None, second.document]
    stream.done(held)
    assert stream.held(5) == []


def test_a_consumer_leaves_only_when_it_holds_nothing(
    stream: PredictionStream, client: redis.Redis
) -> None:
    stream.add(documents(1))
    taken = stream.new(1)
    stream.leave()
    assert client.xpending(KEY, "postgres")["pending"] == 1
    stream.done(taken)
    stream.leave()
    assert client.xinfo_consumers(KEY, "postgres") == []


def test_names_of_long_gone_consumers_are_removed_and_what_they_hold_is_not(
    stream_of: Callable[..., PredictionStream],
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("leadml_pipelines.online.prediction_stream._MILLISECONDS_ABANDONED", -1)
    holding, idle = stream_of(), stream_of()
    holding.add(documents(1))
    holding.new(1)
    idle.new(1)
    stream_of().forget_consumers()
    (left,) = client.xinfo_consumers(KEY, "postgres")
    assert left["pending"] == 1
