"""What a read of features found: values, where they come from, and what could not be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

import numpy as np
import numpy.typing as npt

from leadml_pipelines.online.batch import Batch
from leadml_pipelines.serving.errors import ApiError, some

Source = Literal["cache", "computed", "snapshot"]

Server = Literal["postgres", "redis"]
"""A server that an answer has to do without."""

SOURCES: tuple[Source | None, ...] = ("cache", "computed", "snapshot", None)


@dataclass(frozen=True, slots=True)
class Found:
    """Entities that were asked for.

    Attributes:
        batch: Their values; unknown entities are in none of its groups.
        sources: Where each entity was found, None for an unknown or unavailable one.
        now: The present moment, microseconds, from which ages are counted.
        stale: Whether each entity's values are older than they should be, or may be untrue, and
            could not be computed anew, bool[n].
        degraded: Servers that could not be asked or believed.
        unavailable: Positions of entities of which nobody can say now whether they are known.
        shortage: Why not; None if there are none.
    """

    batch: Batch
    sources: list[Source | None]
    now: int
    stale: npt.NDArray[np.bool_]
    degraded: tuple[Server, ...] = ()
    unavailable: frozenset[int] = frozenset()
    shortage: ApiError | None = None

    def unknown(self) -> list[str]:
        """The ids that nobody knows, and that somebody was asked for."""
        ids = self.batch.entity_ids
        return [
            ids[at]
            for at, source in enumerate(self.sources)
            if source is None and at not in self.unavailable
        ]

    def age_seconds(self, as_of: int) -> float:
        """Time between a moment (microseconds) and now."""
        return max(0, self.now - as_of) / 1e6


def unknown_entity(entity_type: str, ids: Sequence[str]) -> ApiError:
    """The error of ids that nobody knows: 404, naming the first few."""
    what = "the id" if len(set(ids)) == 1 else "these ids:"
    return ApiError(
        HTTPStatus.NOT_FOUND, "unknown_entity", f"no {entity_type} is known by {what} {some(ids)}"
    )
