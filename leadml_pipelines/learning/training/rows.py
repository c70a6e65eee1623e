"""The rows that a learner sees: numbers, labels, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import Encoder, Matrix

Vector = npt.NDArray[np.float64]
RowNumbers = npt.NDArray[np.intp]

STOP_SHARE = 0.2
"""Newest share of the rows of a fit that tells when to stop adding trees."""
_ASKED = 3
"""Of the entities that have older rows too, one in so many is asked; the others teach."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of a training, in one place; fits and folds are row numbers into it.

    Attributes:
        encoder: What the columns mean.
        values: float64[n, features].
        labels: float64[n].
        order: [n], what the rows are ordered by in time; only comparisons matter.
        groups: int64[n], the entity of each row, as a number.
    """

    encoder: Encoder
    values: Matrix
    labels: Vector
    order: npt.NDArray[Any]
    groups: npt.NDArray[np.int64]

    def early_stopping(self, rows: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """Rows to fit on, and newer rows of other entities that tell when to stop.

        Args:
            rows: The rows of a fit; no fewer than some dozens.
        """
        order, groups = self.order[rows].astype(np.int64), self.groups[rows]
        newest = order >= np.quantile(order, 1 - STOP_SHARE)
        on_both_sides = np.isin(groups, groups[~newest])
        stops = newest & (~on_both_sides | (groups % _ASKED == 0))
        fits = ~np.isin(groups, groups[stops])
        return rows[fits], rows[stops]
