"""What a read of features notices on its way through the servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from leadml_pipelines.online.format import Moments
from leadml_pipelines.serving.errors import ApiError, some


@dataclass(slots=True)
class Seen:
    """What a read noticed.

    Attributes:
        doubtful: Whether what Redis has may be untrue.
        redis_answered: Whether Redis could be asked.
        postgres_failed: Whether PostgreSQL was asked and did not compute.
        broken: Values that can't be read, by id.
        invalidated: Since when values are untrue, by id.
        unavailable: Positions of which neither server can say anything.
        shortage: Why not.
    """

    doubtful: bool
    redis_answered: bool = False
    postgres_failed: bool = False
    broken: dict[str, bytes] = field(default_factory=dict)
    invalidated: dict[str, Moments] = field(default_factory=dict)
    unavailable: frozenset[int] = frozenset()
    shortage: ApiError | None = None

    def lack(self, ids: Sequence[str], positions: Sequence[int], why: str) -> None:
        """Note which entities can't be had now.

        Raises:
            ApiError: none of all is left that could be answered.
        """
        self.unavailable = frozenset(positions)
        self.shortage = _unavailable([ids[at] for at in positions], why, self)
        if len(positions) == len(ids):
            raise self.shortage


def _unavailable(names: Sequence[str], why: str, seen: Seen) -> ApiError:
    state = "Redis does not have them" if seen.redis_answered else "Redis can't be reached"
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "features_unavailable",
        f"no features now for {some(names)}: {state} and {why}; try again shortly",
    )
