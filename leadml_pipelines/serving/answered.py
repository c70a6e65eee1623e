"""What a request for predictions was answered, for whoever counts or keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from leadml_pipelines.online.format import Micros
from leadml_pipelines.serving.assignment import Part
from leadml_pipelines.serving.found import Found

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answered:
    """All answers of one request: what a log of predictions needs to know.

    Attributes:
        found: The entities in the order of the request, where their features were found, and
            whether these are stale.
        parts: Which model answered for which of them.
        values: float64[n], chance or expected value; NaN where the model does not score.
        predictions: float64[n], 1 or 0, or a score; NaN likewise.
        scores: float64[n], 0-100 by rank; NaN likewise.
        as_of: int64[n], the moment of each entity's features, microseconds since 1970 UTC.
        timestamp: When the predictions were made.
        seconds: From the beginning of the request's work to its answers.
    """

    found: Found
    parts: Sequence[Part]
    values: Vector
    predictions: Vector
    scores: Vector
    as_of: Micros
    timestamp: datetime
    seconds: float
