"""The routes of the HTTP app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

import numpy as np
import psycopg
import redis
from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import contract, prediction_contract
from leadml_pipelines.serving.catalogue_routes import catalogue_routes
from leadml_pipelines.serving.connections import Connections
from leadml_pipelines.serving.engineer_routes import engineer_routes
from leadml_pipelines.serving.entity_door import EntityDoor
from leadml_pipelines.serving.entity_routes import entity_routes
from leadml_pipelines.serving.errors import ApiError, json_response
from leadml_pipelines.serving.event_routes import event_routes
from leadml_pipelines.serving.events import EventDoor
from leadml_pipelines.serving.found import Found, unknown_entity
from leadml_pipelines.serving.graph_lookup import GraphLookup
from leadml_pipelines.serving.graph_routes import graph_routes
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.model_routes import model_routes
from leadml_pipelines.serving.models import ModelShelf, ModelState
from leadml_pipelines.serving.predict import Predictor
from leadml_pipelines.serving.prediction_log import PredictionLog
from leadml_pipelines.serving.reader import FeatureReader
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import from_micros

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.NOT_FOUND, "an entity or a model that nobody knows, by name"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a request that can't be answered, with the reason"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "neither Redis nor PostgreSQL can answer now"),
    )
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes need.

    Attributes:
        store: The online store.
        reader: Features.
        shelf: Models.
        metrics: Counters.
        postgres_url: PostgreSQL, for its sign of life.
        event_door: Where events come in.
        entity_door: Where somebody says whose rows were written past the app.
        settings: All settings.
        graph: Single entities in the graph.
        ad_hoc: PostgreSQL, for functions that are computed on request.
        prediction_log: Where predictions are kept.
    """

    store: OnlineStore
    reader: FeatureReader
    shelf: ModelShelf
    metrics: Metrics
    postgres_url: str
    event_door: EventDoor
    entity_door: EntityDoor
    settings: Settings
    graph: GraphLookup
    ad_hoc: Connections
    prediction_log: PredictionLog


# The endpoints are plain functions, which FastAPI runs in threads: redis-py and psycopg without
# asyncio were as quick for one prediction as with it, and XGBoost would hold the loop up.


def add_routes(app: FastAPI, parts: Parts) -> None:
    """Give an app all its routes."""
    app.include_router(_feature_routes(parts.reader))
    app.include_router(event_routes(parts.event_door))
    app.include_router(entity_routes(parts.entity_door))
    app.include_router(catalogue_routes())
    app.include_router(engineer_routes(parts.settings, parts.ad_hoc))
    app.include_router(graph_routes(parts.graph))
    app.include_router(model_routes(parts.settings, parts.shelf))
    app.include_router(_model_routes(parts))
    app.include_router(_operation_routes(parts))


def _feature_routes(reader: FeatureReader) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/features", tags=["features"], responses=_ERRORS)

    @routes.post("/batch", response_model=contract.FeatureBatchResponse)
    def batch(request: contract.FeatureBatchRequest) -> Response:
        """Features of 1 to 1,000 entities; an unknown one is named so, 404 if all of them are.

        One that can't be had now is `unavailable`; 503 if all of them are.
        """
        found, features = _features(reader, request)
        return _answer(found, features, _meta(found, request.feature_names))

    @routes.post("/retrieve", response_model=contract.FeatureRetrieveResponse)
    def retrieve(request: contract.FeatureRetrieveRequest) -> Response:
        """Features of 1 to 100 entities, and of each its schema and when it was computed."""
        found, features = _features(reader, request)
        meta = _meta(found, request.feature_names)
        for its in meta.values():
            if its["source"] is None:
                its |= {"computed_at": None, "schema_id": None}
        for rows in found.batch.groups:
            computed = rows.computed_at.tolist()
            for position, moment in zip(rows.positions.tolist(), computed, strict=True):
                meta[found.batch.entity_ids[position]] |= {
                    "computed_at": from_micros(moment),
                    "schema_id": rows.schema.schema_id,
                }
        return _answer(found, features, meta)

    return routes


def _model_routes(parts: Parts) -> APIRouter:
    routes = APIRouter(prefix="/api/v1/ml", tags=["predictions"])
    predictor = Predictor(parts.reader, parts.shelf, parts.metrics, parts.prediction_log)

    @routes.post("/predict", response_model=prediction_contract.PredictResponse, responses=_ERRORS)
    def predict(request: prediction_contract.PredictRequest) -> Response:
        """One model's answer for one entity, with its reasons unless they are not wanted.

        A member that is not of this kind of model is left out.
        """
        row = predictor.one(request.model_type, request.entity_id, explain=request.explain)
        return json_response({"success": True, "data": row})

    @routes.post(
        "/predict/batch", response_model=prediction_contract.PredictBatchResponse, responses=_ERRORS
    )
    def predict_batch(request: prediction_contract.PredictBatchRequest) -> Response:
        """One model's answers for 1 to 1,000 entities, in their order.

        One that nobody knows, that the model does not score, or whose features can't be had now,
        has an `error` in its row; 503 if no features can be had at all. Reasons are given if they
        are wanted; they take a model longer than all else.
        """
        rows = predictor.many(request.model_type, request.entity_ids, explain=request.explain)
        return json_response({"success": True, "data": rows})

    @routes.get("/health", response_model=contract.HealthResponse)
    def health() -> Response:
        """How the app is: its models, Redis, PostgreSQL. 503 when it can't answer anything."""
        report = _health(parts)
        down = report["status"] == "down"
        return json_response(report, HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK)

    return routes


def _operation_routes(parts: Parts) -> APIRouter:
    routes = APIRouter(tags=["operation"], include_in_schema=False)

    @routes.get("/healthz")
    async def alive() -> Response:
        """Whether the process runs."""
        return json_response({"status": "ok"})

    @routes.get("/readyz")
    async def ready() -> Response:
        """Whether the app looked for its models; before that, a prediction would be refused."""
        if not parts.shelf.looked.is_set():
            return json_response({"status": "starting"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return json_response({"status": "ok"})

    @routes.get("/metrics")
    def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(
            generate_latest(parts.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    return routes


def _answer(found: Found, features: dict[str, Any], meta: dict[str, dict[str, Any]]) -> Response:
    return json_response(
        {"success": True, "features": features, "meta": meta, "degraded": found.degraded}
    )


def _features(
    reader: FeatureReader, request: contract.FeatureBatchRequest
) -> tuple[Found, dict[str, Any]]:
    """What was found, and the features of each entity by its id, None where there are none.

    Raises:
        ApiError: nobody that was asked for is known.
    """
    _check_names(request.entity_type, request.feature_names)
    found = reader.read(request.entity_type, request.entity_ids)
    unknown = found.unknown()
    if len(unknown) == len(request.entity_ids):
        raise unknown_entity(request.entity_type, unknown)
    rows = found.batch.python_rows(request.feature_names or None)
    return found, dict(zip(found.batch.entity_ids, rows, strict=True))


def _check_names(entity_type: str, names: Sequence[str]) -> None:
    types = catalogue().entities
    if entity_type not in types:
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown_entity_type",
            f"there is no entity type {entity_type!r}; there is {', '.join(types)}",
        )
    known = [feature.name for feature in catalogue().features(entity_type)]
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        sentences = [_unknown_feature(entity_type, name, known) for name in unknown[:5]]
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_feature", "; ".join(sentences))


def _unknown_feature(entity_type: str, name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no {entity_type} feature named {name}{hint}"


def _meta(found: Found, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Status, age, source and missing features of each entity, by its id.

    Args:
        found: What was found.
        names: Features that were asked for; all of them when empty.
    """
    ids = found.batch.entity_ids
    unknown: dict[str, Any] = {
        "status": "unknown",
        "as_of": None,
        "age_seconds": None,
        "source": None,
        "null_features": [],
        "degraded": found.degraded,
    }
    meta: dict[str, dict[str, Any]] = {entity_id: dict(unknown) for entity_id in ids}
    for at in found.unavailable:
        meta[ids[at]]["status"] = "unavailable"
    for rows in found.batch.groups:
        chosen = tuple(names) or rows.schema.names
        places = [rows.schema.positions.get(name, -1) for name in chosen]
        # A feature younger than the value's schema has no number there: the last column is NaN.
        padded = np.column_stack([rows.values, np.full(len(rows.positions), np.nan)])
        missing = np.isnan(padded[:, places])
        for at, (position, as_of) in enumerate(
            zip(rows.positions.tolist(), rows.as_of.tolist(), strict=True)
        ):
            meta[ids[position]] = {
                "status": "stale" if found.stale[position] else "present",
                "as_of": from_micros(as_of),
                "age_seconds": found.age_seconds(as_of),
                "source": found.sources[position],
                "null_features": [chosen[i] for i in np.flatnonzero(missing[at]).tolist()],
                "degraded": found.degraded,
            }
    return meta


def _health(parts: Parts) -> dict[str, Any]:
    redis_state, pointers = _redis_state(parts.store)
    services = {"redis": redis_state, "postgres": _postgres_state(parts.postgres_url)}
    challengers = parts.shelf.challengers
    models = {
        name: _model_health(state, parts.shelf.trouble(name))
        | {"challenger": _challenger_health(challengers.get(name))}
        for name, state in sorted(parts.shelf.states.items())
    }
    status, reason = _status(parts, services, models)
    return {
        "success": True,
        "status": status,
        "reason": reason,
        "models": models,
        "services": services,
        "schemas": {name: pointer.get("schema_id") for name, pointer in pointers.items()},
        "snapshot": {name: pointer.get("as_of") for name, pointer in pointers.items()},
    }


def _status(
    parts: Parts, services: dict[str, str], models: dict[str, dict[str, Any]]
) -> tuple[str, str | None]:
    """The status, and why it is not `ok`."""
    reasons = [f"{name} {state}" for name, state in services.items() if state != "ok"]
    if len(reasons) == len(services):
        return "down", "; ".join(reasons)
    if not parts.shelf.looked.is_set():
        return "starting", "the models are not loaded yet"
    reasons += [f"model {name}: {m['error']}" for name, m in models.items() if m["error"]]
    reasons += [
        f"challenger of {name}: {m['challenger']['error']}"
        for name, m in models.items()
        if m["challenger"] and m["challenger"]["error"]
    ]
    if not any(model["loaded"] for model in models.values()):
        reasons.append("no model is loaded, so nothing is predicted; train and promote one")
    return ("degraded", "; ".join(reasons)) if reasons else ("ok", None)


def _model_health(state: ModelState, trouble: str | None) -> dict[str, Any]:
    served = state.served
    return {
        "model_id": served.model.model_id if served else None,
        "loaded": served is not None,
        "loaded_at": served.loaded_at if served else None,
        "trained_at": served.pointer.get("trained_at") if served else None,
        "features": len(served.model.features) if served else None,
        "wanted_model_id": state.wanted.get("model_id"),
        "fallback": state.instead,
        "error": trouble,
    }


def _challenger_health(state: ModelState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    answers = state.error is None and state.served is not None
    return {
        "model_id": state.wanted.get("model_id"),
        "loaded": answers,
        "traffic_share": state.wanted["traffic_share"] if answers else None,
        "error": state.error,
    }


def _redis_state(store: OnlineStore) -> tuple[str, dict[str, dict[str, Any]]]:
    """`ok` or what is wrong, and the pointer to each entity type's newest snapshot."""
    types = catalogue().entities
    try:
        store.ping()
        return "ok", {name: store.snapshot(name) or {} for name in types}
    except redis.RedisError as error:
        return f"can't be reached ({type(error).__name__})", {name: {} for name in types}


def _postgres_state(url: str) -> str:
    try:
        with connect(url, answer_seconds=2, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return f"can't be reached ({type(error).__name__})"
    return "ok"
