"""The store against a real Redis: newer wins, lives, round trips, the pointer to the snapshot."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import redis

from leadml_pipelines.online.format import Field, FormatError, Schema, encode
from leadml_pipelines.online.store import JITTER, SCHEMA_SECONDS, OnlineStore, OnlineStoreError
from leadml_pipelines.times import from_micros, to_micros, utc_now

SCHEMA = Schema("lead", (Field("score", "double"), Field("count", "integer")))
NOW = to_micros(utc_now())
HOUR = 3_600_000_000


def _write(store: OnlineStore, entity_id: str, as_of: int, computed_at: int, score: float = 0.0):
    payload = encode(SCHEMA, as_of, computed_at, np.array([[score, 1.0]]))
    return store.write_batch("lead", [entity_id], payload)


def _score(store: OnlineStore, entity_id: str) -> float:
    return float(store.read_batch("lead", [entity_id]).matrix(["score"])[0, 0])


def test_values_come_back_in_the_order_asked(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    ids = [f"lead_{i}" for i in range(2500)]
    values = np.column_stack([np.arange(2500.0), np.ones(2500)])
    written = store.write_batch("lead", ids, encode(SCHEMA, NOW, NOW, values))
    assert (written.written, written.kept_newer, written.future) == (2500, 0, 0)
    asked = [*reversed(ids), "nobody", ids[3], ids[3]]
    batch = store.read_batch("lead", asked)
    assert batch.missing() == [2500]
    found = batch.matrix(["score"])[:, 0]
    assert found[:2500].tolist() == list(range(2499, -1, -1))
    assert found[2501:].tolist() == [3.0, 3.0]


def test_a_batch_of_a_thousand_is_one_round_trip(store: OnlineStore, raw: redis.Redis) -> None:
    before = raw.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    store.read_batch("lead", [f"lead_{i}" for i in range(1000)])
    assert raw.info("commandstats")["cmdstat_mget"]["calls"] == before + 1


def test_older_value_never_replaces_a_newer_one(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    _write(store, "a", NOW, NOW, 1.0)
    late = _write(store, "a", NOW - 1, NOW + HOUR, 2.0)
    assert (late.written, late.kept_newer) == (0, 1)
    assert _score(store, "a") == 1.0


def test_correction_of_the_same_moment_wins(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    _write(store, "a", NOW, NOW, 1.0)
    assert _write(store, "a", NOW, NOW + 1, 2.0).written == 1
    assert _write(store, "a", NOW, NOW, 1.0).kept_newer == 1
    assert _score(store, "a") == 2.0


def test_moments_one_microsecond_apart_are_told_apart(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    for as_of in (NOW, NOW + 1):
        _write(store, "a", as_of, 0, float(as_of - NOW))
    assert _write(store, "a", NOW, NOW, 9.0).kept_newer == 1
    assert _score(store, "a") == 1.0


def test_moments_before_1970_are_ordered_too(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    _write(store, "a", -2, 0, 1.0)
    assert _write(store, "a", -3, 0, 2.0).kept_newer == 1
    assert _write(store, "a", 5, 0, 3.0).written == 1


def test_value_from_the_future_neither_shows_nor_blocks(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    assert _write(store, "a", NOW + 24 * HOUR, NOW, 9.0).future == 1
    assert store.read_batch("lead", ["a"]).missing() == [0]
    assert _write(store, "a", NOW, NOW, 1.0).written == 1


def test_racing_writers_leave_the_newest(redis_url: str) -> None:
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        store = OnlineStore(redis_url)
        store.put_schema(SCHEMA)
        mine = np.random.default_rng(seed).permutation(200).tolist()
        start.wait()
        for version in mine:
            ids = [f"lead_{i}" for i in range(5)]
            values = np.full((5, 2), float(version))
            store.write_batch("lead", ids, encode(SCHEMA, NOW - HOUR + version, NOW, values))
        store.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = OnlineStore(redis_url)
    batch = store.read_batch("lead", [f"lead_{i}" for i in range(5)])
    assert batch.matrix(["score"])[:, 0].tolist() == [199.0] * 5
    store.close()


def test_reader_never_sees_a_value_older_than_the_last(redis_url: str) -> None:
    writer, reader = OnlineStore(redis_url), OnlineStore(redis_url)
    writer.put_schema(SCHEMA)
    stop = threading.Event()
    backwards: list[tuple[float, float]] = []

    def watch() -> None:
        last = -1.0
        while not stop.is_set():
            batch = reader.read_batch("lead", ["a"])
            if not batch.missing():
                score = float(batch.matrix(["score"])[0, 0])
                if score < last:
                    backwards.append((last, score))
                last = score

    thread = threading.Thread(target=watch)
    thread.start()
    for version in np.random.default_rng(3).permutation(300).tolist():
        _write(writer, "a", NOW - HOUR + version, NOW, float(version))
    stop.set()
    thread.join()
    assert not backwards
    assert _score(writer, "a") == 299.0
    writer.close()
    reader.close()


def test_lives_are_an_hour_give_or_take_a_tenth(store: OnlineStore, raw: redis.Redis) -> None:
    ids = [f"lead_{i}" for i in range(400)]
    store.write_batch("lead", ids, encode(SCHEMA, NOW, NOW, np.zeros((400, 2))))
    lives = np.array([raw.pttl(f"leadml:lead:{i}") for i in ids])
    hour = 3_600_000
    assert lives.max() <= hour * (1 + JITTER)
    assert lives.min() >= hour * (1 - JITTER) - 60_000
    assert lives.max() - lives.min() > hour * JITTER


def test_value_is_gone_after_its_life(redis_url: str) -> None:
    store = OnlineStore(redis_url, ttl_seconds=1)
    store.put_schema(SCHEMA)
    _write(store, "a", NOW, NOW)
    deadline = time.monotonic() + 5
    while not store.read_batch("lead", ["a"]).missing():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store.close()


def test_broken_value_names_its_key(store: OnlineStore, raw: redis.Redis) -> None:
    raw.set("leadml:lead:bad", b"\x01\x00")
    with pytest.raises(FormatError, match="leadml:lead:bad"):
        store.read_batch("lead", ["bad"])


def test_broken_value_is_replaced_by_the_next_write(store: OnlineStore, raw: redis.Redis) -> None:
    raw.set("leadml:lead:bad", b"\x01\x00")
    store.put_schema(SCHEMA)
    _write(store, "bad", NOW, NOW, 4.0)
    assert _score(store, "bad") == 4.0


def test_value_of_an_unknown_schema_names_its_key(store: OnlineStore) -> None:
    _write(store, "a", NOW, NOW)
    with pytest.raises(FormatError, match=r"leadml:lead:a is of schema \d+"):
        store.read_batch("lead", ["a"])


def test_schema_is_read_from_redis_by_another_process(redis_url: str) -> None:
    first, second = OnlineStore(redis_url), OnlineStore(redis_url)
    schema_id = first.put_schema(SCHEMA)
    assert second.schema("lead", schema_id) == SCHEMA
    first.close()
    second.close()


def test_schema_with_the_id_of_another_is_refused(store: OnlineStore) -> None:
    """Two of the very few that have the same first four bytes of their hash."""
    first, second = (Schema("lead", (Field(f"feature_{i}", "double"),)) for i in (22863, 146633))
    assert first.schema_id == second.schema_id
    store.put_schema(first)
    with pytest.raises(OnlineStoreError, match="another schema with the same id"):
        store.put_schema(second)


@pytest.mark.parametrize("damaged", [b"{}", b'{"format":1,"entity_type":"lead","features":[]}'])
def test_a_schema_document_that_is_not_what_its_id_says_is_refused_and_replaced(
    store: OnlineStore, redis_url: str, raw: redis.Redis, damaged: bytes
) -> None:
    raw.set(f"leadml:schema:lead:{SCHEMA.schema_id}", damaged)
    with pytest.raises(FormatError, match=f"leadml:schema:lead:{SCHEMA.schema_id} holds"):
        store.schema("lead", SCHEMA.schema_id)
    store.put_schema(SCHEMA)
    other = OnlineStore(redis_url)
    assert other.schema("lead", SCHEMA.schema_id) == SCHEMA
    other.close()


def test_a_schema_document_lives_on_from_each_write_and_longer_than_any_value(
    redis_url: str, raw: redis.Redis
) -> None:
    key = f"leadml:schema:lead:{SCHEMA.schema_id}"
    for ttl, lives in ((3600, SCHEMA_SECONDS), (SCHEMA_SECONDS, 2 * SCHEMA_SECONDS)):
        store = OnlineStore(redis_url, ttl_seconds=ttl)
        store.put_schema(SCHEMA)
        assert lives - 60 < raw.ttl(key) <= lives
        raw.expire(key, 10)
        store.write_batch("lead", ["a"], encode(SCHEMA, 1, 1, np.zeros((1, 2))), schema=SCHEMA)
        assert lives - 60 < raw.ttl(key) <= lives
        store.close()


def test_scripts_are_loaded_again_after_redis_forgot_them(
    store: OnlineStore, raw: redis.Redis
) -> None:
    store.put_schema(SCHEMA)
    _write(store, "a", NOW, NOW)
    raw.script_flush()
    assert _write(store, "b", NOW, NOW).written == 1


def test_invalidated_entity_is_missing_and_old_values_stay_out(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    _write(store, "a", NOW - HOUR, NOW - HOUR, 1.0)
    store.invalidate("lead", ["a"], from_micros(NOW))
    assert store.read_batch("lead", ["a"]).missing() == [0]
    assert _write(store, "a", NOW - 1, NOW, 2.0).kept_newer == 1
    assert store.read_batch("lead", ["a"]).missing() == [0]
    assert _write(store, "a", NOW + 1, NOW + 1, 3.0).written == 1
    assert _score(store, "a") == 3.0


def test_payloads_and_ids_must_be_as_many(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="2 lead ids but 1 values"):
        store.write_batch("lead", ["a", "b"], [b""])


def test_snapshot_pointer_moves_only_forward(store: OnlineStore) -> None:
    moment = utc_now()
    assert store.snapshot_as_of("lead") is None
    assert store.point_to_snapshot(SCHEMA, moment, {"entities": 1})
    assert not store.point_to_snapshot(SCHEMA, moment - timedelta(microseconds=1), {"entities": 2})
    assert store.snapshot_as_of("lead") == moment
    pointer = store.snapshot("lead")
    assert pointer is not None
    assert pointer["entities"] == 1


def test_current_schema_moves_with_the_snapshot_pointer(store: OnlineStore) -> None:
    store.put_schema(SCHEMA)
    assert store.current_schema("lead") is None
    store.point_to_snapshot(SCHEMA, utc_now(), {})
    assert store.current_schema("lead") == SCHEMA


def test_the_current_schema_lives_without_end_and_the_one_before_ends(
    store: OnlineStore, raw: redis.Redis
) -> None:
    """What may expire may be evicted, and a document that is read once goes before all values."""
    older = Schema("lead", SCHEMA.fields[:1])
    keys = [f"leadml:schema:lead:{schema.schema_id}" for schema in (older, SCHEMA)]
    now = utc_now()
    for at, current in enumerate((older, SCHEMA, SCHEMA, older)):
        store.put_schema(current)
        store.point_to_snapshot(current, now + timedelta(seconds=at), {})
        store.write_batch("lead", ["a"], encode(SCHEMA, 1, 1, np.zeros((1, 2))), schema=SCHEMA)
        expected = [current != schema for schema in (older, SCHEMA)]
        assert [raw.ttl(key) > SCHEMA_SECONDS - 60 for key in keys] == expected
        assert [raw.ttl(key) == -1 for key in keys] == [not ends for ends in expected]
