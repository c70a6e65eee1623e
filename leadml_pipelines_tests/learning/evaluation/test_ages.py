from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from leadml_pipelines.learning.evaluation.ages import AGE_BANDS, BAND_NAMES, OLDER, age_bands
from leadml_pipelines.learning.spec import NEW_LEAD_AGES

BORN = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


def _band(*ages: timedelta) -> list[str]:
    frame = pd.DataFrame(
        {
            "as_of": pd.Series([BORN + age for age in ages], dtype="datetime64[us, UTC]"),
            "created_at": pd.Series([BORN] * len(ages), dtype="datetime64[us, UTC]"),
        }
    ).set_index(pd.RangeIndex(5, 5 + len(ages)))
    found = age_bands(frame)
    assert found.index.equals(frame.index)
    return found.tolist()


@pytest.mark.parametrize(("end", "name"), AGE_BANDS)
def test_a_band_ends_with_its_last_moment(end: timedelta, name: str) -> None:
    follows = BAND_NAMES[BAND_NAMES.index(name) + 1]
    assert _band(end, end + timedelta(microseconds=1)) == [name, follows]


def test_who_is_older_than_the_last_band_is_older() -> None:
    assert _band(timedelta(days=4_000)) == [OLDER]


def test_the_ages_of_new_leads_are_told_apart() -> None:
    assert _band(*NEW_LEAD_AGES) == [
        "up to 6 hours",
        "6 hours to 2 days",
        "2 to 7 days",
        "2 to 7 days",
    ]
