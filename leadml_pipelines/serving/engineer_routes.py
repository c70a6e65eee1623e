"""The route that computes features which nobody declared yet, and proposes some."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import psycopg
from fastapi import APIRouter
from psycopg.conninfo import make_conninfo
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
from leadml_pipelines.features.view import FeatureDefinitionError
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.errors import ApiError, json_response, some
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    from leadml_pipelines.learning.proposals import Proposals

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.NOT_FOUND, "an entity that nobody knows, by name"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a spec that means nothing, with near matches"),
        (HTTPStatus.TOO_MANY_REQUESTS, "proposals are being made for somebody else"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL or the training set is not at hand"),
    )
}


def engineer_routes(settings: Settings) -> APIRouter:
    """`/engineer`.

    Args:
        settings: PostgreSQL, the clock, and the home folder with training sets and extracts.
    """
    routes = APIRouter(prefix="/api/v1/features", tags=["features"])
    proposing = threading.Lock()
    url = make_conninfo(settings.require_postgres(), connect_timeout=2)

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
            as_of, values = _computed(settings, url, made, request)
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
    settings: Settings, url: str, made: AdHoc, request: contract.EngineerRequest
) -> tuple[datetime, dict[str, Any]]:
    """The moment, and the values by entity."""
    entity, schema = request.entity_type, settings.crm_schema
    with _refusals():
        unknown = unknown_entities(url, entity, request.entity_ids, schema=schema)
        if unknown:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "unknown_entity",
                f"there is no {entity} with the id {some(unknown)}",
            )
        as_of = request.as_of or present(url, entity, settings.clock)
        return as_of, compute_now(url, made, request.entity_ids, as_of, schema=schema)


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
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid_function",
            f"PostgreSQL can't compute this: {error.diag.message_primary}; does a part of a score "
            "take a feature for another type?",
        ) from error
    except psycopg.errors.QueryCanceled as error:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too_slow",
            "PostgreSQL took too long; ask for fewer functions, shorter windows or fewer ids",
        ) from error
    except psycopg.OperationalError as error:
        # Only the kind: a driver's message may quote the address.
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "postgres_unavailable",
            f"PostgreSQL can't be reached ({type(error).__name__})",
        ) from error


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
