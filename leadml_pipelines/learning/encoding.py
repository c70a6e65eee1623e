"""From feature columns to the numbers that a model reads, and back to words for explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]

CATEGORY = "category"
_GREATEST = float(np.finfo(np.float32).max)


class FeatureLike(Protocol):
    """What the learning room needs to know of a feature."""

    @property
    def name(self) -> str:
        """Name of the column."""
        ...

    @property
    def type(self) -> str:
        """`double`, `integer`, `boolean` or `category`."""
        ...


@dataclass(frozen=True)
class Column:
    """A feature column of a training set.

    Attributes:
        name: Name of the feature.
        type: `double`, `integer`, `boolean` or `category`.
        dimension: `fit`, `engagement`, `intent`, `value`, `urgency` or `relationship`; empty where
            nobody said.
    """

    name: str
    type: str
    dimension: str = ""


@dataclass(frozen=True)
class Encoder:
    """How columns become a matrix. A word that training never saw is missing, like no word.

    Attributes:
        columns: The features, in the order of the matrix.
        vocabularies: Words of each category; the code of a word is its place.
    """

    columns: tuple[Column, ...]
    vocabularies: Mapping[str, tuple[str, ...]]

    @classmethod
    def fit(cls, features: Iterable[FeatureLike], frame: pd.DataFrame) -> Encoder:
        """Take the vocabularies from the rows of `frame`: the training rows, and no others."""
        columns = tuple(Column(feature.name, feature.type) for feature in features)
        vocabularies = {
            column.name: tuple(sorted({str(word) for word in frame[column.name].dropna()}))
            for column in columns
            if column.type == CATEGORY
        }
        return cls(columns, vocabularies)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def xgboost_types(self) -> list[str]:
        """`c` for a category and `q` for a number, as XGBoost spells it."""
        return ["c" if column.type == CATEGORY else "q" for column in self.columns]

    def encode(self, frame: pd.DataFrame) -> Matrix:
        """The matrix of a frame: float64[n, features]; missing and infinite are NaN.

        Raises:
            KeyError: the frame lacks a feature; the message names it.
        """
        values = np.empty((len(frame), len(self.columns)))
        for at, column in enumerate(self.columns):
            if column.name not in frame:
                raise KeyError(f"the frame has no column for the feature {column.name}")
            values[:, at] = self._numbers(column, frame[column.name])
        return within_float32(values)

    def _numbers(self, column: Column, values: pd.Series) -> Matrix:
        import pandas as pd

        if column.type != CATEGORY:
            return np.asarray(values.astype("Float64").fillna(np.nan), np.float64)
        words = pd.Index(self.vocabularies[column.name], dtype=object)
        codes = words.get_indexer(pd.Index(values.astype(object)))
        return np.where(codes < 0, np.nan, codes.astype(np.float64))


def within_float32(values: Matrix) -> Matrix:
    """The matrix with NaN for what XGBoost, which computes in float32, can't hold; itself if none.

    Infinite values, and finite ones beyond float32's range.
    """
    # A comparison with NaN is false, so what is missing already stays as it is.
    beyond = np.abs(values) > _GREATEST
    return np.where(beyond, np.nan, values) if beyond.any() else values


def to_document(encoder: Encoder) -> dict[str, Any]:
    """An encoder as JSON, for a manifest."""
    return {
        "features": [{"name": c.name, "type": c.type} for c in encoder.columns],
        "vocabularies": {name: list(words) for name, words in encoder.vocabularies.items()},
    }


def from_document(document: Mapping[str, Any]) -> Encoder:
    """The inverse of `to_document`."""
    return Encoder(
        tuple(Column(c["name"], c["type"]) for c in document["features"]),
        {name: tuple(words) for name, words in document["vocabularies"].items()},
    )
