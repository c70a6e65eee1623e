"""The alerts that fire, as metrics of the app: what the rules said last, out of PostgreSQL.

A scrape never waits for PostgreSQL. It shows what was read last, and when that is old a thread of
its own reads it anew, for the next scrape; how old it is stands beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import psycopg
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from leadml_pipelines.monitoring.alert_state import Alert

PERIOD = 15.0
"""Seconds between two readings, at least."""
_ANSWER_SECONDS = 3.0
_CONNECT_SECONDS = 2

log = structlog.get_logger(__name__)


class AlertMetrics(Collector):
    """`leadml_alert_firing` and the age of what it shows.

    Args:
        postgres_url: `postgresql://...`.
        period: Seconds between two readings, at least.
    """

    def __init__(self, postgres_url: str, period: float = PERIOD) -> None:
        self._url = postgres_url
        self._period = period
        self._turn = threading.Lock()
        self._firing: Sequence[Alert] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading = False

    def describe(self) -> Iterable[Metric]:
        """Which metrics there are; asked when they are registered, when nothing shall be read."""
        return self._metrics((), None)

    def collect(self) -> Iterable[Metric]:
        """What was read last; begins to read anew when that is old."""
        now = time.monotonic()
        with self._turn:
            due = self._tried_at is None or now - self._tried_at >= self._period
            start = due and not self._reading
            if start:
                self._reading, self._tried_at = True, now
            firing = self._firing
            age = None if self._read_at is None else now - self._read_at
        if start:
            threading.Thread(target=self.read, name="alert-metrics", daemon=True).start()
        return self._metrics(firing, age)

    def read(self) -> None:
        """Read which alerts fire; what was read before stays when PostgreSQL does not answer."""
        from leadml_pipelines.monitoring.alert_state import firing_alerts

        try:
            firing = firing_alerts(
                self._url, answer_seconds=_ANSWER_SECONDS, connect_timeout=_CONNECT_SECONDS
            )
        except psycopg.Error as error:
            # Only the kind: a driver's message may quote the address.
            log.warning("alerts_not_read", error=type(error).__name__)
        else:
            with self._turn:
                self._firing, self._read_at = firing, time.monotonic()
        finally:
            with self._turn:
                self._reading = False

    def _metrics(self, firing: Sequence[Alert], age: float | None) -> list[Metric]:
        alerts = GaugeMetricFamily(
            "leadml_alert_firing",
            "1 for each alert that fires, by rule, subject and severity.",
            labels=["rule", "subject", "severity"],
        )
        for alert in firing:
            alerts.add_metric([alert.rule, alert.subject, alert.severity], 1)
        seconds = GaugeMetricFamily(
            "leadml_alerts_read_seconds",
            "Seconds since leadml_alert_firing was read from PostgreSQL; absent before that.",
        )
        if age is not None:
            seconds.add_metric([], age)
        return [alerts, seconds]
