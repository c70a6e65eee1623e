"""The catalogue as entries: all that there is to know of one feature, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError, catalogue
from leadml_pipelines.features.view import (
    Dimension,
    Feature,
    FeatureType,
    FeatureView,
    Value,
)

if TYPE_CHECKING:
    from leadml_pipelines.features.lineage import Lineage


@dataclass(frozen=True)
class Entry:
    """A feature with what its view says for it.

    Attributes:
        name: Unique in the catalogue.
        entity: Entity type that it describes.
        view: Name of its view.
        type: `double`, `integer`, `boolean` or `category`.
        unit: What a number counts; empty for categories.
        low: The least value; None when there is no bound.
        high: The greatest value; None when there is no bound.
        default: The value of an entity about which nothing is known; None means missing.
        description: What the value means.
        dimension: Its dimension of the lead score.
        owner: Who answers for it.
        freshness: Freshness target: older values are stale.
        ttl: Older stored values count as missing; None for no limit.
    """

    name: str
    entity: str
    view: str
    type: FeatureType
    unit: str
    low: float | None
    high: float | None
    default: Value
    description: str
    dimension: Dimension
    owner: str
    freshness: timedelta
    ttl: timedelta | None

    @property
    def range(self) -> str:
        """The range for people, as in `0 to 100`; empty when there is none."""
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"{self.low:.10g} or more"
        if self.low is None:
            return f"{self.high:.10g} or less"
        return f"{self.low:.10g} to {self.high:.10g}"


def entry(name: str, among: Catalogue | None = None) -> Entry:
    """The entry of a feature.

    Raises:
        UnknownFeatureError: there is none; the sentence offers near matches.
    """
    found = catalogue() if among is None else among
    return _entry(found.view_of(name), found.feature(name))


def entries(
    among: Catalogue | None = None,
    *,
    entity: str | None = None,
    view: str | None = None,
    dimension: str | None = None,
) -> list[Entry]:
    """The entries of a catalogue, in its order.

    Args:
        among: Which catalogue; the built-in one by default.
        entity: Only those of this entity type.
        view: Only those of this view.
        dimension: Only those of this dimension.

    Raises:
        UnknownFeatureError: there is no such entity type, view or dimension; the sentence offers
            near matches.
    """
    found = catalogue() if among is None else among
    if entity is not None:
        _require("entity type", entity, found.entities)
    if view is not None:
        found.view(view)
    if dimension is not None:
        _require("dimension", dimension, get_args(Dimension))
    return [
        _entry(one, feature)
        for type_ in found.entities
        if entity in (None, type_)
        for one in found.views(type_)
        if view in (None, one.name)
        for feature in one.features
        if dimension in (None, feature.dimension)
    ]


def record(entry: Entry, lineage: Lineage | None = None) -> dict[str, Any]:
    """An entry as plain values, for JSON; with its lineage if that is given."""
    plain = {
        "name": entry.name,
        "entity_type": entry.entity,
        "view": entry.view,
        "type": entry.type,
        "unit": entry.unit,
        "low": entry.low,
        "high": entry.high,
        "default": entry.default,
        "description": entry.description,
        "dimension": entry.dimension,
        "owner": entry.owner,
        "freshness_seconds": entry.freshness.total_seconds(),
        "ttl_seconds": None if entry.ttl is None else entry.ttl.total_seconds(),
    }
    if lineage is None:
        return plain
    return {
        **plain,
        "lineage": {
            "values": [str(column) for column in lineage.values],
            "conditions": [str(column) for column in lineage.conditions],
            "features": list(lineage.features),
        },
    }


def _entry(view: FeatureView, feature: Feature) -> Entry:
    return Entry(
        name=feature.name,
        entity=view.entity,
        view=view.name,
        type=feature.type,
        unit=feature.unit,
        low=feature.low,
        high=feature.high,
        default=feature.default,
        description=feature.description,
        dimension=feature.dimension,
        owner=feature.owner or view.owner,
        freshness=view.freshness,
        ttl=view.ttl,
    )


def _require(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names)}"
        raise UnknownFeatureError(f"there is no {what} named {name}; {hint}")
