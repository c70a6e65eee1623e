"""The entity types: whom features describe, and which of them exist at a moment."""

from __future__ import annotations

from dataclasses import dataclass


class UnknownEntityTypeError(ValueError):
    """An entity type that has no source table."""


@dataclass(frozen=True)
class EntityType:
    """A kind of thing that features describe.

    Attributes:
        name: As in keys and requests.
        table: Source table that has one row for each.
        key: Its key column there.
        since: Column that tells since when it exists; where it is null, it always did.
    """

    name: str
    table: str
    key: str
    since: str

    def exists(self, alias: str, as_of: str) -> str:
        """SQL, the same for every engine: whether a row of the table exists at a moment.

        Args:
            alias: What the table is called in the statement.
            as_of: An expression for the moment.
        """
        return f"COALESCE({alias}.{self.since} <= {as_of}, TRUE)"


ENTITY_TYPES: dict[str, EntityType] = {
    entity.name: entity
    for entity in (
        EntityType("lead", "leads", "lead_id", "created_at"),
        EntityType("agent", "agents", "agent_id", "hired_at"),
    )
}
"""Every entity type by name."""


def entity_type(name: str) -> EntityType:
    """An entity type by name.

    Raises:
        UnknownEntityTypeError: there is none.
    """
    if name not in ENTITY_TYPES:
        raise UnknownEntityTypeError(
            f"there is no entity type {name}; use one of {', '.join(ENTITY_TYPES)}"
        )
    return ENTITY_TYPES[name]
