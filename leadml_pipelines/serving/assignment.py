"""Which of two versions of a model answers for an entity: by lot, and always the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_BITS = 53
"""As many as a float64 holds exactly: no place rounds up to 1."""


def place(name: str, experiment: str, entity_id: str) -> float:
    """An entity's place in [0, 1), the same in every process and on every machine.

    Each experiment draws anew, so that nobody is the one who tries everything out.

    Args:
        name: Name of the model.
        experiment: What tells the experiment from others: the challenger's model id.
        entity_id: The entity.
    """
    key = f"{name}\0{experiment}\0{entity_id}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _BITS)) / 2**_BITS


def challenged(name: str, experiment: str, ids: Sequence[str], share: float) -> list[bool]:
    """Whether the challenger answers for each entity.

    A greater share keeps everyone that a smaller one gave to the challenger.

    Args:
        name: Name of the model.
        experiment: The challenger's model id.
        ids: The entities.
        share: The challenger's share of them, 0 to 1.
    """
    return [place(name, experiment, entity_id) < share for entity_id in ids]
