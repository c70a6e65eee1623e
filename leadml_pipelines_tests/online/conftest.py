from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from leadml_pipelines.online.store import OnlineStore


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    """The online store on an emptied Redis."""
    store = OnlineStore(redis_url)
    yield store
    store.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """The same Redis without our code."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
