"""What a training set shall hold: which features of whom, from where, and which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.labels import SqlLabel
from leadml_pipelines.features.request_features import RequestFeature
from leadml_pipelines.features.set_content import definition_hashes
from leadml_pipelines.features.view import Feature

Source = Literal["events", "snapshots"]


@dataclass(frozen=True)
class Recipe:
    """What a training set shall hold, whatever the rows.

    Attributes:
        features: In the order of the result.
        label: A column of the spine, SQL that answers one, or none.
        source: Where stored features come from.
        keys: Entity type -> column of its ids.
        time: Column of times.
        prefix: Put before the names of the features.
    """

    features: tuple[Feature | RequestFeature, ...]
    label: str | SqlLabel | None
    source: Source
    keys: Mapping[str, str]
    time: str
    prefix: str

    @property
    def stored(self) -> list[Feature]:
        """The features of the catalogue among them."""
        return [f for f in self.features if isinstance(f, Feature)]

    @property
    def requested(self) -> list[RequestFeature]:
        """The features from request data among them."""
        return [f for f in self.features if isinstance(f, RequestFeature)]

    @property
    def columns(self) -> list[str]:
        """Their columns in the result."""
        return [self.prefix + f.name for f in self.features]

    @property
    def label_column(self) -> str:
        """The label's column; empty if there is none."""
        return self.label.name if isinstance(self.label, SqlLabel) else self.label or ""

    def definition(self, spine: Sequence[str], catalogue: Catalogue) -> dict[str, Any]:
        """All that the set follows from but for the spine's content, JSON-ready.

        Args:
            spine: Columns of the spine.
            catalogue: Its views at this time are a part of it.
        """
        label = self.label.definition() if isinstance(self.label, SqlLabel) else self.label
        return {
            "features": [f.name for f in self.features],
            "label": label,
            "source": self.source,
            "keys": dict(self.keys),
            "time": self.time,
            "prefix": self.prefix,
            "spine": list(spine),
            "views": definition_hashes(
                catalogue.resolve(f.name for f in self.stored),
                catalogue,
                from_events=self.source == "events",
            ),
        }


def wanted_features(
    features: Sequence[str | RequestFeature],
    catalogue: Catalogue,
    request_features: Mapping[str, RequestFeature],
) -> tuple[Feature | RequestFeature, ...]:
    """The features that are asked for, in their order.

    Args:
        features: Names, or request features themselves.
        catalogue: Knows the stored ones.
        request_features: Those that can be asked for by name.

    Raises:
        UnknownFeatureError: features are unknown, or asked for twice.
        SpineError: a request feature has the name of a feature of the catalogue.
    """
    if isinstance(features, str):
        raise UnknownFeatureError("features is one text; give a list of names")
    names = [f if isinstance(f, str) else f.name for f in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnknownFeatureError(f"asked for twice: {', '.join(twice)}; once is enough")
    known = {*(f.name for e in catalogue.entities for f in catalogue.features(e))}
    for feature in (*request_features.values(), *features):
        if isinstance(feature, RequestFeature) and feature.name in known:
            raise SpineError(
                f"the request feature {feature.name} has the name of a feature of the "
                "catalogue; rename it"
            )
    # All unknown names in one error.
    catalogue.resolve(f for f in features if isinstance(f, str) and f not in request_features)
    return tuple(
        f if isinstance(f, RequestFeature) else request_features.get(f) or catalogue.feature(f)
        for f in features
    )


def key_columns(
    features: Sequence[Feature], keys: Mapping[str, str] | None, catalogue: Catalogue
) -> dict[str, str]:
    """Entity type -> column of its ids, for the types of some features.

    Args:
        features: Stored features.
        keys: As the caller named them; `entity_id` for the only type if None.
        catalogue: Knows whose the features are.

    Raises:
        SpineError: a type has no column, or it is not said which of several has which.
    """
    types = list(dict.fromkeys(catalogue.view_of(f.name).entity for f in features))
    if keys is None and len(types) > 1:
        shown = ", ".join(f"{t!r}: ..." for t in types)
        raise SpineError(
            "the features are of several entity types; say where the ids of each are: "
            f"keys={{{shown}}}"
        )
    found = {}
    for name in types:
        if keys is not None and name not in keys:
            raise SpineError(f"there are features of {name}, and keys names no column for it")
        found[name] = "entity_id" if keys is None else keys[name]
    return found
