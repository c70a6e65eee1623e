"""The route that computes features which nobody declared yet, and proposes some."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import psycopg
from fastapi import APIRouter
from starlette.responses import Response

from leadml_pipelines.features.catalogue import UnknownFeatureError
from leadml_pipelines.features.engineer import (
    AdHoc,
    ad_hoc,
    compute_now,
    present,
    unknown_entities,
    view_of,
)
from leadml_pipelines.features.entity_types import ENTITY_TYPES
from leadml_pipelines.features.functions import FeatureFunction, FunctionSpecError
from leadml_pipelines.features.postgres_engine import SESSION
from leadml_pipelines.features.view import FeatureDefinitionError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)
from leadml_pipelines.serving.errors import ApiError, json_response, some
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    from leadml_pipelines.learning.proposals import Proposals

COMPUTATIONS = 2
"""Requests whose functions are computed at the same time."""
STATEMENT_SECONDS = 5.0
"""How long PostgreSQL may work on one statement, for ten entities, before it is stopped."""
COMPUTING_SECONDS = 10.0
"""After so long no further entities of a request are begun."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.NOT_FOUND, "an entity that nobody knows, by name"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a spec that means nothing, with near matches"),
        (HTTPStatus.TOO_MANY_REQUESTS, "proposals are being made for somebody else"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL or the training set is not at hand"),
    )
}


def open_connections(settings: Settings) -> Connections:
    """Connections over which functions are computed; nothing is connected yet."""
    url = settings.require_postgres()
    return Connections(url, COMPUTATIONS, SESSION, statement_seconds=STATEMENT_SECONDS)


def engineer_routes(settings: Settings, connections: Connections) -> APIRouter:
    """`/engineer`.

    Args:
        settings: The clock, and the home folder with training sets and extracts.
        connections: From `open_connections`.
    """
    routes = APIRouter(prefix="/api/v1/features", tags=["features"])
    proposing = threading.Lock()

    @routes.post("/engineer", response_model=contract.EngineerResponse, responses=_ERRORS)
    def engineer(request: contract.EngineerRequest) -> Response:
        """Feature functions computed now; with a target, functions proposed for its model.

        Proposals take seconds and are made one request at a time; another one is told to wait.
        """
        _check(request)
        with _refusals():
            made = ad_hoc(request.functions, request.entity_type) if request.functions else None
        proposals = None
        if request.target is not None:
            proposals = _proposals(settings, request.target, request.limit, proposing)
            if made is None and proposals.found:
                made = view_of([one.function for one in proposals.found], proposals.entity)
        as_of: datetime | None = None
        values: dict[str, Any] = {}
        if made is not None and request.entity_ids:
            as_of, values = _computed(settings, connections, made, request)
        return json_response(
            {
                "success": True,
                "as_of": as_of,
                "features": values,
                "definitions": [] if made is None else [_described(f) for f in made.functions],
                "proposals": [] if proposals is None else _proposed(proposals),
                "basis": None if proposals is None else _basis(proposals),
                "view": "" if made is None else made.text,
            }
        )

    return routes


def _check(request: contract.EngineerRequest) -> None:
    """Refuse what can't be answered, before anything is computed."""
    if request.entity_type not in ENTITY_TYPES:
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown_entity_type",
            f"there is no entity type {request.entity_type!r}; there is {', '.join(ENTITY_TYPES)}",
        )
    # Ids that can be no keys have no features either; the same sentence as everywhere.
    entity_keys(request.entity_type, request.entity_ids)
    if not request.functions and request.target is None:
        raise _invalid("give `functions` to compute, or a `target` to propose some for")
    if request.functions and not request.entity_ids:
        raise _invalid("give `entity_ids` to compute the functions for, 1 to 100")
    if request.as_of is not None and request.as_of > utc_now():
        raise _invalid(f"as_of is {request.as_of.isoformat()}, which lies in the future")
    if request.target is None:
        return
    if request.target not in SPECS:
        near = get_close_matches(request.target, SPECS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(SPECS)}"
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown_model",
            f"there is no model named {request.target}; {hint}",
        )
    if SPECS[request.target].entity != request.entity_type:
        raise _invalid(
            f"{request.target} is a model of {SPECS[request.target].entity}, not of "
            f"{request.entity_type}"
        )


def _computed(
    settings: Settings, connections: Connections, made: AdHoc, request: contract.EngineerRequest
) -> tuple[datetime, dict[str, Any]]:
    """The moment, and the values by entity."""
    entity, ids, schema = request.entity_type, request.entity_ids, settings.crm_schema
    deadline = time.monotonic() + COMPUTING_SECONDS

    def look(connection: psycopg.Connection[Any]) -> tuple[list[str], datetime]:
        unknown = unknown_entities(connection, entity, ids, schema=schema)
        return unknown, request.as_of or present(connection, entity, settings.clock)

    with _refusals():
        unknown, as_of = connections.run(look)
        if unknown:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "unknown_entity",
                f"there is no {entity} with the id {some(unknown)}",
            )
        found = compute_now(connections.run, made, ids, as_of, schema=schema, deadline=deadline)
        return as_of, found


def _proposals(settings: Settings, target: str, limit: int, turn: threading.Lock) -> Proposals:
    from leadml_pipelines.learning.proposals import NoBasisError, propose
    from leadml_pipelines.learning.split import TooLittleDataError

    if not turn.acquire(blocking=False):
        raise ApiError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "busy",
            "proposals are being made for another request; ask again in a few seconds",
        )
    try:
        return propose(settings, target, limit)
    except (NoBasisError, TooLittleDataError) as error:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "no_training_set", str(error)) from error
    finally:
        turn.release()


@contextmanager
def _refusals() -> Iterator[None]:
    """Errors of functions and of PostgreSQL as errors of the API."""
    try:
        yield
    except (FunctionSpecError, UnknownFeatureError, FeatureDefinitionError) as error:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_function", str(error)) from error
    except StatementFailedError as error:
        cause = error.__cause__
        if isinstance(cause, psycopg.ProgrammingError | psycopg.DataError):
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid_function",
                f"PostgreSQL can't compute this: {cause.diag.message_primary}; does a part of a "
                "score take a feature for another type?",
            ) from error
        if isinstance(cause, psycopg.errors.QueryCanceled):
            raise _too_slow() from error
        raise _unavailable(error) from error
    except TimeoutError as error:
        raise _too_slow() from error
    except PostgresUnavailableError as error:
        raise _unavailable(error) from error


def _too_slow() -> ApiError:
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too_slow",
        "PostgreSQL took too long; ask for fewer functions, shorter windows or fewer ids",
    )


def _unavailable(error: Exception) -> ApiError:
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "postgres_unavailable",
        f"PostgreSQL did not answer ({error}); try again shortly",
    )


def _invalid(message: str) -> ApiError:
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message)


def _described(function: FeatureFunction) -> dict[str, Any]:
    feature = function.feature
    return {
        "name": feature.name,
        "function": function.function,
        "type": feature.type,
        "unit": feature.unit,
        "low": feature.low,
        "high": feature.high,
        "default": feature.default,
        "description": feature.description,
        "dimension": feature.dimension,
        "spec": function.spec(),
        "definition": function.definition(),
    }


def _proposed(proposals: Proposals) -> list[dict[str, Any]]:
    return [
        {
            **_described(one.function),
            "score": one.score,
            "known_share": one.known_share,
            "most_like": one.most_like,
            "likeness": one.likeness,
        }
        for one in proposals.found
    ]


def _basis(proposals: Proposals) -> dict[str, Any]:
    return {
        "target": proposals.target,
        "rows": proposals.rows,
        "candidates": proposals.candidates,
        "training_set": proposals.training_set,
        "data_end": proposals.data_end,
    }
