"""What the app measures about itself, for Prometheus."""

from __future__ import annotations

import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The app's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "leadml_http_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "leadml_http_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.entities = Counter(
            "leadml_online_entities_total",
            "Entities asked for, by where they were found: cache, computed, snapshot, nowhere.",
            ["source"],
            registry=self.registry,
        )
        self.stale = Counter(
            "leadml_online_stale_entities_total",
            "Entities answered with values older than they should be.",
            registry=self.registry,
        )
        self.stale_share = Gauge(
            "leadml_online_stale_share",
            "Share of the entities answered in the last five minutes that were stale; "
            "the target is under 0.05.",
            registry=self.registry,
        )
        self.computed = Counter(
            "leadml_online_computed_entities_total",
            "Entities computed in PostgreSQL because the cache had them not, by why: missing, "
            "invalidated, stale, doubtful, broken, redis_down.",
            ["reason"],
            registry=self.registry,
        )
        self.held_back = Counter(
            "leadml_online_held_back_values_total",
            "Computed values that were not put online: out of range, or of a wrong type.",
            ["feature", "reason"],
            registry=self.registry,
        )
        self.events = Counter(
            "leadml_events_total",
            "Posted events by what became of them: stored, duplicate, quarantined.",
            ["status"],
            registry=self.registry,
        )
        self.invalidated = Counter(
            "leadml_online_invalidated_entities_total",
            "Entities of which somebody said that their rows were written past the app, by type.",
            ["entity_type"],
            registry=self.registry,
        )
        self.invalidations_waiting = Gauge(
            "leadml_online_invalidations_waiting",
            "Entities whose values are untrue and of which Redis was not told yet.",
            registry=self.registry,
        )
        self.failures = Counter(
            "leadml_online_failures_total",
            "Times a store could not be read or written.",
            ["store"],
            registry=self.registry,
        )
        self.audited = Counter(
            "leadml_audit_vectors_total",
            "Served vectors drawn for the skew audit: logged, or dropped for want of PostgreSQL.",
            ["outcome"],
            registry=self.registry,
        )
        self.predictions = Counter(
            "leadml_predictions_total", "Predictions by model.", ["model"], registry=self.registry
        )
        self.prediction_log = Counter(
            "leadml_prediction_log_total",
            "Logged predictions by what became of them: stored in PostgreSQL, known there already, "
            "refused as none, dropped for want of Redis.",
            ["outcome"],
            registry=self.registry,
        )
        self.prediction_log_waiting = Gauge(
            "leadml_prediction_log_waiting",
            "Predictions in Redis that are not in PostgreSQL yet.",
            registry=self.registry,
        )
        self.model_loaded = Gauge(
            "leadml_model_loaded",
            "1 for each version of a model that answers.",
            ["model", "model_id"],
            registry=self.registry,
        )
        self.model_instead = Gauge(
            "leadml_model_fallback",
            "1 while another version of a model answers than its champion, which could not be "
            "loaded: the one that answered before, or, after a restart, the previous one.",
            ["model"],
            registry=self.registry,
        )
        self.model_failures = Counter(
            "leadml_model_load_failures_total",
            "Times a new version of a model could not be loaded.",
            ["model"],
            registry=self.registry,
        )
        self.challenger_failures = Counter(
            "leadml_challenger_failed_predictions_total",
            "Entities that the champion answered for because the challenger failed.",
            ["model", "model_id"],
            registry=self.registry,
        )


class MetricsMiddleware:
    """Counts and times requests.

    Args:
        app: What answers.
        metrics: Where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, receive, note_status)
        finally:
            # The pattern of the route, never the path: paths are endless.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, scope["method"], status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - start)
