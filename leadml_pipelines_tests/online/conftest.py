from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """The same Redis without our code."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
