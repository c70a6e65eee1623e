"""One entity in the graph: its surroundings over Bolt, and at the same time its metrics."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Literal

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from leadml_pipelines.graph.bolt import GraphUnavailableError
from leadml_pipelines.graph.live import LiveGraph
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.settings import MissingSettingError, Settings

METRICS_SECONDS = 0.8
"""Seconds that PostgreSQL gets; the answer goes without metrics after that."""
METRICS_REST = 1.0
"""Seconds for which PostgreSQL is left alone after it failed."""
LOOKUPS = 4
"""Lookups of metrics at the same time, each over a connection of its own that is kept."""

_LIMITS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 2000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}
_NEWEST = (
    "SELECT * FROM leadml.graph_metrics WHERE entity_type = %s AND entity_id = %s"
    " ORDER BY as_of DESC LIMIT 1"
)
_KEY = ("entity_type", "entity_id", "as_of", "computed_at")

Missing = Literal["no_snapshot", "postgres_unavailable"]

log = structlog.get_logger(__name__)


class GraphNotConfiguredError(GraphUnavailableError):
    """The settings name no graph."""


class _RestError(psycopg.OperationalError):
    """PostgreSQL was not asked, because it failed a moment ago."""


class GraphLookup:
    """Looks single entities up in the graph. Safe to share between threads.

    Args:
        settings: The graph's address; it may have none.
        postgres_url: Where the metrics are.
        metrics: Where to count.
    """

    def __init__(self, settings: Settings, postgres_url: str, metrics: Metrics) -> None:
        self._not_configured = ""
        self._graph: LiveGraph | None = None
        try:
            self._graph = LiveGraph(settings.require_neo4j())
        except MissingSettingError as error:
            self._not_configured = f"no graph is configured: {error}"
        self._newest = NewestMetrics(postgres_url)
        self._metrics = metrics

    def open(self) -> None:
        """Import and start what the first request would wait for."""
        if self._graph is not None:
            self._graph.open()

    def close(self) -> None:
        """Close all connections."""
        if self._graph is not None:
            self._graph.close()
        self._newest.close()

    def __call__(self, entity_type: str, entity_id: str, limit: int) -> dict[str, Any] | None:
        """What `contract.GraphSurroundings` describes, or None if the graph has no such entity.

        Raises:
            GraphNotConfiguredError: there is no graph to ask.
            GraphUnavailableError: it did not answer.
        """
        if self._graph is None:
            raise GraphNotConfiguredError(self._not_configured)
        newest = self._newest.ask(entity_type, entity_id)
        try:
            found = self._graph.surroundings(entity_type, entity_id, limit)
        except GraphUnavailableError:
            newest.cancel()
            self._metrics.failures.labels("graph").inc()
            raise
        if found is None:
            newest.cancel()
            return None
        metrics, missing = self._known(newest)
        return asdict(found) | {
            "community": metrics["values"].get("community") if metrics else None,
            "metrics": metrics,
            "metrics_missing": missing,
        }

    def _known(
        self, newest: Future[dict[str, Any] | None]
    ) -> tuple[dict[str, Any] | None, Missing | None]:
        """The metrics, or why there are none."""
        try:
            row = self._newest.result(newest)
        except (psycopg.Error, TimeoutError) as error:
            self._metrics.failures.labels("postgres").inc()
            log.warning("graph_metrics_unavailable", error=type(error).__name__)
            return None, "postgres_unavailable"
        if row is None:
            return None, "no_snapshot"
        values = {name: value for name, value in row.items() if name not in _KEY}
        return {"as_of": row["as_of"], "computed_at": row["computed_at"], "values": values}, None


class NewestMetrics:
    """Reads the newest row of an entity in `leadml.graph_metrics`, in threads of its own.

    Args:
        postgres_url: `postgresql://...`.
    """

    def __init__(self, postgres_url: str) -> None:
        self._url = make_conninfo(postgres_url, **_LIMITS)
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="graph-metrics")
        self._own = threading.local()
        self._open: list[psycopg.Connection[Any]] = []
        self._rests_until = 0.0

    def ask(self, entity_type: str, entity_id: str) -> Future[dict[str, Any] | None]:
        """Begin to read; `result` gives the row."""
        if time.monotonic() < self._rests_until:
            rests: Future[dict[str, Any] | None] = Future()
            rests.set_exception(_RestError("PostgreSQL failed a moment ago"))
            return rests
        return self._threads.submit(self._read, entity_type, entity_id)

    def result(self, asked: Future[dict[str, Any] | None]) -> dict[str, Any] | None:
        """The row that was asked for, or None if there is none.

        Raises:
            psycopg.Error: PostgreSQL did not answer or failed.
            TimeoutError: it did not answer in time.
        """
        try:
            return asked.result(METRICS_SECONDS)
        except _RestError:
            raise  # A rest that each question during it made longer would never end.
        except (psycopg.Error, TimeoutError):
            asked.cancel()
            self._rests_until = time.monotonic() + METRICS_REST
            raise

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(cancel_futures=True)
        while self._open:
            self._open.pop().close()

    def _read(self, entity_type: str, entity_id: str) -> dict[str, Any] | None:
        while True:
            kept: psycopg.Connection[Any] | None = getattr(self._own, "connection", None)
            connection = kept or self._connect()
            try:
                with connection.cursor(row_factory=dict_row) as cursor:
                    # Not prepared: a migration that adds a metric would make it an error.
                    cursor.execute(_NEWEST, (entity_type, entity_id), prepare=False)
                    return cursor.fetchone()
            except psycopg.OperationalError:
                self._forget(connection)
                # A server that was started again has closed the connections of before.
                if kept is None:
                    raise

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect(self._url, autocommit=True)
        self._open.append(connection)
        self._own.connection = connection
        connection.execute(f"SET statement_timeout = {int(METRICS_SECONDS * 1000)}".encode())
        return connection

    def _forget(self, connection: psycopg.Connection[Any]) -> None:
        connection.close()
        self._own.connection = None
        if connection in self._open:
            self._open.remove(connection)
