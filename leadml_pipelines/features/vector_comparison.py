"""Served vectors beside computed rows, compared bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leadml_pipelines.features.served_vectors import ServedVectors
from leadml_pipelines.features.view import Feature, Value

if TYPE_CHECKING:
    import pandas as pd

MAX_EXACT = 2.0**53
"""Whole numbers beyond it are held back online: a float64 does not hold them exactly."""


@dataclass(frozen=True)
class Difference:
    """Two values of one feature that are not the same.

    Attributes:
        feature: Its name.
        served: What the caller got.
        offline: What the offline engine computes.
    """

    feature: str
    served: Value
    offline: Value


Differences = list[tuple[int, Difference]]
"""Places of vectors, and in what they differ."""


def compare(
    served: ServedVectors,
    features: Sequence[Feature],
    places: Iterable[int],
    offline: pd.DataFrame,
) -> Differences:
    """Compare served vectors with computed rows, bit for bit.

    A computed value that is out of its declared range, or can't be a float64, is held back when it
    is published: it counts as missing.

    Args:
        served: What was handed out.
        features: The features that were computed.
        places: Place of the vector that each computed row stands for.
        offline: A row for each place, in this order.

    Returns:
        Each difference with the place of its vector, by place.
    """
    at = list(places)
    found: Differences = []
    for feature in features:
        numbers = served.columns.get(feature.name)
        if numbers is None:
            continue
        words = served.words.get(feature.name)
        for place, computed in zip(at, _values(feature, offline[feature.name]), strict=True):
            handed_out = _served_value(feature, numbers[place], words)
            if not _same(handed_out, computed):
                found.append((place, Difference(feature.name, handed_out, computed)))
    return sorted(found, key=lambda pair: pair[0])


def _values(feature: Feature, column: pd.Series) -> Iterator[Value]:
    """A computed column as it would be published, None for missing."""
    for value, missing in zip(column.tolist(), column.isna(), strict=True):
        if missing:
            yield None
        elif feature.type in ("double", "integer"):
            number = float(value)
            whole = feature.type == "double" or abs(value) <= MAX_EXACT
            yield number if math.isfinite(number) and whole and feature.holds(number) else None
        else:
            yield bool(value) if feature.type == "boolean" else str(value)


def _served_value(feature: Feature, number: float, words: Sequence[str] | None) -> Value:
    """A number of a vector as a value of its feature; of no sense it stays a number."""
    if math.isnan(number):
        return None
    if words is not None and number in range(len(words)):
        return words[int(number)]
    if feature.type == "boolean" and number in (0.0, 1.0):
        return number == 1.0
    return number


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        # `hex` tells every bit apart, the sign of zero too.
        return one.hex() == other.hex()
    return type(one) is type(other) and one == other
