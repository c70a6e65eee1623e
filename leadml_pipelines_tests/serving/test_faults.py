"""Redis and PostgreSQL stopped and started, or frozen, under a running app."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.postgres import connect, migrate
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_features, lead_frame
from leadml_pipelines_tests.serving.conftest import serve, wait_for
from leadml_pipelines_tests.serving.offline import event, load_leads

BATCH = "/api/v1/features/batch"
EVENTS = "/api/v1/events"
ENGINEER = "/api/v1/features/engineer"
OPENS = {
    "entity_ids": ["lead_1"],
    "functions": [{"function": "count", "event_type": "email_open", "window": "14d"}],
}
BUDGET = 2.0
"""Seconds that a read may take at the very most while a server is away; mostly it is far less."""


class Servers:
    """A Redis and a PostgreSQL of one's own, each to be stopped and started again."""

    def __init__(self, home: Path) -> None:
        self._stacks = {name: ServiceStack(home / name) for name in ("redis", "postgres")}
        for name in self._stacks:
            self.start(name)

    def start(self, name: str) -> None:
        self._stacks[name].start(only=[name])

    def stop(self, name: str) -> None:
        self._stacks[name].stop()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """The server is there, and its kernel takes what is sent; but it does nothing."""
        pid = next(s.pid for s in self._stacks[name].status() if s.name == name)
        server = psutil.Process(pid)
        server.suspend()
        # Only now: while it runs it may have one child more.
        frozen = [server, *server.children(recursive=True)]
        for child in frozen[1:]:
            child.suspend()
        try:
            yield
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)

    def url(self, name: str) -> str:
        return self._stacks[name].environment()[f"LEADML_{name.upper()}_URL"]

    def end(self) -> None:
        for stack in self._stacks.values():
            stack.stop()
            stack.remove()


@pytest.fixture(scope="module")
def started_servers() -> Iterator[Servers]:
    with (
        # Another user than root may run PostgreSQL and must get to its folder.
        tempfile.TemporaryDirectory(prefix="leadml-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        # A server that the environment names is not ours to stop.
        for name in ("REDIS", "POSTGRES"):
            patch.delenv(f"LEADML_{name}_URL", raising=False)
        servers = Servers(Path(folder))
        yield servers
        servers.end()


@pytest.fixture
def servers(started_servers: Servers) -> Servers:
    """Both servers, running; what the test before left in Redis is gone."""
    for name in ("redis", "postgres"):
        started_servers.start(name)
    store = OnlineStore(started_servers.url("redis"))
    store._redis.flushdb()
    store.close()
    return started_servers


@pytest.fixture
def client(servers: Servers, tmp_path: Path) -> Iterator[httpx.Client]:
    """The app over these servers; PostgreSQL knows forty leads, and Redis has `lead_0`."""
    migrate(servers.url("postgres"))
    load_leads(servers.url("postgres"))
    store = OnlineStore(servers.url("redis"))
    publish_snapshot(store, "lead", lead_features(), lead_frame(["lead_0"]), utc_now())
    store.close()
    settings = Settings(
        home=tmp_path / "app",
        redis_url=servers.url("redis"),
        postgres_url=servers.url("postgres"),
    )
    with serve(settings) as client:
        # The first computation waits for its statement to be compiled, faults or not.
        client.post(BATCH, json={"entity_ids": ["nobody"]}, timeout=60)
        yield client


def _ask(client: httpx.Client, *ids: str) -> httpx.Response:
    begun = time.monotonic()
    response = client.post(BATCH, json={"entity_ids": ids})
    assert time.monotonic() - begun < BUDGET
    return response


def _source(client: httpx.Client, lead_id: str) -> Any:
    response = _ask(client, lead_id)
    return response.json()["meta"][lead_id]["source"] if response.status_code == 200 else None


def _total(client: httpx.Client, lead_id: str) -> int:
    total: int = _ask(client, lead_id).json()["features"][lead_id]["event_count_total"]
    return total


def test_redis_stopped_and_started_reads_go_on_and_events_are_delivered(
    servers: Servers, client: httpx.Client
) -> None:
    """The cache keeps its old value on disk; it must not be served after the event."""
    before = _total(client, "lead_1")
    assert _source(client, "lead_1") == "cache"
    servers.stop("redis")
    assert _source(client, "lead_1") == "computed"
    assert 'leadml_online_failures_total{store="redis"}' in client.get("/metrics").text
    body = {"events": [event("during", "lead_1", utc_now())]}
    posted = client.post(EVENTS, json=body).json()
    assert (posted["events"][0]["status"], posted["invalidation"]) == ("stored", "pending")
    assert _total(client, "lead_1") == before + 1
    servers.start("redis")
    seen = []

    def recovered() -> bool:
        seen.append(_total(client, "lead_1"))
        return _source(client, "lead_1") == "cache"

    wait_for(recovered)
    assert set(seen) == {before + 1}
    with connect(servers.url("postgres")) as connection:
        waiting = "SELECT count(*) FROM leadml.invalidations WHERE delivered_at IS NULL"
        wait_for(lambda: connection.execute(waiting).fetchone() == (0,))


def test_an_event_posted_while_redis_is_away_is_delivered_without_any_read(
    servers: Servers, client: httpx.Client
) -> None:
    _ask(client, "lead_2")
    servers.stop("redis")
    client.post(EVENTS, json={"events": [event("alone", "lead_2", utc_now())]})
    servers.start("redis")
    store = OnlineStore(servers.url("redis"))
    try:
        wait_for(lambda: store.read_batch("lead", ["lead_2"]).missing() == [0])
    finally:
        store.close()


def test_redis_started_from_an_older_file_is_told_again_of_the_events_since(
    servers: Servers, client: httpx.Client
) -> None:
    """It crashes after it was told; nothing that waits is left in PostgreSQL."""
    before = _total(client, "lead_4")
    store = OnlineStore(servers.url("redis"))
    store._redis.save()
    body = {"events": [event("lost", "lead_4", utc_now())]}
    assert client.post(EVENTS, json=body).json()["invalidation"] == "done"
    assert _total(client, "lead_4") == before + 1
    store._redis.shutdown(nosave=True)
    store.close()
    servers.stop("redis")
    servers.start("redis")
    wait_for(lambda: _source(client, "lead_4") == "computed")
    wait_for(lambda: _source(client, "lead_4") == "cache")
    assert _total(client, "lead_4") == before + 1


def test_values_that_events_may_have_made_untrue_are_marked_while_postgres_is_away(
    servers: Servers, client: httpx.Client
) -> None:
    """Redis comes back first, and nobody can tell it what it missed."""
    before = _total(client, "lead_5")
    servers.stop("redis")
    body = {"events": [event("untold", "lead_5", utc_now())]}
    assert client.post(EVENTS, json=body).json()["invalidation"] == "pending"
    servers.stop("postgres")
    servers.start("redis")
    wait_for(lambda: _source(client, "lead_5") == "cache")
    answer = _ask(client, "lead_5").json()
    assert answer["meta"]["lead_5"]["status"] == "stale"
    assert answer["degraded"] == answer["meta"]["lead_5"]["degraded"] == ["postgres", "redis"]
    servers.start("postgres")
    wait_for(lambda: _ask(client, "lead_5").json()["degraded"] == [])
    answer = _ask(client, "lead_5").json()
    assert answer["meta"]["lead_5"]["status"] == "present"
    assert answer["features"]["lead_5"]["event_count_total"] == before + 1


def test_cached_leads_are_marked_while_postgres_is_away(
    servers: Servers, client: httpx.Client
) -> None:
    assert _ask(client, "lead_0").json()["degraded"] == []
    servers.stop("postgres")
    answer = wait_for(lambda: (found := _ask(client, "lead_0").json())["degraded"] and found)
    assert answer["degraded"] == answer["meta"]["lead_0"]["degraded"] == ["postgres"]
    assert answer["meta"]["lead_0"]["source"] == "cache"
    servers.start("postgres")
    wait_for(lambda: _ask(client, "lead_0").json()["degraded"] == [])


def test_postgres_stopped_and_started_cached_leads_are_served_and_misses_recover(
    servers: Servers, client: httpx.Client
) -> None:
    assert _source(client, "lead_1") == "computed"
    servers.stop("postgres")
    assert _source(client, "lead_1") == "cache"
    response = _ask(client, "lead_1", "lead_2")
    statuses = {name: meta["status"] for name, meta in response.json()["meta"].items()}
    assert statuses == {"lead_1": "present", "lead_2": "unavailable"}
    response = _ask(client, "lead_2")
    assert response.status_code == 503
    message = response.json()["error"]["message"]
    assert message.startswith("no features now for lead_2: Redis does not have them and PostgreSQL")
    refused = client.post(EVENTS, json={"events": [event("no", "lead_1", utc_now())]})
    assert refused.status_code == 503
    assert client.get("/api/v1/ml/health").json()["status"] == "degraded"
    servers.start("postgres")
    wait_for(lambda: _source(client, "lead_2") == "computed")
    again = {"events": [event("no", "lead_1", utc_now())]}
    stored = wait_for(
        lambda: (answer := client.post(EVENTS, json=again)).status_code == 200 and answer.json()
    )
    assert stored["events"][0]["status"] == "stored"


def test_both_stopped_is_a_503_that_says_so_and_both_come_back(
    servers: Servers, client: httpx.Client
) -> None:
    servers.stop("redis")
    servers.stop("postgres")
    response = _ask(client, "lead_0")
    assert response.status_code == 503
    error = response.json()["error"]
    assert error["code"] == "features_unavailable"
    assert "Redis can't be reached and PostgreSQL did not answer" in error["message"]
    servers.start("redis")
    wait_for(lambda: _source(client, "lead_0") == "cache")
    servers.start("postgres")
    wait_for(lambda: _source(client, "lead_3") == "computed")


def test_a_frozen_postgres_holds_nobody_and_is_found_again(
    servers: Servers, client: httpx.Client
) -> None:
    """`statement_timeout` is the server's own: a server that is frozen keeps none."""
    assert _source(client, "lead_1") == "computed"
    # Connections that are open, each of which could hold a caller for ever.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda at: _ask(client, f"lead_{at}"), range(2, 6)))
    assert client.post(ENGINEER, json=OPENS, timeout=60).status_code == 200
    with servers.frozen("postgres"), ThreadPoolExecutor(10) as pool:
        missed = [
            pool.submit(client.post, BATCH, json={"entity_ids": [f"lead_{at}"]})
            for at in range(6, 14)
        ]
        posted = pool.submit(
            client.post, EVENTS, json={"events": [event("frozen", "lead_1", utc_now())]}
        )
        engineered = pool.submit(client.post, ENGINEER, json=OPENS)
        assert _source(client, "lead_1") == "cache"
        assert {future.result().status_code for future in missed} == {503}
        assert posted.result().status_code == 503
        assert engineered.result().json()["error"]["code"] == "postgres_unavailable"
    wait_for(lambda: _source(client, "lead_6") == "computed")


def test_a_frozen_redis_holds_nobody_and_is_found_again(
    servers: Servers, client: httpx.Client
) -> None:
    assert _source(client, "lead_1") == "computed"
    with servers.frozen("redis"):
        assert _source(client, "lead_1") == "computed"
    wait_for(lambda: _source(client, "lead_1") == "cache")
