"""Alerts on /metrics: what was read last, and never a wait for PostgreSQL."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from leadml_pipelines.monitoring.alert_state import record_judgements
from leadml_pipelines.monitoring.alerts import Judgement
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.alert_metrics import AlertMetrics

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
READ = "\nleadml_alerts_read_seconds "
FIRES = 'leadml_alert_firing{rule="latency",severity="warning",subject="serving"} 1.0'
LATENCY = Judgement("latency", "serving", True, "slow", 90.0, 50.0)


@pytest.fixture(autouse=True)
def _no_alerts(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.alerts, leadml.alert_runs")


def scraped(metrics: AlertMetrics) -> Callable[[], str]:
    """What Prometheus gets."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return lambda: generate_latest(registry).decode()


def soon(read: Callable[[], str], text: str) -> bool:
    """Whether a scrape of the next seconds has a text."""
    for _ in range(100):
        if text in read():
            return True
        time.sleep(0.05)
    return False


def test_an_alert_that_fires_is_a_metric_until_it_ends(postgres_url: str) -> None:
    scrape = scraped(AlertMetrics(postgres_url, period=0.0))
    record_judgements(postgres_url, [LATENCY], NOW)
    assert soon(scrape, FIRES)
    assert READ in scrape()
    record_judgements(postgres_url, [], NOW)
    for _ in range(100):
        if FIRES not in scrape():
            break
        time.sleep(0.05)
    assert FIRES not in scrape()


def test_it_is_read_no_more_often_than_every_period(postgres_url: str) -> None:
    scrape = scraped(AlertMetrics(postgres_url, period=3600.0))
    assert soon(scrape, READ)
    record_judgements(postgres_url, [LATENCY], NOW)
    time.sleep(0.2)
    assert FIRES not in scrape()


def test_what_was_read_stays_while_postgresql_is_away(postgres_url: str) -> None:
    metrics = AlertMetrics(postgres_url, period=3600.0)
    scrape = scraped(metrics)
    record_judgements(postgres_url, [LATENCY], NOW)
    metrics.read()
    metrics._url = "postgresql://leadml:hunter2@127.0.0.1:1/none"
    metrics.read()
    assert FIRES in scrape()


def test_a_scrape_does_not_wait_for_a_postgresql_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/db"
        metrics = AlertMetrics(url, period=0.0)
        scrape = scraped(metrics)
        texts = [scrape() for _ in range(3)]
        # The first reading is still waiting: no other was begun, and no scrape waited for it.
        assert metrics._reading
        assert not any(READ in text for text in texts)
