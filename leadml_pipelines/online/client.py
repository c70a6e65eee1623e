"""How Redis is asked: with an end to waiting, and once more only where a connection was closed."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def redis_client(
    url: str, timeout_seconds: float, max_connections: int | None = None
) -> redis.Redis:
    """A client of Redis, safe to share between threads; nothing is opened yet.

    Args:
        url: `redis://...` or `rediss://...`.
        timeout_seconds: How long one answer of Redis may take.
        max_connections: Size of the pool; that of redis-py if None.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        max_connections=max_connections,
        # A connection that was closed is opened again; what takes too long is not asked twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
