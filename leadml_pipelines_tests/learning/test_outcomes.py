"""What came true of logged predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.outcomes import with_outcomes
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine

MICRO = pd.Timedelta(1, "us")


def predictions(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_an_outcome_is_asked_at_the_moment_of_the_prediction() -> None:
    engine = BareEngine()
    engine.add("policies", ("p", "a", 100, START + 5 * DAY, None))
    bound = pd.Timestamp(START) + 5 * DAY
    told = with_outcomes(
        predictions(
            entity_id=["a", "a", "a", "b"],
            predicted_at=[bound - MICRO, bound, bound - 30 * DAY - MICRO, bound],
            value=[0.1, 0.2, 0.3, 0.4],
        ),
        SPECS["conversion"],
        engine,
        START + 90 * DAY,
    )
    assert told["label"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_rows_keep_their_index_order_and_columns_and_what_is_open_is_nan() -> None:
    engine = BareEngine()
    start = pd.Timestamp(START)
    given = predictions(
        entity_id=["b", "a"], predicted_at=[start + MICRO, start], value=[0.4, 0.5]
    ).set_axis([7, 3])
    told = with_outcomes(given, SPECS["conversion"], engine, START + 30 * DAY)
    pd.testing.assert_frame_equal(told[["entity_id", "predicted_at", "value"]], given)
    assert np.isnan(told.loc[7, "label"])
    assert told.loc[3, "label"] == 0.0


def test_no_predictions_have_no_outcomes() -> None:
    none = predictions(entity_id=[], predicted_at=pd.to_datetime([], utc=True))
    assert with_outcomes(none, SPECS["churn"], BareEngine(), START).columns.tolist() == [
        "entity_id",
        "predicted_at",
        "label",
    ]


def test_a_prediction_without_a_zone_is_refused() -> None:
    naive = predictions(entity_id=["a"], predicted_at=[START.replace(tzinfo=None)])
    with pytest.raises(NaiveTimeError):
        with_outcomes(naive, SPECS["churn"], BareEngine(), START)
