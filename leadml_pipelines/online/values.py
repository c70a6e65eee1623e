"""From a frame of features to the numbers that may go online; what may not is held back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leadml_pipelines.online.format import Field, FieldType, Matrix, Schema

if TYPE_CHECKING:
    import pandas as pd

MAX_EXACT = 2**53
"""Greatest whole number up to which every whole number is exact in a float64."""

OUT_OF_RANGE = "out of range"
WRONG_TYPE = "wrong type"


class FeatureLike(Protocol):
    """What has to be known of a feature of the catalogue to put it online."""

    @property
    def name(self) -> str:
        """Name, unique for the entity."""

    @property
    def type(self) -> FieldType:
        """What its values are."""

    @property
    def unit(self) -> str | None:
        """Unit of a number."""

    @property
    def low(self) -> float | None:
        """Least value that is possible; None for no limit."""

    @property
    def high(self) -> float | None:
        """Greatest value that is possible; None for no limit."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Numbers fit for the online store.

    Attributes:
        values: float64[n, features] in schema order; NaN where missing or held back.
        held_back: How many values were, by (feature, reason).
    """

    values: Matrix
    held_back: Counter[tuple[str, str]]


def schema_for(
    entity_type: str,
    features: Sequence[FeatureLike],
    frame: pd.DataFrame,
    previous: Schema | None = None,
) -> Schema:
    """The schema of features, with a word for every category value of a frame.

    Words of the previous schema keep their codes and new ones follow in alphabetical order, so that
    a frame without new words has the same schema, and a code never changes its meaning.

    Args:
        entity_type: Such as `lead`.
        features: Features of the catalogue, in the order they shall have.
        frame: Has a column for each.
        previous: Schema whose vocabularies are continued.

    Raises:
        ValueError: the frame lacks a feature.
    """
    absent = [feature.name for feature in features if feature.name not in frame]
    if absent:
        raise ValueError(
            f"the frame lacks {len(absent)} of the {entity_type} features: {', '.join(absent[:5])}"
        )
    before = {} if previous is None else {field.name: field for field in previous.fields}
    fields = []
    for feature in features:
        words: tuple[str, ...] = ()
        if feature.type == "category":
            known = before[feature.name].vocabulary if feature.name in before else ()
            seen = {word for word in frame[feature.name].unique() if isinstance(word, str)}
            words = (*known, *sorted(seen.difference(known)))
        owner = str(getattr(feature, "owner", None) or "")
        fields.append(Field(feature.name, feature.type, feature.unit or "", words, owner))
    return Schema(entity_type, tuple(fields))


def check(schema: Schema, features: Iterable[FeatureLike], frame: pd.DataFrame) -> Checked:
    """The numbers of a frame; a value of the wrong type or out of range becomes missing.

    Args:
        schema: What the columns shall be.
        features: The same features, with their ranges.
        frame: Has a column for each.
    """
    limits = {feature.name: (feature.low, feature.high) for feature in features}
    values = np.empty((len(frame), len(schema.fields)))
    held_back: Counter[tuple[str, str]] = Counter()
    for at, field in enumerate(schema.fields):
        column, wrong = _numbers(field, frame[field.name])
        outside = _outside(column, *limits[field.name])
        column[outside] = np.nan
        values[:, at] = column
        for reason, count in ((WRONG_TYPE, wrong), (OUT_OF_RANGE, int(outside.sum()))):
            if count:
                held_back[field.name, reason] += count
    return Checked(values, held_back)


def _outside(column: Matrix, low: float | None, high: float | None) -> npt.NDArray[np.bool_]:
    outside = np.isinf(column)
    if low is not None:
        outside |= column < low
    if high is not None:
        outside |= column > high
    return outside


def _numbers(field: Field, column: pd.Series) -> tuple[Matrix, int]:
    """A column as float64[n] and how many of its values have another type than the field."""
    import pandas as pd
    from pandas.api import types

    if field.type == "category":
        words = pd.Index(field.vocabulary, dtype=object)
        codes = words.get_indexer(pd.Index(column.astype(object))).astype(np.float64)
        missing = codes < 0
        codes[missing] = np.nan
        return codes, int((missing & column.notna().to_numpy()).sum())
    if not types.is_bool_dtype(column.dtype) and not types.is_numeric_dtype(column.dtype):
        return _whole(field, *_from_objects(field.type, column))
    if types.is_bool_dtype(column.dtype) != (field.type == "boolean"):
        return np.full(len(column), np.nan), int(column.notna().sum())
    return _whole(field, column.to_numpy(np.float64, na_value=np.nan).copy(), 0)


def _from_objects(kind: FieldType, column: pd.Series) -> tuple[Matrix, int]:
    """A column of Python values, each looked at: a driver gives nullable booleans like this."""
    numbers = np.full(len(column), np.nan)
    objects = column.astype(object).to_numpy()
    wrong = 0
    for at in np.flatnonzero(column.notna().to_numpy()).tolist():
        number = _number(kind, objects[at])
        if number is None:
            wrong += 1
        else:
            numbers[at] = number
    return numbers, wrong


def _whole(field: Field, numbers: Matrix, wrong: int) -> tuple[Matrix, int]:
    """Hold back what is no whole number, or too large to be exact, of an integer feature."""
    if field.type == "integer":
        with np.errstate(invalid="ignore"):
            broken = np.isfinite(numbers) & (
                (numbers != np.trunc(numbers)) | (np.abs(numbers) > MAX_EXACT)
            )
        numbers[broken] = np.nan
        wrong += int(broken.sum())
    return numbers, wrong


def _number(kind: FieldType, value: Any) -> float | None:
    """One Python value as a float; None if it has another type."""
    is_bool = isinstance(value, bool | np.bool_)
    if kind == "boolean":
        return float(value) if is_bool else None
    if is_bool or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value)
