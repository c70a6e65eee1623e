"""Reading the log of predictions back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from leadml_pipelines.learning.logged_predictions import logged_predictions
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.learning.frames import DAY, START

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def empty(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")


def keep(url: str, number: int, at: datetime, **changes: Any) -> None:
    row = {
        "prediction_id": f"p{number}",
        "model_name": "churn",
        "model_id": "churn_1",
        "role": "champion",
        "entity_type": "lead",
        "entity_id": "a",
        "features_as_of": at,
        "predicted_at": at,
        "value": number / 10,
        "source": "cache",
        "stale": False,
        "degraded": False,
    } | changes
    columns, places = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    with connect(url) as connection:
        query = f"INSERT INTO leadml.predictions ({columns}) VALUES ({places})"
        connection.execute(query.encode(), row)


def test_the_predictions_of_a_model_and_a_time_come_in_the_order_of_time(postgres_url: str) -> None:
    keep(postgres_url, 3, START + DAY)
    keep(postgres_url, 2, START + HOUR)
    keep(postgres_url, 1, START)
    keep(postgres_url, 4, START, model_name="conversion")
    frame = logged_predictions(postgres_url, "churn", START, START + DAY)
    assert frame["prediction_id"].tolist() == ["p1", "p2"]
    assert frame["predicted_at"].tolist() == [START, START + HOUR]
    assert frame["value"].tolist() == [0.1, 0.2]
    assert np.isnan(frame["latency_ms"]).all()


def test_of_an_experiment_both_models_are_read_and_nothing_else(postgres_url: str) -> None:
    keep(postgres_url, 1, START)
    keep(postgres_url, 2, START, experiment="churn_2", traffic_share=0.5)
    keep(
        postgres_url,
        3,
        START,
        experiment="churn_2",
        traffic_share=0.5,
        model_id="churn_2",
        role="challenger",
    )
    keep(postgres_url, 4, START, experiment="churn_3", traffic_share=0.5)
    frame = logged_predictions(postgres_url, "churn", START, START + DAY, experiment="churn_2")
    assert frame["prediction_id"].tolist() == ["p2", "p3"]
    assert frame["traffic_share"].tolist() == [0.5, 0.5]


def test_the_first_prediction_of_a_day_stands_for_the_others(postgres_url: str) -> None:
    keep(postgres_url, 1, START)
    keep(postgres_url, 2, START + 23 * HOUR)
    keep(postgres_url, 3, START + DAY)
    keep(postgres_url, 4, START + 5 * HOUR, entity_id="b")
    keep(postgres_url, 5, START + 6 * HOUR, model_id="churn_2")
    frame = logged_predictions(postgres_url, "churn", START, START + 2 * DAY, first_of_day=True)
    assert frame["prediction_id"].tolist() == ["p1", "p4", "p5", "p3"]


def test_a_version_that_becomes_champion_within_a_day_has_a_first_prediction_in_either_role(
    postgres_url: str,
) -> None:
    keep(postgres_url, 1, START, model_id="churn_2", role="challenger")
    keep(postgres_url, 2, START + HOUR, model_id="churn_2")
    keep(postgres_url, 3, START + 2 * HOUR, model_id="churn_2")
    frame = logged_predictions(postgres_url, "churn", START, START + DAY, first_of_day=True)
    assert frame["prediction_id"].tolist() == ["p1", "p2"]


def test_no_predictions_are_an_empty_frame_with_the_same_types(postgres_url: str) -> None:
    frame = logged_predictions(postgres_url, "churn", START, START + DAY)
    assert frame.empty
    assert str(frame["predicted_at"].dtype) == "datetime64[us, UTC]"
    assert str(frame["value"].dtype) == "float64"


def test_a_time_without_a_zone_is_refused(postgres_url: str) -> None:
    with pytest.raises(NaiveTimeError):
        logged_predictions(postgres_url, "churn", START.replace(tzinfo=None), START)
