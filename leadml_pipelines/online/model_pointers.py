"""Pointers in Redis to the models that answer, and the channel on which their changes are told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from leadml_pipelines.closing import Closing
from leadml_pipelines.online import keys
from leadml_pipelines.online.client import redis_client

log = structlog.get_logger(__name__)


class ModelPointers(Closing):
    """Which version of a model has which role. Safe to share between threads.

    Args:
        url: `redis://...` or `rediss://...`.
        timeout_seconds: How long one answer of Redis may take.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0) -> None:
        self._redis = redis_client(url, timeout_seconds)
        self._misunderstood: dict[tuple[str, str], bytes] = {}

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()

    def set(self, name: str, role: str, pointer: Mapping[str, Any]) -> None:
        """Point a model's role (`champion`, `challenger`) to a model and tell every listener.

        Args:
            name: Name of the model, such as `churn`.
            role: Its part in production.
            pointer: JSON-ready; `docs/redis-format.md` lists what it holds.
        """
        key = keys.model_key(name, role)
        message = {"name": name, "role": role, "model_id": pointer.get("model_id")}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(key, json.dumps(pointer, allow_nan=False))
            pipe.sadd(keys.MODEL_NAMES, f"{name}:{role}")
            pipe.publish(keys.MODEL_CHANNEL, json.dumps(message))
            pipe.execute()

    def delete(self, name: str, role: str) -> None:
        """Let a model's role point nowhere and tell every listener."""
        message = {"name": name, "role": role, "model_id": None}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(keys.model_key(name, role))
            pipe.srem(keys.MODEL_NAMES, f"{name}:{role}")
            pipe.publish(keys.MODEL_CHANNEL, json.dumps(message))
            pipe.execute()

    def get(self, name: str, role: str) -> dict[str, Any] | None:
        """What a model's role points to; None if it points nowhere, or nobody understands it."""
        text: Any = self._redis.get(keys.model_key(name, role))
        return None if text is None else _document(text)

    def names(self, role: str) -> list[str]:
        """Names of the models that have this role, be it that nobody understands the pointer."""
        members: Any = self._redis.smembers(keys.MODEL_NAMES)
        pairs = (member.decode(errors="replace").rpartition(":") for member in members)
        return sorted(
            name
            for name, _, member_role in pairs
            if member_role == role and keys.is_model_name(name)
        )

    def of_role(self, role: str) -> dict[str, dict[str, Any]]:
        """Every model that has this role: name to pointer.

        A pointer that nobody understands is left out, with a warning: it must not keep all others
        from being followed. Publishing overwrites it.
        """
        names = self.names(role)
        if not names:
            return {}
        texts: Any = self._redis.mget([keys.model_key(name, role) for name in names])
        found: dict[str, dict[str, Any]] = {}
        for name, text in zip(names, texts, strict=True):
            pointer = None if text is None else _document(text)
            if pointer is not None:
                found[name] = pointer
            elif text is not None and self._misunderstood.get((name, role)) != text:
                # Once: the pointers are read every few seconds.
                self._misunderstood[name, role] = text
                log.warning("model_pointer_not_understood", model=name, role=role)
        return found

    def changes(self, timeout_seconds: float) -> Iterator[bool]:
        """Listen for changes of the pointers: True for one, False after each quiet timeout.

        The first item comes only after the subscription stands, so that who reads the pointers
        after it misses nothing.

        Raises:
            redis.RedisError: the connection was lost; call again.
        """
        with self._redis.pubsub(ignore_subscribe_messages=False) as listener:
            listener.subscribe(keys.MODEL_CHANNEL)
            while True:
                yield listener.get_message(timeout=timeout_seconds) is not None


def _document(text: bytes) -> dict[str, Any] | None:
    """A pointer's document; None if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
