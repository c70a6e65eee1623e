"""What monitoring found, kept and read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from leadml_pipelines.learning.served_versions import ServedVersion
from leadml_pipelines.monitoring.live import LiveMetric, LivePerformance
from leadml_pipelines.monitoring.records import newest_live, record_live
from leadml_pipelines.postgres import connect

NOW = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)
DAY = timedelta(days=1)
FOUND = LivePerformance(
    "churn",
    "champion",
    NOW - 90 * DAY,
    NOW - 60 * DAY,
    900,
    400,
    {"roc_auc": LiveMetric(0.8, 0.9, 0.11, 0.04), "brier": LiveMetric(0.2)},
    (
        ServedVersion("churn_2", NOW - 90 * DAY, NOW - 70 * DAY, 500),
        ServedVersion("churn_3", NOW - 70 * DAY, NOW - 60 * DAY, 400),
    ),
    {"churn_1": "its horizon is 30d, now it is 60d"},
    12,
)


@pytest.fixture(autouse=True)
def _nothing_stays(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.live_performance")


def test_a_judgement_is_read_back_as_it_was_whoever_is_champion_by_now(postgres_url: str) -> None:
    record_live(postgres_url, FOUND, NOW)
    record_live(postgres_url, replace(FOUND, role="challenger"), NOW)
    assert newest_live(postgres_url, "churn", "champion", NOW - DAY) == FOUND
    assert newest_live(postgres_url, "churn", "champion", NOW + DAY) is None
    assert newest_live(postgres_url, "conversion", "champion", NOW - DAY) is None


def test_a_judgement_of_the_same_moment_is_replaced_and_the_newest_is_read(
    postgres_url: str,
) -> None:
    again = replace(FOUND, predictions=901, left_out=11)
    later = replace(FOUND, until=FOUND.until + DAY, predictions=950)
    record_live(postgres_url, FOUND, NOW)
    record_live(postgres_url, again, NOW)
    assert newest_live(postgres_url, "churn", "champion", NOW - DAY) == again
    record_live(postgres_url, later, NOW + DAY)
    assert newest_live(postgres_url, "churn", "champion", NOW - DAY) == later
