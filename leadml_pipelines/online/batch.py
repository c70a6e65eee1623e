"""What a read of many entities answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leadml_pipelines.online.format import Matrix, Micros, Rows, python_values, recode


@dataclass(frozen=True, slots=True)
class Batch:
    """Entities in the order asked for; those that share a schema are one group.

    Attributes:
        entity_ids: The ids asked for.
        groups: The values that are there, by schema.
    """

    entity_ids: tuple[str, ...]
    groups: tuple[Rows, ...]

    def missing(self) -> list[int]:
        """Positions of the entities that are in no group."""
        found = np.zeros(len(self.entity_ids), bool)
        for group in self.groups:
            found[group.positions] = True
        return np.flatnonzero(~found).tolist()

    def as_of(self) -> Micros:
        """Moment that each entity's values describe, int64[n]; 0 for a missing entity."""
        moments = np.zeros(len(self.entity_ids), np.int64)
        for group in self.groups:
            moments[group.positions] = group.as_of
        return moments

    def matrix(
        self, names: Sequence[str], vocabularies: Mapping[str, Sequence[str]] | None = None
    ) -> Matrix:
        """Some features of every entity, float64[n, len(names)], NaN for what is not there.

        Args:
            names: Features, in the order of the columns.
            vocabularies: Words that the codes of categories shall be of, by feature; a category
                that is not named keeps the codes of its schema.

        Raises:
            KeyError: a schema has no such feature.
        """
        wanted = vocabularies or {}
        result = np.full((len(self.entity_ids), len(names)), np.nan)
        for group in self.groups:
            at = [group.schema.positions[name] for name in names]
            values = group.values[:, at]
            for column, (place, name) in enumerate(zip(at, names, strict=True)):
                if name in wanted:
                    words = group.schema.fields[place].vocabulary
                    values[:, column] = recode(values[:, column], words, wanted[name])
            result[group.positions] = values
        return result

    def python_rows(self, names: Sequence[str] | None = None) -> list[dict[str, Any] | None]:
        """Features of every entity as Python values by name; None for a missing entity.

        Args:
            names: Features to give; all of the entity's schema if None. One that an entity's
                schema does not have (it is younger than the value) is None there.
        """
        result: list[dict[str, Any] | None] = [None] * len(self.entity_ids)
        for group in self.groups:
            chosen = group.schema.names if names is None else tuple(names)
            columns = [_column(group, name) for name in chosen]
            rows = zip(*columns, strict=True) if columns else ((),) * len(group.positions)
            for position, row in zip(group.positions.tolist(), rows, strict=True):
                result[position] = dict(zip(chosen, row, strict=True))
        return result


def _column(group: Rows, name: str) -> list[Any]:
    at = group.schema.positions.get(name)
    if at is None:
        return [None] * len(group.positions)
    return python_values(group.schema.fields[at], group.values[:, at])
