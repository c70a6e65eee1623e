"""Exact SHAP values of boosted trees for a row at a time, several times as quick as XGBoost's own.

The values are those of tree SHAP (path-dependent): features that a coalition does not know are
averaged over by the covers of the trees. For a leaf whose path asks `d` features, of which feature
`i` lets a share `z_i` of the rows through and is met by the row or not (`o_i` is 1 or 0), the value
of `i` is

    leaf * (o_i - z_i) * integral, t from 0 to 1, of the product of (o_j t + z_j (1 - t)), j != i

The integrand is a polynomial of degree `d - 1`, so that Gauss-Legendre quadrature with `d / 2`
nodes, rounded up, is exact. Many leaves are done at once, in arrays; nothing is approximated but by
the rounding of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import Matrix
from leadml_pipelines.learning.tree_documents import (
    Tree,
    code_count,
    document_of,
    trees_of,
    words_right,
)

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]

BLOCK = 4096
"""Leaves that are done together: their arrays stay in the processor's caches."""


class _Step(NamedTuple):
    """What the path to a leaf asks of one feature.

    Attributes:
        low: The number must be at least this.
        high: It must be below this.
        words: A bit for each code of a category that goes this way; `_EVERY` for a number.
        missing: Whether a missing value goes this way.
        share: Share of the rows that go this way, by cover.
    """

    low: float
    high: float
    words: int
    missing: bool
    share: float


_Path = tuple[dict[int, _Step], float]
"""What the path to a leaf asks of each feature, and the leaf's value."""

_EVERY = -1
"""All bits set: every code goes this way."""
_ANY = _Step(-np.inf, np.inf, _EVERY, True, 1.0)
_LEAST_SHARE = 1e-12
"""A share of 0 would be divided by; such a branch was not reached in training."""


@dataclass(frozen=True)
class _Leaves:
    """Some leaves, as arrays of shape (features on a path, leaves).

    A path that asks fewer features than the longest one is filled with steps that everything meets,
    which have no effect.

    Attributes:
        feature: Which feature a step asks about.
        low: A number meets the step from here on, float32 as in XGBoost.
        high: And below this.
        missing: Whether a missing value meets it.
        share: Share of the rows that do.
        leaves: Value of each leaf.
        worded: Places (in the flattened arrays) of the steps that ask about a category.
        words: Which codes meet these, one row each; the last column is every code beyond.
        nodes: Nodes and weights of the quadrature.
    """

    feature: Places
    low: Floats
    high: Floats
    missing: Bools
    share: Floats
    leaves: Floats
    worded: Places
    words: Bools
    nodes: tuple[tuple[np.float32, np.float32], ...]

    @classmethod
    def of(cls, paths: Sequence[_Path], codes: int) -> _Leaves:
        """The leaves at the ends of some paths; codes from `codes` on are in no tree."""
        length = max((len(steps) for steps, _ in paths), default=0) or 1
        shape = (length, len(paths))
        at = [place for steps, _ in paths for place in range(len(steps))]
        leaf = [place for place, (steps, _) in enumerate(paths) for _ in steps]
        asked = [name for steps, _ in paths for name in steps]
        steps = [step for steps, _ in paths for step in steps.values()]
        worded = [place for place, step in enumerate(steps) if step.words != _EVERY]
        flat = np.ravel_multi_index((at, leaf), shape) if steps else np.zeros(0, np.intp)

        def filled(content: list[Any], other: Any, kind: Any) -> npt.NDArray[Any]:
            array = np.full(shape, other, kind)
            array.ravel()[flat] = content
            return array

        places, weights = np.polynomial.legendre.leggauss((length + 1) // 2)
        return cls(
            feature=filled(asked, 0, np.intp),
            low=filled([step.low for step in steps], -np.inf, np.float32),
            high=filled([step.high for step in steps], np.inf, np.float32),
            missing=filled([step.missing for step in steps], True, np.bool_),
            share=filled([step.share for step in steps], 1.0, np.float32),
            leaves=np.array([value for _, value in paths], np.float32),
            worded=flat[worded],
            words=_bits([steps[place].words for place in worded], codes + 1),
            nodes=tuple(
                (np.float32((place + 1) / 2), np.float32(weight / 2))
                for place, weight in zip(places.tolist(), weights.tolist(), strict=True)
            ),
        )

    def values(self, row: Floats, gone: Bools | None, features: int) -> Vector:
        """What the leaves add to the SHAP values of a row, float64[features].

        Args:
            row: float32[features].
            gone: Which values are missing; None if none is.
            features: How many there are.
        """
        met = self._met(row, gone)
        weights = np.zeros_like(self.share)
        for place, weight in self.nodes:
            terms = self.share * (1 - place)
            terms += met * place
            product = np.multiply.reduce(terms, axis=0)
            product *= weight
            weights += product / terms
        weights *= met - self.share
        weights *= self.leaves
        by_feature = np.bincount(self.feature.ravel(), weights.ravel(), features)
        return np.asarray(by_feature, np.float64)

    def _met(self, row: Floats, gone: Bools | None) -> Floats:
        """Whether the row meets each step, as 1 and 0."""
        asked = row.take(self.feature)
        met = asked >= self.low
        met &= asked < self.high
        if len(self.worded):
            codes = asked.ravel()[self.worded]
            last = self.words.shape[1] - 1
            seen = (codes >= 0) & (codes < last)
            places = np.where(seen, codes, last).astype(np.intp)
            met.ravel()[self.worded] = self.words[np.arange(len(places)), places]
        if gone is not None:
            met = np.where(gone.take(self.feature), self.missing, met)
        return met.astype(np.float32)


@dataclass(frozen=True)
class TreeShap:
    """The leaves of a booster.

    Attributes:
        features: How many features the booster has.
        base: Raw score when nothing is known of a row.
        blocks: All leaves, those of short paths first.
    """

    features: int
    base: float
    blocks: tuple[_Leaves, ...]

    @classmethod
    def of(cls, booster: Any, features: int) -> TreeShap:
        """Read the trees of a booster (`gbtree`, one output).

        Args:
            booster: XGBoost's own object.
            features: How many it has.
        """
        trees = trees_of(document_of(booster))
        codes = code_count(trees)
        paths = sorted(
            (path for tree in trees for path in _paths(tree)), key=lambda path: len(path[0])
        )
        starts = range(0, len(paths), BLOCK)
        blocks = tuple(_Leaves.of(paths[start : start + BLOCK], codes) for start in starts)
        return cls(features, _base(booster, features), blocks)

    def __call__(self, values: Matrix) -> Matrix:
        """SHAP values of rows.

        Args:
            values: float64[n, features]; a category is its code, missing is NaN.

        Returns:
            float64[n, features + 1]; the last column is the base, and a row sums to the raw score.
        """
        found = np.zeros((len(values), self.features + 1))
        found[:, -1] = self.base
        for at, row in enumerate(values.astype(np.float32)):
            gone = np.isnan(row)
            missing = gone if gone.any() else None
            for block in self.blocks:
                found[at, :-1] += block.values(row, missing, self.features)
        return found


def _paths(tree: Tree) -> Iterator[_Path]:
    """Each leaf of a tree: what its path asks of each feature, and its value."""
    left, right, asked = tree["left_children"], tree["right_children"], tree["split_indices"]
    conditions, cover = tree["split_conditions"], tree["sum_hessian"]
    by_default, words = tree["default_left"], words_right(tree)
    waiting: list[tuple[int, dict[int, _Step]]] = [(0, {})]
    while waiting:
        node, steps = waiting.pop()
        if left[node] == -1:
            yield steps, conditions[node]
            continue
        low, high, known, missing, share = steps.get(asked[node], _ANY)
        for child, is_left in ((left[node], True), (right[node], False)):
            part = share * (cover[child] / cover[node] if cover[node] > 0 else 0.5)
            step = _Step(
                max(low, conditions[node]) if not is_left and node not in words else low,
                min(high, conditions[node]) if is_left and node not in words else high,
                known & (~words[node] if is_left else words[node]) if node in words else known,
                missing and bool(by_default[node]) == is_left,
                max(part, _LEAST_SHARE),
            )
            waiting.append((child, {**steps, asked[node]: step}))


def _bits(words: list[int], count: int) -> Bools:
    """The lowest bits of each number, bool[n, count]."""
    size = (count + 7) // 8
    every = (1 << 8 * size) - 1
    content = b"".join((word & every).to_bytes(size, "little") for word in words)
    packed = np.frombuffer(content, np.uint8).reshape(len(words), size)
    return np.unpackbits(packed, axis=1, count=count, bitorder="little").astype(np.bool_)


def _base(booster: Any, features: int) -> float:
    """What XGBoost itself gives for a row of which nothing is known."""
    import xgboost

    nothing = xgboost.DMatrix(
        np.full((1, features), np.nan),
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )
    return float(booster.predict(nothing, pred_contribs=True)[0, -1])
