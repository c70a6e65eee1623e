"""Bringing the pointers in Redis in step with the registry: who answers, and for which share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from leadml_pipelines.online.model_pointers import ModelPointers

CHAMPION, CHALLENGER, PREVIOUS = ROLES = ("champion", "challenger", "previous")
"""Aliases that may answer requests, and so have pointers: the previous version, when an app that
starts can't load the champion."""


class Record(Protocol):
    """What has to be known of a registered model to point to it."""

    @property
    def name(self) -> str:
        """Name of the model, such as `churn`."""

    def pointer(self) -> Mapping[str, Any]:
        """What serving has to know, JSON-ready; `docs/redis-format.md` lists it."""


class Held(Protocol):
    """What an alias points to."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def alias(self) -> str:
        """champion, challenger or previous."""

    @property
    def model_id(self) -> str:
        """The version."""

    @property
    def traffic_share(self) -> float:
        """Share of the entities that a challenger answers for."""


class Registry(Protocol):
    """Who knows what the aliases point to."""

    def publication(
        self, names: Collection[str] | None = None
    ) -> AbstractContextManager[Sequence[tuple[Held, Record]]]:
        """What every alias points to, and that model, while nobody else publishes."""


def pointer_of(record: Record, role: str, traffic_share: float) -> dict[str, Any]:
    """The pointer to a registered version, as it is in Redis.

    Args:
        record: The version.
        role: `champion`, `challenger` or `previous`.
        traffic_share: Share of the entities that a challenger answers for; 1 of the others.
    """
    return {**record.pointer(), "role": role, "traffic_share": traffic_share}


def publish_model(
    pointers: ModelPointers, record: Record, role: str = CHAMPION, traffic_share: float = 1.0
) -> bool:
    """Point a role of a model to a registered version and tell every serving process.

    Args:
        pointers: Those in Redis.
        record: The version, from the registry.
        role: `champion`, `challenger` or `previous`.
        traffic_share: Share of the entities that a challenger answers for; 1 of the champion, who
            answers for all others, and of the previous version.

    Returns:
        False if the pointer is that already, and nobody was told.
    """
    pointer = pointer_of(record, role, traffic_share)
    if pointers.get(record.name, role) == pointer:
        return False
    pointers.set(record.name, role, pointer)
    return True


def publish_roles(
    pointers: ModelPointers, registry: Registry, names: Collection[str] | None = None
) -> dict[str, str | None]:
    """Point every role to what the registry says, and withdraw what it has no more.

    Several may do it at once: what is published last is what the registry says then. A champion's
    pointer is never withdrawn.

    Args:
        pointers: Those in Redis.
        registry: Says who answers.
        names: Names of the models; all of them if None.

    Returns:
        Id by `name:role` of every pointer that is in Redis now; None of one that was withdrawn.

    Raises:
        redis.RedisError: Redis can't be reached; nothing is lost, do it again later.
    """
    now: dict[str, str | None] = {}
    with registry.publication(names) as every:
        for held, record in every:
            if held.alias in ROLES:
                publish_model(pointers, record, held.alias, held.traffic_share)
                now[f"{held.name}:{held.alias}"] = held.model_id
        for name, role in _left_over(pointers, [held for held, _ in every], names):
            pointers.delete(name, role)
            now[f"{name}:{role}"] = None
    return now


def is_in_step(
    pointers: ModelPointers,
    every: Sequence[tuple[Held, Record]],
    names: Collection[str] | None = None,
) -> bool:
    """Whether Redis points to what the registry says, with every word of each pointer.

    Args:
        pointers: Those in Redis.
        every: What every alias points to, and that model.
        names: Names of the models; all of them if None.
    """
    for held, record in every:
        if held.alias in ROLES and _named(held.name, names):
            wanted = pointer_of(record, held.alias, held.traffic_share)
            if pointers.get(held.name, held.alias) != wanted:
                return False
    return not _left_over(pointers, [held for held, _ in every], names)


def _left_over(
    pointers: ModelPointers, held: Sequence[Held], names: Collection[str] | None
) -> list[tuple[str, str]]:
    """Name and role of what Redis still points to, though the registry has no such alias."""
    known = {(one.name, one.alias) for one in held}
    return [
        (name, role)
        for role in (CHALLENGER, PREVIOUS)
        for name in pointers.names(role)
        if (name, role) not in known and _named(name, names)
    ]


def _named(name: str, names: Collection[str] | None) -> bool:
    return names is None or name in names
