"""From a frame of features to the numbers that may go online; what may not is held back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
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
    words = {
        feature.name: {word for word in frame[feature.name].unique() if isinstance(word, str)}
        for feature in features
        if feature.type == "category"
    }
    return schema_of_words(entity_type, features, words, previous)


def schema_for_rows(
    entity_type: str,
    features: Sequence[FeatureLike],
    rows: Sequence[Sequence[Any]],
    previous: Schema | None = None,
) -> Schema:
    """As `schema_for`, of plain rows in the order of the features.

    Returns:
        The previous schema itself where it has these features and every word of the rows.
    """
    places = [at for at, feature in enumerate(features) if feature.type == "category"]
    words = {
        features[at].name: {row[at] for row in rows if isinstance(row[at], str)} for at in places
    }
    if previous is not None and len(previous.fields) == len(features):
        fields = previous.fields
        same = all(
            field.name == feature.name and field.type == feature.type
            for field, feature in zip(fields, features, strict=True)
        )
        if same and all(words[fields[at].name].issubset(fields[at].vocabulary) for at in places):
            return previous
    return schema_of_words(entity_type, features, words, previous)


def schema_of_words(
    entity_type: str,
    features: Sequence[FeatureLike],
    seen: Mapping[str, Set[str]],
    previous: Schema | None = None,
) -> Schema:
    """As `schema_for`, of the words of each category."""
    before = {} if previous is None else {field.name: field for field in previous.fields}
    fields = []
    for feature in features:
        words: tuple[str, ...] = ()
        if feature.type == "category":
            known = before[feature.name].vocabulary if feature.name in before else ()
            words = (*known, *sorted(seen.get(feature.name, frozenset()) - set(known)))
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


def check_rows(
    schema: Schema, features: Sequence[FeatureLike], rows: Sequence[Sequence[Any]]
) -> Checked:
    """As `check`, of plain rows as a driver gives them, without pandas.

    Args:
        schema: What the columns shall be.
        features: The same features, in the same order, with their ranges.
        rows: Python values in that order, None where missing.
    """
    plan = [
        (field.type, feature.low, feature.high, schema.codes[at], feature.name)
        for at, (field, feature) in enumerate(zip(schema.fields, features, strict=True))
    ]
    held_back: Counter[tuple[str, str]] = Counter()
    numbers: list[list[float]] = []
    for row in rows:
        line: list[float] = []
        for value, (kind, low, high, codes, name) in zip(row, plan, strict=True):
            number, reason = _checked(value, kind, low, high, codes)
            line.append(number)
            if reason:
                held_back[name, reason] += 1
        numbers.append(line)
    values = np.array(numbers, np.float64).reshape(len(rows), len(plan))
    return Checked(values, held_back)


def _checked(
    value: Any, kind: FieldType, low: float | None, high: float | None, codes: Mapping[str, float]
) -> tuple[float, str]:
    """One value as a number, NaN where missing or held back, and why it was held back."""
    # A float that is no number is missing, of whatever type the feature is, as in a frame.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return math.nan, ""
    if kind == "category":
        code = codes.get(value) if isinstance(value, str) else None
        return (math.nan, WRONG_TYPE) if code is None else (code, "")
    number = _number(kind, value)
    if number is None:
        return math.nan, WRONG_TYPE
    if (
        number in (math.inf, -math.inf)
        or (low is not None and number < low)
        or (high is not None and number > high)
    ):
        whole = kind != "integer" or math.isinf(number) or _is_whole(number)
        return math.nan, OUT_OF_RANGE if whole else WRONG_TYPE
    if kind == "integer" and not _is_whole(number):
        return math.nan, WRONG_TYPE
    return number, ""


def _is_whole(number: float) -> bool:
    return number.is_integer() and abs(number) <= MAX_EXACT


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
    try:
        return float(value)
    except OverflowError:
        return math.inf
