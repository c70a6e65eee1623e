"""Groups of the rows that a model judges apart: the same for training and for answers.

A model of two populations, such as open leads and customers, has one chance for both and another
measure for each: from which chance the answer is yes, and from which a risk is high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import Encoder, Matrix

Codes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Measure:
    """What chances are judged by.

    Attributes:
        word: The group; None for all who are in none.
        threshold: Chance from which the prediction is yes.
        risk_levels: Chances from which the risk is medium, high, critical; None if it is no risk.
    """

    word: str | None
    threshold: float
    risk_levels: tuple[float, ...] | None


class Groups:
    """The groups of a model.

    Args:
        manifest: The model's; one from before there were groups has none.
        encoder: How its columns become numbers.

    Attributes:
        measures: That of each group, and last that of all who are in none: the code of a group is
            its place, and -1 is that of nobody's group.

    Raises:
        ValueError: the groups are by something that is no category among the features.
    """

    def __init__(self, manifest: Mapping[str, Any], encoder: Encoder) -> None:
        listed = manifest.get("groups") or []
        self.measures: tuple[Measure, ...] = (
            *(
                Measure(str(g["word"]), float(g["threshold"]), _levels(g["risk_levels"]))
                for g in listed
            ),
            Measure(None, float(manifest["threshold"]), _levels(manifest["risk_levels"])),
        )
        self._thresholds = np.array([measure.threshold for measure in self.measures])
        self._place, self._table = 0, np.array([-1], np.intp)
        if listed:
            words = [str(g["word"]) for g in listed]
            self._place, self._table = _table(encoder, str(manifest["group_by"]), words)

    def codes(self, values: Matrix) -> Codes:
        """intp[n]: the place of each row's measure; -1 where it is in no group.

        Args:
            values: float64[n, features], as the model reads them.
        """
        if len(self.measures) == 1:
            return np.full(len(values), -1, np.intp)
        return _look_up(self._table, values[:, self._place])

    def thresholds(self, codes: Codes) -> npt.NDArray[np.float64]:
        """float64[n]: from which chance the answer to each row is yes."""
        return self._thresholds[codes]


def codes_of(encoder: Encoder, by: str, words: Sequence[str], values: Matrix) -> Codes:
    """intp[n]: the place among `words` of each row's word, -1 where it is another or missing.

    Args:
        encoder: How columns became numbers.
        by: The category.
        words: The groups.
        values: float64[n, features] of the encoder.

    Raises:
        ValueError: there is no such category.
    """
    place, table = _table(encoder, by, words)
    return _look_up(table, values[:, place])


def _table(encoder: Encoder, by: str, words: Sequence[str]) -> tuple[int, Codes]:
    """Where the category stands, and by the code of its words, and last if missing, the group."""
    if by not in encoder.vocabularies:
        raise ValueError(f"there are groups by {by}, which is no category of the model")
    places = {word: at for at, word in enumerate(words)}
    known = [places.get(word, -1) for word in encoder.vocabularies[by]]
    return encoder.names.index(by), np.array([*known, -1], np.intp)


def _look_up(table: Codes, codes: npt.NDArray[np.float64]) -> Codes:
    known = (codes >= 0) & (codes < len(table) - 1)
    return table[np.where(known, codes, len(table) - 1).astype(np.intp)]


def _levels(listed: Sequence[float] | None) -> tuple[float, ...] | None:
    return tuple(float(level) for level in listed) if listed else None
