"""Names of keys in Redis, and which names are allowed in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

MODEL_CHANNEL = "leadml:model"
"""Channel that carries a message at every change of a model pointer."""
MODEL_NAMES = "leadml:models"
"""Set of the `name:role` of every model pointer, so that nobody has to scan the keys."""
PREDICTIONS = "leadml:predictions"
"""Stream of the predictions that are not in PostgreSQL yet."""
PREDICTIONS_WAITING = "leadml:predictions:waiting"
"""How many predictions that stream holds."""
PREDICTIONS_GROUP = "postgres"
"""Consumer group of that stream: who carries them there."""
MAX_ID_LENGTH = 256
"""Longest entity id, in characters."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED = frozenset({"model", "models", "predictions", "schema", "snapshot"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class EntityIdError(ValueError):
    """An entity id that can be no key. The message names it."""


class EntityTypeError(ValueError):
    """An entity type that can be no part of a key. The message names it."""


def entity_prefix(entity_type: str) -> str:
    """What the keys of an entity type begin with: `leadml:{entity_type}:`.

    Raises:
        EntityTypeError: the type is not lower-case letters, digits and `_`, or is reserved.
    """
    if not _NAME.fullmatch(entity_type) or entity_type in _RESERVED:
        raise EntityTypeError(
            f"{entity_type!r} is no entity type; use lower-case letters, digits and _, "
            f"and none of {', '.join(sorted(_RESERVED))}"
        )
    return f"leadml:{entity_type}:"


def entity_keys(entity_type: str, ids: Sequence[str]) -> list[str]:
    """The keys of entities: `leadml:{entity_type}:{entity_id}`, the id as it is, in UTF-8.

    An id may hold any characters, colons and spaces too, except control characters.

    Raises:
        EntityTypeError: the type is not allowed.
        EntityIdError: an id is empty, too long, or holds a control character.
    """
    prefix = entity_prefix(entity_type)
    if ids and (
        not all(ids) or max(map(len, ids)) > MAX_ID_LENGTH or _CONTROL.search("".join(ids))
    ):
        raise EntityIdError(_why_not(entity_type, ids))
    return [prefix + entity_id for entity_id in ids]


def is_allowed_id(entity_id: object) -> bool:
    """Whether an entity id can be part of a key."""
    return (
        isinstance(entity_id, str)
        and 0 < len(entity_id) <= MAX_ID_LENGTH
        and not _CONTROL.search(entity_id)
    )


def schema_key(entity_type: str, schema_id: int) -> str:
    """Key of a schema document."""
    entity_prefix(entity_type)
    return f"leadml:schema:{entity_type}:{schema_id}"


def current_schema_key(entity_type: str) -> str:
    """Key of the id of the schema that is written now."""
    entity_prefix(entity_type)
    return f"leadml:schema:{entity_type}:current"


def snapshot_key(entity_type: str) -> str:
    """Key of the pointer to the newest snapshot that is online as a whole."""
    entity_prefix(entity_type)
    return f"leadml:snapshot:{entity_type}"


def is_model_name(text: str) -> bool:
    """Whether a model can have this name: lower-case letters, digits and `_`."""
    return _NAME.fullmatch(text) is not None


def model_key(name: str, role: str) -> str:
    """Key of a model pointer.

    Raises:
        ValueError: the name or the role is not lower-case letters, digits and `_`.
    """
    for what, text in (("model name", name), ("model role", role)):
        if not is_model_name(text):
            raise ValueError(f"{text!r} is no {what}; use lower-case letters, digits and _")
    return f"leadml:model:{name}:{role}"


def _why_not(entity_type: str, ids: Sequence[str]) -> str:
    for position, entity_id in enumerate(ids):
        where = f"{entity_type} id number {position + 1}"
        if not entity_id:
            return f"{where} is empty"
        if len(entity_id) > MAX_ID_LENGTH:
            return (
                f"{where} ({entity_id[:32]!r}...) has {len(entity_id)} characters; "
                f"{MAX_ID_LENGTH} is the limit"
            )
        if _CONTROL.search(entity_id):
            return f"{where} ({entity_id!r}) holds a control character"
    return f"a {entity_type} id is not allowed"
