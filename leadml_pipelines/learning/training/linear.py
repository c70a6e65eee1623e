"""A linear model over features, as a member of a blend: it sees trends where trees see steps.

Numbers are put on a logarithmic scale that keeps their sign, and standardised; words have a term
each; a missing value has a term of its own. All terms are centred on the training rows, so that
the terms of a row are its exact SHAP values and the base is the mean raw score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY, Encoder, Matrix

Vector = npt.NDArray[np.float64]

_LIMIT = 5.0
"""Standard deviations beyond which a number counts as that far away: an outlier must not rule."""
_PENALTY = 0.02
"""C of the logistic regression; strong, because neighbouring windows say nearly the same."""


@dataclass(frozen=True)
class LinearMember:
    """Centred terms of each feature.

    Attributes:
        base: Mean raw score of the training rows.
        mean: float64[features], of the scaled numbers.
        scale: float64[features], standard deviation of them.
        slope: float64[features], per standard deviation; 0 for categories.
        shift: float64[features], what centres the term.
        missing: float64[features], the term of a missing value.
        words: By place of a category: the term of each of its words.
    """

    base: float
    mean: Vector
    scale: Vector
    slope: Vector
    shift: Vector
    missing: Vector
    words: Mapping[int, Vector]

    def contributions(self, values: Matrix) -> Matrix:
        """float64[n, features]: the term of each feature."""
        scaled = np.clip((_squeezed(values) - self.mean) / self.scale, -_LIMIT, _LIMIT)
        terms = scaled * self.slope - self.shift
        for at, table in self.words.items():
            known = ~np.isnan(values[:, at])
            terms[known, at] = table[values[known, at].astype(np.intp)]
        return np.where(np.isnan(values), self.missing, terms)

    def raw_scores(self, values: Matrix) -> Vector:
        """float64[n]: the base and the sum of the terms."""
        return np.asarray(self.base + self.contributions(values).sum(axis=1), np.float64)

    def to_arrays(self) -> dict[str, Any]:
        """Plain content, for a file."""
        return {
            "base": self.base,
            "mean": self.mean,
            "scale": self.scale,
            "slope": self.slope,
            "shift": self.shift,
            "missing": self.missing,
            "words": dict(self.words),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> LinearMember:
        """The inverse of `to_arrays`."""
        return cls(**arrays)


def fit_linear(
    encoder: Encoder, values: Matrix, labels: Vector, *, objective: str, seed: int
) -> LinearMember:
    """Fit a logistic regression, or a ridge regression of values.

    Args:
        encoder: Knows which features are categories, and their words.
        values: float64[n, features].
        labels: float64[n].
        objective: `classification` or `regression`.
        seed: For the solver.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits

    squeezed = _squeezed(values)
    gone = np.isnan(values)
    known = np.maximum((~gone).sum(axis=0), 1)
    mean = np.where(gone, 0.0, squeezed).sum(axis=0) / known
    spread = np.where(gone, 0.0, (squeezed - mean) ** 2).sum(axis=0) / known
    scale = np.where(spread > 0, np.sqrt(spread), 1.0)
    categories = [at for at, c in enumerate(encoder.columns) if c.type == CATEGORY]
    numeric = np.ones(values.shape[1], bool)
    numeric[categories] = False
    scaled = np.clip((squeezed - mean) / scale, -_LIMIT, _LIMIT)
    numbers = np.where(gone, 0.0, scaled) * numeric
    blocks = [numbers, gone.astype(np.float64)]
    for at in categories:
        size = len(encoder.vocabularies[encoder.columns[at].name])
        blocks.append((values[:, [at]] == np.arange(size)).astype(np.float64))
    design = np.column_stack(blocks)
    if objective == "classification":
        model: Any = LogisticRegression(C=_PENALTY, max_iter=300, random_state=seed)
        # One thread: sums in another order have other digits.
        with threadpool_limits(1):
            model.fit(design, labels)
        coefficients, base = model.coef_[0], float(model.intercept_[0])
    else:
        model = Ridge(alpha=1 / _PENALTY, random_state=seed)
        with threadpool_limits(1):
            model.fit(design, labels)
        coefficients, base = model.coef_, float(model.intercept_)

    count = values.shape[1]
    slope, absent = coefficients[:count] * numeric, coefficients[count : 2 * count]
    centre = (numbers * slope).mean(axis=0) + gone.mean(axis=0) * absent
    words: dict[int, Vector] = {}
    start = 2 * count
    for at in categories:
        size = len(encoder.vocabularies[encoder.columns[at].name])
        table = coefficients[start : start + size]
        centre[at] += float(design[:, start : start + size].mean(axis=0) @ table)
        words[at] = table - centre[at]
        start += size
    return LinearMember(
        base=base + float(centre.sum()),
        mean=mean,
        scale=scale,
        slope=slope,
        shift=np.where(numeric, centre, 0.0),
        missing=absent - centre,
        words=words,
    )


def _squeezed(values: Matrix) -> Matrix:
    """Counts and amounts have long tails; the logarithm that keeps the sign shortens them."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)), np.float64)
