"""The HTTP app, put together from its parts."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import metadata
from typing import Any

from fastapi import FastAPI

from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.publish_models import pointer_of
from leadml_pipelines.serving.alert_metrics import AlertMetrics
from leadml_pipelines.serving.assignment import CHALLENGER, CHAMPION
from leadml_pipelines.serving.connections import Connections
from leadml_pipelines.serving.engineer_routes import open_connections
from leadml_pipelines.serving.errors import add_error_handlers
from leadml_pipelines.serving.graph_lookup import GraphLookup
from leadml_pipelines.serving.lineages import trace_ahead
from leadml_pipelines.serving.lookup import import_ahead
from leadml_pipelines.serving.metrics import Metrics, MetricsMiddleware
from leadml_pipelines.serving.model_routes import ANSWER_SECONDS
from leadml_pipelines.serving.models import PREVIOUS, Alias, ModelShelf, Pointers
from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.serving.prediction_log import PredictionLog
from leadml_pipelines.serving.redis_state import REDIS_TIMEOUT
from leadml_pipelines.serving.routes import Parts, add_routes
from leadml_pipelines.serving.security import ApiKeyMiddleware, key_digests
from leadml_pipelines.settings import Settings

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request body that are accepted: a thousand of the longest ids fit."""

_AFTER_SOCKET = 0.05
"""Seconds after start-up at which models begin to load; the socket is open by then."""


def create_app(settings: Settings) -> FastAPI:
    """The app that answers for features and predictions.

    It opens no connection and loads no model yet: that happens once it is served.

    Args:
        settings: Addresses of Redis and PostgreSQL, the clock, the API keys.

    Raises:
        MissingSettingError: Redis or PostgreSQL have no address.
        ValueError: the digest of an API key is not one.
    """
    postgres_url = settings.require_postgres()
    measured = Metrics()
    measured.registry.register(AlertMetrics(postgres_url))
    online = OnlineFeatures(settings, measured)
    graph = GraphLookup(settings, postgres_url, measured)
    ad_hoc = open_connections(settings)
    prediction_log = PredictionLog(settings, measured)
    pointers = ModelPointers(settings.require_redis(), timeout_seconds=REDIS_TIMEOUT)
    shelf = ModelShelf(
        pointers,
        _registered(settings, postgres_url),
        SigningKey.of(settings),
        settings.artifacts,
        measured,
        partial(_settle, online, graph),
    )
    app = FastAPI(
        title="LeadML",
        description="Features and predictions for insurance lead generation.",
        version=metadata.version("leadml"),
        lifespan=_lifespan(online, pointers, shelf, graph, ad_hoc, prediction_log),
        max_body_size=MAX_BODY,
    )
    add_error_handlers(app)
    add_routes(
        app,
        Parts(
            online.store,
            online.reader,
            shelf,
            measured,
            postgres_url,
            online.event_door,
            online.entity_door,
            settings,
            graph,
            ad_hoc,
            prediction_log,
        ),
    )
    # The last one added is asked first.
    app.add_middleware(ApiKeyMiddleware, digests=key_digests(settings))
    app.add_middleware(MetricsMiddleware, metrics=measured)
    return app


def _lifespan(
    online: OnlineFeatures,
    pointers: ModelPointers,
    shelf: ModelShelf,
    graph: GraphLookup,
    ad_hoc: Connections,
    prediction_log: PredictionLog,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_later(_AFTER_SOCKET, shelf.start)
        online.start()
        prediction_log.start()
        yield
        await asyncio.to_thread(prediction_log.close)
        await asyncio.to_thread(shelf.stop)
        await asyncio.to_thread(pointers.close)
        await asyncio.to_thread(graph.close)
        await asyncio.to_thread(ad_hoc.close)
        await asyncio.to_thread(online.close)

    return lifespan


def _registered(settings: Settings, postgres_url: str) -> Callable[[], Mapping[Alias, Pointers]]:
    """The pointers by alias as the registry in PostgreSQL knows them."""

    def read() -> Mapping[Alias, Pointers]:
        from leadml_pipelines.learning.registry.registry import Registry

        registry = Registry.of(
            settings,
            postgres_url,
            answer_seconds=ANSWER_SECONDS,
            connect_timeout=int(ANSWER_SECONDS),
        )
        held, records = registry.overview()
        found: dict[Alias, dict[str, Mapping[str, Any]]]
        found = {CHAMPION: {}, CHALLENGER: {}, PREVIOUS: {}}
        for one in held:
            found[one.alias][one.name] = pointer_of(
                records[one.model_id], one.alias, one.traffic_share
            )
        return found

    return read


def _settle(online: OnlineFeatures, graph: GraphLookup) -> None:
    """Import and compile the rest, and keep it all out of every later garbage collection.

    A full collection otherwise walks all of it, and a request waits meanwhile.
    """
    interval = sys.getswitchinterval()
    # Compiling is seconds of pure Python: requests of that time get their turn ten times as often.
    sys.setswitchinterval(interval / 10)
    try:
        import_ahead()
        online.prepare()
        graph.open()
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    gc.freeze()
    trace_ahead()
