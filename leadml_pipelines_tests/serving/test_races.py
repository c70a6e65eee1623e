"""Writers and readers at the same time, on two app hosts: what was answered is never taken back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.serving.offline import event, load_leads

LEADS = ("lead_0", "lead_1", "lead_2")
ROUNDS = 40
COUNT = ["event_count_total"]


@pytest.fixture
def hosts(redis_url: str, postgres_url: str, home: Path) -> Iterator[list[OnlineFeatures]]:
    """Two processes' worth of online features over the same servers."""
    load_leads(postgres_url)
    settings = Settings(home=home, redis_url=redis_url, postgres_url=postgres_url)
    with ExitStack() as stack:
        online = [stack.enter_context(OnlineFeatures(settings)) for _ in range(2)]
        for host in online:
            host.prepare()
        yield online


def _total(host: OnlineFeatures, lead_id: str) -> int:
    (lead,) = host.get("lead", [lead_id], COUNT)
    assert lead.features is not None
    return int(lead.features["event_count_total"])


def test_a_read_after_a_post_sees_it_and_no_reader_goes_back_in_time(
    hosts: list[OnlineFeatures],
) -> None:
    """A writer per lead posts and reads; others read, drop keys, and write old values again."""
    done = threading.Event()
    wrong: list[str] = []
    store = hosts[0].store

    def write(lead_id: str) -> int:
        chance = random.Random(lead_id)  # noqa: S311
        known = _total(hosts[0], lead_id)
        for number in range(ROUNDS):
            posted = event(f"race-{lead_id}-{number}", lead_id, utc_now())
            (receipt,) = chance.choice(hosts).post([posted])
            assert receipt.events[0].status == "stored"
            known += 1
            seen = _total(chance.choice(hosts), lead_id)
            if seen != known:
                wrong.append(f"{lead_id}: {known} events were posted, and a read saw {seen}")
        return known

    def read(host: OnlineFeatures, seed: int) -> int:
        chance = random.Random(seed)  # noqa: S311
        newest = dict.fromkeys(LEADS, 0)
        reads = 0
        while not done.is_set():
            lead_id = chance.choice(LEADS)
            seen = _total(host, lead_id)
            if seen < newest[lead_id]:
                wrong.append(f"{lead_id}: {newest[lead_id]} events, and then {seen}")
            newest[lead_id] = seen
            reads += 1
        return reads

    def write_old_values() -> int:
        """A slow writer: what it read a while ago, it writes now."""
        chance = random.Random(5)  # noqa: S311
        kept: list[tuple[str, bytes]] = []
        writes = 0
        while not done.is_set():
            lead_id = chance.choice(LEADS)
            payload = store._redis.get(f"leadml:lead:{lead_id}")
            if payload is not None:
                kept.append((lead_id, payload))
            old_id, old = chance.choice(kept) if kept else (lead_id, payload)
            if old is not None:
                store.write_batch("lead", [old_id], [old])
                writes += 1
        return writes

    with ThreadPoolExecutor(8) as pool:
        others: list[Callable[[], int]] = [
            lambda: read(hosts[0], 1),
            lambda: read(hosts[1], 2),
            write_old_values,
        ]
        running = [pool.submit(other) for other in others]
        writers = [pool.submit(write, lead_id) for lead_id in LEADS]
        try:
            totals = [writer.result() for writer in writers]
        finally:
            done.set()
        assert all(future.result() > ROUNDS for future in running)
    assert wrong == []
    assert [_total(hosts[1], lead_id) for lead_id in LEADS] == totals
