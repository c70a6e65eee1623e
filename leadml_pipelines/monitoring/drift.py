"""How far a population has moved from another: PSI and KS of every column.

PSI, the population stability index, is the sum over bins of `(q - p) * ln(q / p)`, where `p` and
`q` are the shares of the reference and of the current rows. Below 0.1 counts as no change, from 0.1
as a small one, from 0.25 as a large one (Lewis, *An Introduction to Credit Scoring*, 1994; Siddiqi,
*Credit Risk Scorecards*, 2006); 0.2 is the usual limit of watching models and the default here.
KS, the statistic of Kolmogorov and Smirnov, is the greatest distance between the two distribution
functions, 0 to 1.

A column has drifted when one of them is over its limit, and over what two things give without any
drift:

* **Chance.** Between two samples of one population PSI is spread like `(1/n + 1/m)` times a
  chi-squared of `bins - 1` degrees of freedom (Yurdakul and Naranjo, *Statistical properties of the
  population stability index*, Journal of Risk Model Validation, 2020); KS has its p-value. Both are
  asked at a level that is shared among the columns.
* **The moment.** The reference holds rows of many days, today's rows are of one: what is equal for
  all leads at one moment, such as the age of the graph, lies in one bin today; and a young
  business's newest days differ from its first ones. So each of the newest days of the reference is
  compared with the whole of it too, and today has to be clearly further away than the furthest.

Some features are shares of a whole that grows, such as PageRank, the sum of which is 1 in a graph
of any size: their numbers shrink as it grows, and mean what they meant. The catalogue says which
they are (`Feature.relative`), and of them every value is divided by the mean of its moment on
either side before anything else: what is compared is how the whole is shared out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY, FeatureLike

if TYPE_CHECKING:
    import pandas as pd

BINS = 10
"""Bins of a number: the tenths of the reference."""
FLOOR = 1e-4
"""Least share of a bin in the logarithm; a bin that is empty on one side stays finite."""
ALPHA = 0.01
"""Chance that any of the columns of two samples of one population is called drifted."""

DAYS = 40
"""The newest days of the reference are compared with the whole of it, so many of them."""
LEAST_ROWS_OF_A_DAY = 30
"""Days with fewer rows tell nothing."""
ROWS_OF_A_MOMENT = 100
"""Days in a row with fewer rows are one moment, so that its mean is none of a few."""
MARGIN = 1.5
"""How much further than the furthest of those days is still usual; today is newer than they are."""

Vector = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DriftLimits:
    """From where on a column has drifted.

    Attributes:
        psi: Limit of the population stability index.
        ks: Limit of the distance of Kolmogorov and Smirnov.
    """

    psi: float = 0.2
    ks: float = 0.2


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column has moved.

    Attributes:
        name: Feature, or the model's score.
        type: `double`, `integer`, `boolean` or `category`.
        psi: Population stability index over all rows, missing ones in a bin of their own.
        psi_usual: What PSI stays under without any drift.
        ks: Distance of Kolmogorov and Smirnov of the values that are there; None for a category,
            and where one side has no value.
        ks_usual: What this distance stays under without any drift; None with it.
        missing_before: Share of the reference rows without a value.
        missing_now: Share of the current rows without a value.
        drifted: Whether PSI or KS is over its limit and over what is usual.
        relative: Whether values were divided by the mean of their moment before.
    """

    name: str
    type: str
    psi: float
    psi_usual: float
    ks: float | None
    ks_usual: float | None
    missing_before: float
    missing_now: float
    drifted: bool
    relative: bool = False


def column_drifts(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Iterable[FeatureLike],
    limits: DriftLimits,
    days: npt.NDArray[np.int64] | None = None,
    relative: Collection[str] = (),
) -> tuple[ColumnDrift, ...]:
    """PSI and KS of every column, the furthest moved first.

    Args:
        reference: The rows a model learned from.
        current: The rows of today.
        columns: Which columns of both, and their types.
        limits: From where on one has drifted.
        days: int64[reference rows], the day of each reference row, in any numbering; without it
            chance alone is usual, and the reference is one moment.
        relative: Names of the numbers that are compared relative to the mean of their moment;
            `current` is one moment.

    Raises:
        ValueError: one side has no row.
        KeyError: a frame lacks a column.
    """
    if reference.empty or current.empty:
        raise ValueError("drift is between two populations, and one of them has no row")
    wanted = list(columns)
    chance = ALPHA / max(len(wanted), 1)
    slices = _newest_days(days)
    moments = _moments(len(reference), days)
    found = []
    for column in wanted:
        before, now = reference[column.name], current[column.name]
        scaled = column.name in relative and column.type != CATEGORY
        if scaled:
            before, now = _shared_out(before, moments), _shared_out(now, [slice(None)])
        one = _compare(before, now, column, limits, slices, chance)
        found.append(replace(one, relative=scaled))
    return tuple(sorted(found, key=lambda one: (not one.drifted, -one.psi, one.name)))


def _compare(
    before: pd.Series,
    now: pd.Series,
    column: FeatureLike,
    limits: DriftLimits,
    slices: list[Rows],
    chance: float,
) -> ColumnDrift:
    ks = ks_usual = None
    if column.type == CATEGORY:
        old_codes, codes, bins = _words(before, now)
    else:
        old, new = _numbers(before), _numbers(now)
        edges = _edges(np.sort(old[~np.isnan(old)]))
        old_codes, codes, bins = _bins(old, edges), _bins(new, edges), len(edges) + 2
        ks, ks_usual = _distances(old, new, slices, chance)
    whole = np.bincount(old_codes, minlength=bins)
    counts = np.bincount(codes, minlength=bins)
    psi = stability_index(whole, counts)
    moved = 0.0
    for rows in slices:
        day = np.bincount(old_codes[rows], minlength=bins)
        moved = max(moved, stability_index(whole, day) - _psi_chance(whole, day, chance))
    psi_usual = moved * MARGIN + _psi_chance(whole, counts, chance)
    far = ks is not None and ks_usual is not None and ks > max(limits.ks, ks_usual)
    return ColumnDrift(
        name=column.name,
        type=column.type,
        psi=psi,
        psi_usual=psi_usual,
        ks=ks,
        ks_usual=ks_usual,
        missing_before=float(before.isna().mean()),
        missing_now=float(now.isna().mean()),
        drifted=psi > max(limits.psi, psi_usual) or far,
    )


def stability_index(before: Counts, now: Counts) -> float:
    """PSI of two rows of counts over the same bins: 0 when the shares are equal.

    Args:
        before: int64[bins], of at least one row.
        now: int64[bins], of at least one row.
    """
    p = np.maximum(before / before.sum(), FLOOR)
    q = np.maximum(now / now.sum(), FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def ks_distance(before: Vector, now: Vector) -> float:
    """Distance of Kolmogorov and Smirnov.

    Between two values of `now` its distribution function is constant and the other one only grows,
    so the greatest distance is just before or at one of them.

    Args:
        before: float64[n], sorted, nothing missing, at least one.
        now: float64[m], likewise.
    """
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    return max(
        float(
            np.abs(
                np.searchsorted(before, now, side) / len(before)
                - np.searchsorted(now, now, side) / len(now)
            ).max()
        )
        for side in sides
    )


def _distances(
    old: Vector, new: Vector, slices: list[Rows], chance: float
) -> tuple[float | None, float | None]:
    """KS, and what it stays under without drift; None where one side has no value."""
    before, now = _sorted(old), _sorted(new)
    if not len(before) or not len(now):
        return None, None
    moved = 0.0
    for rows in slices:
        day = _sorted(old[rows])
        if len(day):
            moved = max(moved, ks_distance(before, day) - _ks_chance(len(before), len(day), chance))
    usual = moved * MARGIN + _ks_chance(len(before), len(now), chance)
    return ks_distance(before, now), min(usual, 1.0)


def _psi_chance(before: Counts, now: Counts, chance: float) -> float:
    """What PSI of two samples of one population exceeds with this chance."""
    from scipy.special import chdtri

    used = int(((before > 0) | (now > 0)).sum())
    return float(chdtri(max(used - 1, 1), chance) * (1 / before.sum() + 1 / now.sum()))


def _ks_chance(before: int, now: int, chance: float) -> float:
    """What KS of two samples of one population exceeds with this chance, or less with ties."""
    from scipy.special import kolmogi

    return float(kolmogi(chance) * np.sqrt(1 / before + 1 / now))


def _newest_days(days: npt.NDArray[np.int64] | None) -> list[Rows]:
    """Positions of the rows of each of the newest days that have enough of them."""
    if days is None:
        return []
    order = np.argsort(days, kind="stable")
    _, starts, sizes = np.unique(days[order], return_index=True, return_counts=True)
    whole = [order[at : at + size] for at, size in zip(starts, sizes, strict=True)]
    whole = [rows for rows in whole if len(rows) >= LEAST_ROWS_OF_A_DAY]
    return whole[-DAYS:]


def _moments(rows: int, days: npt.NDArray[np.int64] | None) -> list[Rows | slice]:
    """Positions of the rows of each moment: a day, or some in a row that have enough together."""
    if days is None:
        return [slice(None)]
    order = np.argsort(days, kind="stable")
    _, starts = np.unique(days[order], return_index=True)
    cuts = [0]
    for start in starts:
        if start - cuts[-1] >= ROWS_OF_A_MOMENT and rows - start >= ROWS_OF_A_MOMENT:
            cuts.append(int(start))
    return [order[a:b] for a, b in pairwise([*cuts, rows])]


def _shared_out(column: pd.Series, moments: Sequence[Rows | slice]) -> pd.Series:
    """A number divided by the mean of its moment, where that is not 0."""
    import pandas as pd

    values = _numbers(column).copy()
    for rows in moments:
        known = values[rows][~np.isnan(values[rows])]
        mean = known.mean() if len(known) else 0.0
        if mean:
            values[rows] /= mean
    return pd.Series(values)


def _numbers(column: pd.Series) -> Vector:
    return np.asarray(column.astype("Float64").to_numpy(np.float64, na_value=np.nan), np.float64)


def _sorted(values: Vector) -> Vector:
    return np.sort(values[~np.isnan(values)])


def _edges(values: Vector) -> Vector:
    """Where the bins of a number meet: at the tenths of the reference.

    A value that fills a tenth or more by itself, as 0 does in many a count, gets a bin of its own.

    Args:
        values: The reference's, sorted.
    """
    if not len(values):
        return values
    tenths = values[np.minimum(np.arange(1, BINS) * len(values) // BINS, len(values) - 1)]
    cuts, times = np.unique(tenths, return_counts=True)
    with np.errstate(over="ignore"):  # below the least number of all lies minus infinity
        return np.union1d(cuts, np.nextafter(cuts[times > 1], -np.inf))


def _bins(values: Vector, edges: Vector) -> Rows:
    """The bin of each value: up to the first edge, ..., past the last one, missing."""
    bins = np.searchsorted(edges, values, "left")
    return np.where(np.isnan(values), len(edges) + 1, bins).astype(np.intp)


def _words(before: pd.Series, now: pd.Series) -> tuple[Rows, Rows, int]:
    """The bin of each row of both sides, and how many there are: missing, and each word."""
    import pandas as pd

    codes, words = pd.factorize(pd.concat([before, now], ignore_index=True).astype(object))
    bins = codes.astype(np.intp) + 1
    return bins[: len(before)], bins[len(before) :], len(words) + 1
