"""Figures of serving, out of logged predictions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.serving_figures import (
    LEAST_TIMED,
    ServingFigures,
    read_serving_figures,
)
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.monitoring.predictions import add_predictions

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _no_predictions(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")


def serve(url: str, requests: int, batch: int = 1, latency_ms: float | None = 2.0) -> None:
    for n in range(requests):
        leads = [f"l{m}" for m in range(batch)]
        add_predictions(url, leads, NOW - (n + batch) * SECOND, latency_ms=latency_ms)


def figures(url: str) -> ServingFigures:
    found = read_serving_figures(url, NOW, least=1)
    assert isinstance(found, ServingFigures)
    return found


def test_a_slow_batch_is_one_slow_request_among_many_quick_ones(postgres_url: str) -> None:
    serve(postgres_url, 40)
    serve(postgres_url, 1, batch=500, latency_ms=900.0)
    found = figures(postgres_url)
    assert (found.predictions, found.timed) == (540, 41)
    assert found.latency_p95_ms == 2.0


def test_a_few_requests_have_no_percentile(postgres_url: str) -> None:
    serve(postgres_url, LEAST_TIMED - 1, batch=50)
    serve(postgres_url, 100, latency_ms=None)
    assert figures(postgres_url).latency_p95_ms is None
    serve(postgres_url, 1, batch=51, latency_ms=3.0)
    assert figures(postgres_url).latency_p95_ms == pytest.approx(2.05)


def test_too_few_predictions_are_not_summed_up(postgres_url: str) -> None:
    assert isinstance(read_serving_figures(postgres_url, NOW, least=1), NotEnough)
