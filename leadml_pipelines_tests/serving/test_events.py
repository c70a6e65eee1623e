"""Events over HTTP: stored once, quarantined by name, seen by the next read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from pydantic import SecretStr

from leadml_pipelines.features.present import present_sql
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.connections import Connections
from leadml_pipelines.serving.events import EventDoor, Receipt
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.outbox import Courier, Outbox, keep
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.serving.conftest import NO_POSTGRES, NO_REDIS, World, wait_for
from leadml_pipelines_tests.serving.offline import event, load_leads

EVENTS = "/api/v1/events"
BATCH = "/api/v1/features/batch"

Serving = Callable[[Settings], httpx.Client]


@pytest.fixture
def offline(world: World) -> World:
    """The world, whose leads PostgreSQL has too."""
    load_leads(world.settings.require_postgres())
    return world


@pytest.fixture
def app(offline: World, serving: Serving) -> httpx.Client:
    return serving(offline.settings)


@pytest.fixture
def outbox(offline: World) -> Iterator[Outbox]:
    connections = Connections(offline.settings.require_postgres(), 1)
    yield Outbox(connections, offline.store)
    connections.close()


def _post(client: httpx.Client, *posted: dict[str, Any]) -> Any:
    response = client.post(EVENTS, json={"events": posted})
    assert response.status_code == 200, response.text
    return response.json()


def _statuses(answer: Any) -> list[str]:
    return [row["status"] for row in answer["events"]]


def _total(client: httpx.Client, lead_id: str) -> int:
    body = {"entity_ids": [lead_id], "feature_names": ["event_count_total"]}
    total: int = client.post(BATCH, json=body).json()["features"][lead_id]["event_count_total"]
    return total


def _source(client: httpx.Client, lead_id: str) -> Any:
    return client.post(BATCH, json={"entity_ids": [lead_id]}).json()["meta"][lead_id]["source"]


def _one(world: World, query: str) -> Any:
    with connect(world.settings.require_postgres()) as connection:
        row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def test_a_posted_event_is_seen_by_the_next_read(app: httpx.Client, offline: World) -> None:
    offline.store.invalidate("lead", ["lead_0"], utc_now())
    before = _total(app, "lead_0")
    answer = _post(app, event("p1", "lead_0", utc_now()))
    assert answer == {
        "success": True,
        "events": [{"event_id": "p1", "status": "stored", "reason": None, "message": None}],
        "invalidation": "done",
    }
    assert _total(app, "lead_0") == before + 1
    assert 'leadml_events_total{status="stored"} 1.0' in app.get("/metrics").text


def test_a_cached_value_of_before_the_event_is_not_served(
    app: httpx.Client, offline: World
) -> None:
    body = {"entity_ids": ["lead_1", "lead_2"]}
    assert app.post(BATCH, json=body).json()["meta"]["lead_1"]["source"] == "cache"
    _post(app, event("p2", "lead_1", utc_now()))
    meta = app.post(BATCH, json=body).json()["meta"]
    assert [meta[i]["source"] for i in ("lead_1", "lead_2")] == ["computed", "cache"]


def test_a_repeat_is_ignored_and_said_so(app: httpx.Client) -> None:
    first = event("p3", "lead_0", utc_now(), value=12.5, properties={"page": "/quote"})
    assert _statuses(_post(app, first, first)) == ["stored", "duplicate"]
    total = _total(app, "lead_0")
    assert _statuses(_post(app, first)) == ["duplicate"]
    assert _total(app, "lead_0") == total


def test_a_repeat_with_other_content_is_quarantined(app: httpx.Client) -> None:
    now = utc_now()
    _post(app, event("p4", "lead_0", now))
    (row,) = _post(app, event("p4", "lead_0", now, event_type="email_open"))["events"]
    assert (row["status"], row["reason"]) == ("quarantined", "duplicate_key")


@pytest.mark.parametrize(
    ("changes", "reason", "part"),
    [
        ({"lead_id": "nobody"}, "unknown_lead", "'nobody'"),
        ({"occurred_at": "2999-01-01T00:00:00Z"}, "impossible_time", "in the future"),
        ({"occurred_at": "2026-01-01T00:00:00"}, "naive_time", "occurred_at"),
        ({"occurred_at": 7}, "impossible_time", "occurred_at"),
        ({"event_id": None}, "missing_key", "event_id"),
        ({"event_type": {"a": 1}}, "wrong_type", "event_type"),
        ({"direction": "sideways"}, "unknown_direction", "sideways"),
        ({"value": "much"}, "wrong_type", "value"),
        ({"properties": [1]}, "wrong_type", "properties"),
    ],
)
def test_a_refused_event_is_quarantined_with_its_reason_and_the_others_are_stored(
    app: httpx.Client, offline: World, changes: dict[str, Any], reason: str, part: str
) -> None:
    bad = {**event("bad", "lead_0", utc_now()), **changes}
    answer = _post(app, event("good", "lead_0", utc_now()), bad)
    assert _statuses(answer) == ["stored", "quarantined"]
    row = answer["events"][1]
    assert (row["event_id"], row["reason"]) == (bad["event_id"], reason)
    assert part in row["message"]
    assert _one(offline, "SELECT count(*) FROM leadml.quarantine") == 1
    assert _one(offline, "SELECT origin FROM leadml.quarantine") == "posted event"


def test_the_same_bad_event_is_kept_once(app: httpx.Client, offline: World) -> None:
    bad = event("bad", "nobody", utc_now())
    for _ in range(2):
        assert _statuses(_post(app, bad)) == ["quarantined"]
    assert _one(offline, "SELECT count(*) FROM leadml.quarantine") == 1


def test_an_event_dated_in_the_future_neither_shows_nor_blocks_later_ones(
    app: httpx.Client, offline: World
) -> None:
    offline.store.invalidate("lead", ["lead_0"], utc_now())
    before = _total(app, "lead_0")
    soon = event("soon", "lead_0", utc_now() + timedelta(hours=3))
    assert _statuses(_post(app, soon)) == ["stored"]
    assert _total(app, "lead_0") == before
    _post(app, event("now", "lead_0", utc_now()))
    assert _total(app, "lead_0") == before + 1
    meta = app.post(BATCH, json={"entity_ids": ["lead_0"]}).json()["meta"]["lead_0"]
    assert meta["source"] == "cache"


def test_an_event_dated_a_little_ahead_is_seen_as_soon_as_its_time_has_come(
    app: httpx.Client, offline: World
) -> None:
    """The sender's clock is ahead of ours; what was read in between was cached without it."""
    # The first event waits for imports.
    _post(app, event("first", "lead_0", utc_now()))
    before = _total(app, "lead_0")
    when = utc_now() + timedelta(seconds=1.5)
    _post(app, event("ahead", "lead_0", when))
    _total(app, "lead_0")
    while utc_now() <= when:
        time.sleep(0.02)
    assert _total(app, "lead_0") == before + 1
    wait_for(lambda: _source(app, "lead_0") == "cache")
    assert _total(app, "lead_0") == before + 1


def test_redis_is_told_of_an_event_dated_far_ahead_when_its_time_comes(
    offline: World, outbox: Outbox
) -> None:
    url = offline.settings.require_postgres()
    later = utc_now() + timedelta(hours=3)
    with connect(url) as connection:
        keep(connection, [("lead", "lead_0", later), ("lead", "lead_1", utc_now())])
    assert (outbox.waiting(), outbox.deliver()) == (1, 1)
    with connect(url) as connection:
        connection.execute(
            "UPDATE leadml.invalidations SET due_at = now() WHERE entity_id = 'lead_0'"
        )
    assert (outbox.waiting(), outbox.deliver()) == (1, 1)
    assert offline.store.read_batch("lead", ["lead_0"]).missing() == [0]


def test_an_event_becomes_known_when_it_is_posted_unless_it_says_otherwise(
    app: httpx.Client, offline: World
) -> None:
    happened = utc_now() - timedelta(days=3)
    given = happened + timedelta(days=1)
    before = utc_now()
    _post(
        app,
        event("late", "lead_0", happened),
        event("told", "lead_0", happened, ingested_at=given.isoformat()),
    )
    known = "SELECT ingested_at FROM crm.lead_events WHERE event_id = '{}'"
    assert abs(_one(offline, known.format("late")) - before) < timedelta(seconds=30)
    assert _one(offline, known.format("told")) == given


def test_a_thousand_events_are_stored_and_one_more_is_told_the_limit(
    app: httpx.Client, offline: World
) -> None:
    now = utc_now()
    many = [event(f"m{i}", f"lead_{i % 40}", now) for i in range(1001)]
    assert set(_statuses(_post(app, *many[:1000]))) == {"stored"}
    response = app.post(EVENTS, json={"events": many})
    assert response.status_code == 422
    assert "events has 1001 entries; 1000 is the limit" in response.text
    assert _one(offline, "SELECT count(*) FROM leadml.invalidations") == 40


@pytest.mark.parametrize(
    "body", [{"events": []}, {}, {"events": "e"}, {"events": [{"colour": "red"}]}, {"events": [1]}]
)
def test_a_malformed_request_is_refused_as_a_whole(app: httpx.Client, body: Any) -> None:
    response = app.post(EVENTS, json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"


def test_redis_down_the_event_is_stored_and_waits_in_the_outbox(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    before = _total(client, "lead_0")
    answer = _post(client, event("p5", "lead_0", utc_now()))
    assert (_statuses(answer), answer["invalidation"]) == (["stored"], "pending")
    assert _total(client, "lead_0") == before + 1
    waiting = "SELECT count(*) FROM leadml.invalidations WHERE delivered_at IS NULL"
    assert _one(offline, waiting) == 1


def test_a_refused_event_leaves_nothing_in_the_outbox(app: httpx.Client, offline: World) -> None:
    _post(app, event("p6", "nobody", utc_now()))
    assert _one(offline, "SELECT count(*) FROM leadml.invalidations") == 0


def test_a_repeat_delivers_what_the_first_time_could_not(offline: World, serving: Serving) -> None:
    """The app ended between the commit and Redis; the sender posts again to another one."""
    first = event("p7", "lead_0", utc_now())
    without_redis = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    _post(without_redis, first)
    answer = _post(serving(offline.settings), first)
    assert (_statuses(answer), answer["invalidation"]) == (["duplicate"], "done")
    assert offline.store.read_batch("lead", ["lead_0"]).missing() == [0]


def test_postgres_down_nothing_is_stored_and_the_answer_says_to_try_again(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    response = client.post(EVENTS, json={"events": [event("p8", "lead_0", utc_now())]})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "events_not_stored"
    assert "secret" not in response.text


def test_events_of_a_customers_view_are_refused_with_the_reason(
    offline: World, serving: Serving
) -> None:
    with connect(offline.settings.require_postgres(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS customer")
        connection.execute(
            "CREATE OR REPLACE VIEW customer.lead_events AS SELECT * FROM crm.lead_events"
        )
    client = serving(offline.settings.model_copy(update={"crm_schema": "customer"}))
    response = client.post(EVENTS, json={"events": [event("p9", "lead_0", utc_now())]})
    assert response.status_code == 409
    assert "customer.lead_events is not a table but a view" in response.text


def test_openapi_tells_what_an_event_is(app: httpx.Client) -> None:
    schemas = app.get("/openapi.json").json()["components"]["schemas"]
    properties = schemas["Event"]["properties"]
    assert properties["occurred_at"]["format"] == "date-time"
    assert properties["direction"]["enum"] == ["inbound", "outbound", "internal"]


def test_invalidations_are_dated_after_the_commit_and_older_values_lose(
    offline: World, outbox: Outbox
) -> None:
    url = offline.settings.require_postgres()
    with connect(url) as connection:
        keep(connection, [("lead", i, None) for i in ("lead_0", "lead_0", "a\nb")])
        during = utc_now()
    assert outbox.deliver() == 2
    seen: dict[str, tuple[int, int]] = {}
    offline.store.read_batch("lead", ["lead_0"], None, seen)
    assert seen["lead_0"][0] >= int(during.timestamp() * 1e6)
    assert (outbox.waiting(), outbox.deliver()) == (0, 0)


def test_a_failure_that_nobody_foresaw_does_not_end_the_delivery(
    offline: World, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failed = outbox.waiting, threading.Event()

    def once() -> int:
        if failed.is_set():
            return original()
        failed.set()
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(outbox, "waiting", once)
    with connect(offline.settings.require_postgres()) as connection:
        keep(connection, [("lead", "lead_0", None)])
    metrics = Metrics()
    courier = Courier(outbox, RedisState(metrics), metrics)
    courier.start()
    wait_for(lambda: offline.store.read_batch("lead", ["lead_0"]).missing() == [0])
    courier.stop()
    assert failed.is_set()


def test_only_the_entities_asked_for_are_delivered(offline: World, outbox: Outbox) -> None:
    url = offline.settings.require_postgres()
    with connect(url) as connection:
        keep(connection, [("lead", "lead_0", None), ("lead", "lead_1", None)])
    assert outbox.deliver(["lead_1", "lead_7"]) == 1
    assert offline.store.read_batch("lead", ["lead_0", "lead_1"]).missing() == [1]


def test_the_agent_of_an_event_is_invalidated_too(app: httpx.Client, offline: World) -> None:
    seen: dict[str, tuple[int, int]] = {}
    _post(app, event("with agent", "lead_0", utc_now(), agent_id="smith"))
    _post(app, event("without", "lead_1", utc_now()))
    offline.store.read_batch("agent", ["smith"], None, seen)
    assert list(seen) == ["smith"]
    kept = "SELECT count(*) FROM leadml.invalidations WHERE entity_type = 'agent'"
    assert _one(offline, kept) == 1


def test_what_another_redis_was_told_is_told_again_while_older_values_may_live(
    offline: World, outbox: Outbox
) -> None:
    """Also when the app was started anew meanwhile, and never saw the other one."""
    url = offline.settings.require_postgres()
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.invalidations (entity_type, entity_id, due_at, delivered_at, told) "
            "SELECT 'lead', 'lead_' || i, now() - i * interval '65 minutes', now(), 'another' "
            "FROM generate_series(0, 2) i"
        )
    assert outbox.catch_up() == 2
    assert offline.store.read_batch("lead", ["lead_0", "lead_1", "lead_2"]).missing() == [0, 1]
    assert outbox.catch_up() == 0


def test_redis_is_not_believed_when_an_event_came_while_it_was_told_the_rest(
    offline: World, outbox: Outbox
) -> None:
    """The event is committed after the last look, and its sender leaves Redis alone."""
    metrics = Metrics()
    state = RedisState(metrics)
    connections = outbox._connections
    door = EventDoor(connections, outbox, state, metrics)

    class Slow(Outbox):
        def catch_up(self) -> int:
            told = super().catch_up()
            if not receipts:
                receipts.append(door.post([event("between", "lead_0", utc_now())]))
            return told

    receipts: list[Receipt] = []
    courier = Courier(Slow(connections, offline.store), state, metrics)
    state.note_failure(redis.ConnectionError())
    courier.look()
    assert [receipt.invalidated for receipt in receipts] == [False]
    assert (state.usable(), state.doubtful()) == (False, True)
    courier.look()
    assert (state.usable(), state.doubtful()) == (True, False)
    assert offline.store.read_batch("lead", ["lead_0"]).missing() == [0]


def test_a_key_of_another_type_holds_up_neither_its_own_nor_other_leads(
    app: httpx.Client, offline: World
) -> None:
    offline.store._redis.delete("leadml:lead:lead_0")
    offline.store._redis.hset("leadml:lead:lead_0", "field", "value")
    now = utc_now()
    answer = _post(app, event("t0", "lead_0", now), event("t1", "lead_1", now))
    assert answer["invalidation"] == "done"
    for source in ("computed", "cache"):
        assert [_source(app, i) for i in ("lead_0", "lead_1")] == [source, source]


def test_redis_without_memory_loses_what_is_untrue_and_is_read_on(
    app: httpx.Client, offline: World
) -> None:
    offline.store.invalidate("lead", ["lead_0"], utc_now())
    before = _total(app, "lead_0")
    offline.store._redis.config_set("maxmemory", "1")
    try:
        assert _post(app, event("oom", "lead_0", utc_now()))["invalidation"] == "done"
        assert _total(app, "lead_0") == before + 1
        assert _source(app, "lead_0") == "computed"
        assert _source(app, "lead_1") == "cache"
    finally:
        offline.store._redis.config_set("maxmemory", "0")


def test_a_redis_that_takes_no_writes_is_not_believed_after_an_event(
    offline: World, serving: Serving
) -> None:
    offline.store._redis.acl_setuser(
        "looker", enabled=True, passwords=["+look"], keys=["*"], commands=["+@read", "+ping"]
    )
    try:
        address = urlsplit(offline.settings.require_redis())
        url = address._replace(netloc=f"looker:look@{address.hostname}:{address.port}").geturl()
        client = serving(offline.settings.model_copy(update={"redis_url": SecretStr(url)}))
        assert _source(client, "lead_0") == "cache"
        answer = _post(client, event("refused", "lead_0", utc_now()))
        assert (_statuses(answer), answer["invalidation"]) == (["stored"], "pending")
        body = {"entity_ids": ["lead_0"]}
        read = client.post(BATCH, json=body).json()
        assert read["meta"]["lead_0"]["source"] == "computed"
        assert read["degraded"] == ["redis"]
    finally:
        offline.store._redis.acl_deluser("looker")


def test_what_was_delivered_is_forgotten_after_two_days(offline: World, outbox: Outbox) -> None:
    url = offline.settings.require_postgres()
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.invalidations (entity_type, entity_id, due_at, delivered_at) "
            "SELECT 'lead', i::text, now() - interval '3 days', CASE WHEN i > 1 THEN now() END "
            "FROM generate_series(1, 3) i"
        )
        keep(connection, [("lead", "young", None)])
    outbox.prune()
    with connect(url) as connection:
        left = connection.execute("SELECT entity_id FROM leadml.invalidations ORDER BY 1")
        assert [row[0] for row in left] == ["1", "young"]


def test_the_present_of_an_unknown_entity_type_is_refused() -> None:
    with pytest.raises(ValueError, match="no entity type house"):
        present_sql("data", "house")
