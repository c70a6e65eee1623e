"""One entity in the graph: its surroundings over Bolt, and at the same time its metrics."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Literal

import psycopg
import structlog
from psycopg.rows import dict_row

from leadml_pipelines.graph.bolt import GraphUnavailableError
from leadml_pipelines.graph.live import LiveGraph
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.settings import MissingSettingError, Settings

METRICS_SECONDS = 0.8
"""Seconds that PostgreSQL gets; the answer goes without metrics after that."""
METRICS_REST = 1.0
"""Seconds for which PostgreSQL is left alone after it failed."""
LOOKUPS = 4
"""Lookups of metrics at the same time."""

_NEWEST = (
    "SELECT * FROM leadml.graph_metrics WHERE entity_type = %s AND entity_id = %s"
    " ORDER BY as_of DESC LIMIT 1"
)
_KEY = ("entity_type", "entity_id", "as_of", "computed_at")

_NO_METRICS = (PostgresUnavailableError, StatementFailedError, TimeoutError)

Missing = Literal["no_snapshot", "postgres_unavailable"]

log = structlog.get_logger(__name__)


class GraphNotConfiguredError(GraphUnavailableError):
    """The settings name no graph."""


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
        except GraphUnavailableError as error:
            newest.cancel()
            self._metrics.failures.labels("graph").inc()
            log.warning("graph_unavailable", error=str(error))
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
        except _NO_METRICS as error:
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
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="graph-metrics")
        self._connections = Connections(postgres_url, LOOKUPS, statement_seconds=METRICS_SECONDS)
        self._rests_until = 0.0

    def ask(self, entity_type: str, entity_id: str) -> Future[dict[str, Any] | None]:
        """Begin to read; `result` gives the row."""
        if time.monotonic() < self._rests_until:
            rests: Future[dict[str, Any] | None] = Future()
            rests.set_exception(PostgresUnavailableError("failed a moment ago"))
            return rests

        def read(connection: psycopg.Connection[Any]) -> dict[str, Any] | None:
            with connection.cursor(row_factory=dict_row) as cursor:
                # Not prepared: a migration that adds a metric would make it an error.
                cursor.execute(_NEWEST, (entity_type, entity_id), prepare=False)
                return cursor.fetchone()

        return self._threads.submit(self._connections.run, read)

    def result(self, asked: Future[dict[str, Any] | None]) -> dict[str, Any] | None:
        """The row that was asked for, or None if there is none.

        Raises:
            PostgresUnavailableError, StatementFailedError: PostgreSQL did not answer or failed.
            TimeoutError: it did not answer in time.
        """
        try:
            return asked.result(METRICS_SECONDS)
        except _NO_METRICS:
            asked.cancel()
            now = time.monotonic()
            # A rest that each question during it made longer would never end.
            if now >= self._rests_until:
                self._rests_until = now + METRICS_REST
            raise

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(cancel_futures=True)
        self._connections.close()
