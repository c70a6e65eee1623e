"""How old values may be: when they are stale, and when they count as missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from leadml_pipelines.features.view import FRESHNESS, FeatureView
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Rows

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """How old values of an entity type may be, in microseconds.

    Attributes:
        freshness: Older ones are stale.
        ttl: Older values of these features count as missing, by age.
    """

    freshness: int
    ttl: tuple[tuple[int, frozenset[str]], ...]

    @property
    def due(self) -> int:
        """Age past which values are computed anew."""
        return min([self.freshness, *(age for age, _ in self.ttl)])

    @classmethod
    def of(cls, views: Iterable[FeatureView]) -> AgeLimits:
        """The limits of an entity type whose views these are."""
        known = list(views)
        ttl: dict[int, frozenset[str]] = {}
        for view in known:
            if view.ttl is not None:
                # Values exactly as old as the time to live have outlived it, as offline.
                age = view.ttl // _MICROSECOND - 1
                names = frozenset(feature.name for feature in view.features)
                ttl[age] = ttl.get(age, frozenset()) | names
        freshness = min((view.freshness for view in known), default=FRESHNESS) // _MICROSECOND
        return cls(freshness, tuple(sorted(ttl.items())))


def older(batch: Batch, limit: int) -> npt.NDArray[np.bool_]:
    """Which entities' values are from before a moment, bool[n]."""
    older = np.zeros(len(batch.entity_ids), bool)
    for group in batch.groups:
        older[group.positions] = group.as_of < limit
    return older


def without_expired(rows: Rows, now: int, limits: AgeLimits) -> Rows:
    """Rows whose features are missing where their view's time to live has passed."""
    values = rows.values
    for ttl, names in limits.ttl:
        old = rows.as_of < now - ttl
        if old.any():
            values = values.copy() if values is rows.values else values
            at = [place for name, place in rows.schema.positions.items() if name in names]
            values[np.ix_(np.flatnonzero(old), np.array(at, np.intp))] = np.nan
    return rows if values is rows.values else replace(rows, values=values)
