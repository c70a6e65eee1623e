"""What monitoring found, kept and read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from leadml_pipelines.learning.served_versions import ServedVersion
from leadml_pipelines.monitoring.live import LiveMetric, LivePerformance
from leadml_pipelines.monitoring.populations import Populations
from leadml_pipelines.monitoring.records import (
    newest_drift,
    newest_live,
    record_drift,
    record_live,
)
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.monitoring.watched import leads

NOW = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
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
        connection.execute("TRUNCATE leadml.live_performance, leadml.drift")


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


def test_by_a_clock_that_was_put_back_the_newest_is_still_what_was_found_last(
    postgres_url: str,
) -> None:
    rows = leads(10, 1)
    both = Populations("churn_1", rows, np.zeros(10, np.int64), rows, (), NOW)
    ahead = record_drift(postgres_url, "churn", both, (), NOW + DAY)
    assert newest_drift(postgres_url, "churn", "churn_1", "snapshot", NOW - DAY) == ahead
    later = record_drift(postgres_url, "churn", replace(both, as_of=NOW + HOUR), (), NOW)
    assert newest_drift(postgres_url, "churn", "churn_1", "snapshot", NOW - DAY) == later
    again = record_drift(postgres_url, "churn", both, (), NOW - HOUR)
    assert newest_drift(postgres_url, "churn", "churn_1", "snapshot", NOW - DAY) == again
    record_live(postgres_url, FOUND, NOW + DAY)
    true = replace(FOUND, until=FOUND.until + HOUR)
    record_live(postgres_url, true, NOW)
    assert newest_live(postgres_url, "churn", "champion", NOW - DAY) == true


def test_each_population_has_a_newest_comparison_of_its_own(postgres_url: str) -> None:
    rows = leads(10, 1)
    both = Populations("churn_1", rows, np.zeros(10, np.int64), rows, (), NOW)
    snapshot = record_drift(postgres_url, "churn", both, (), NOW)
    served = record_drift(postgres_url, "churn", replace(both, population="served"), (), NOW)
    assert newest_drift(postgres_url, "churn", "churn_1", "snapshot", NOW - DAY) == snapshot
    assert newest_drift(postgres_url, "churn", "churn_1", "served", NOW - DAY) == served
    assert newest_drift(postgres_url, "churn", "churn_1", "answers", NOW - DAY) is None
