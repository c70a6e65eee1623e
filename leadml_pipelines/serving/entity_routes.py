"""The route by which somebody says that rows of entities were written past the app."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from leadml_pipelines.features.entity_types import UnknownEntityTypeError
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.connections import PostgresUnavailableError, StatementFailedError
from leadml_pipelines.serving.entity_door import EntityDoor
from leadml_pipelines.serving.errors import ApiError, json_response

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a request that can't be answered, with the reason"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL can't take a note now"),
    )
}


def entity_routes(door: EntityDoor) -> APIRouter:
    """The routes of entities.

    Args:
        door: What makes their values untrue.
    """
    routes = APIRouter(prefix="/api/v1/entities", tags=["entities"])

    @routes.post("/invalidate", response_model=contract.InvalidateResponse, responses=_ERRORS)
    def invalidate(request: contract.InvalidateRequest) -> Response:
        """Have the features of 1 to 1,000 entities computed anew by the next read.

        To be called by whoever writes policies, closures, assignments or leads into the tables
        itself, after its commit. Events that are posted here need no such call.
        """
        ids = request.entity_ids
        try:
            told = door.invalidate(request.entity_type, ids, request.at)
        except UnknownEntityTypeError as error:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_entity_type", str(error)
            ) from error
        except (PostgresUnavailableError, StatementFailedError) as error:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_invalidated",
                "PostgreSQL can't take a note of it now; ask for the same again shortly, "
                "for to say it twice is as good as once",
            ) from error
        return json_response(
            {
                "success": True,
                "entities": len(set(ids)),
                "invalidation": "done" if told else "pending",
            }
        )

    return routes
