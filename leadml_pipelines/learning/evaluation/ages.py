"""How old leads are at the moment of a row, in bands: a slice of the figures like any other.

What is known of a lead grows with its age, so that one figure over all ages is mostly that of the
old ones, while it is the new ones that somebody decides to call now.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LEAD_AGE = "lead_age"
"""Name of the slice; no column of the rows is called so."""

OLDER = "older"
AGE_BANDS: tuple[tuple[timedelta, str], ...] = (
    (timedelta(hours=6), "up to 6 hours"),
    (timedelta(days=2), "6 hours to 2 days"),
    (timedelta(days=7), "2 to 7 days"),
    (timedelta(days=30), "7 to 30 days"),
    (timedelta(days=90), "30 to 90 days"),
)
"""Upper end (it belongs to the band) and name; what is older than the last is `OLDER`."""

BAND_NAMES: tuple[str, ...] = (*(name for _, name in AGE_BANDS), OLDER)
"""The names, the youngest first."""


def age_bands(frame: pd.DataFrame) -> pd.Series:
    """The band of each row, with the frame's index.

    Args:
        frame: Has `as_of` and `created_at`.
    """
    import pandas as pd

    age = (frame["as_of"] - frame["created_at"]).to_numpy()
    ends = np.array([np.timedelta64(end) for end, _ in AGE_BANDS])
    names = np.array(BAND_NAMES, dtype=object)
    return pd.Series(names[np.searchsorted(ends, age)], index=frame.index, name=LEAD_AGE)
