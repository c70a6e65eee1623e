"""The versions of a model that answered in one role: a new champion nearly every night is usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ServedVersion:
    """A version, as far as its predictions are looked at.

    Attributes:
        model_id: The version.
        first_at: Its first prediction.
        last_at: Its last one.
        predictions: How many.
    """

    model_id: str
    first_at: datetime
    last_at: datetime
    predictions: int


def served_versions(predictions: pd.DataFrame) -> tuple[ServedVersion, ...]:
    """The versions that made these predictions, by their first one.

    Args:
        predictions: Has `model_id` and `predicted_at`.
    """
    times = predictions.groupby("model_id")["predicted_at"].agg(["min", "max", "size"])
    found = [
        ServedVersion(str(model_id), first.to_pydatetime(), last.to_pydatetime(), int(size))
        for model_id, first, last, size in times.itertuples()
    ]
    return tuple(sorted(found, key=lambda version: (version.first_at, version.model_id)))


def versions_text(versions: Sequence[ServedVersion]) -> str:
    """Who they are, as in `3 versions, churn_1 (from 2026-01-01) to churn_3 (to 2026-01-31)`.

    Args:
        versions: At least one, by the first prediction.
    """
    first, last = versions[0], versions[-1]
    if len(versions) == 1:
        return first.model_id
    until = max(version.last_at for version in versions)
    return (
        f"{len(versions)} versions, {first.model_id} (from {first.first_at:%Y-%m-%d}) to "
        f"{last.model_id} (to {until:%Y-%m-%d})"
    )
