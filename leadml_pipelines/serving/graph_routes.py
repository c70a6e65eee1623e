"""The route about one entity in the graph."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from leadml_pipelines.graph.bolt import GraphUnavailableError
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.errors import ApiError, json_response
from leadml_pipelines.serving.graph_lookup import GraphLookup, GraphNotConfiguredError

MAX_NEIGHBOURS = 500

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.NOT_FOUND, "the graph has no such entity"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a request that can't be answered, with the reason"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "no graph is configured, or it does not answer now"),
    )
}


def graph_routes(lookup: GraphLookup) -> APIRouter:
    """The router of `GET /api/v1/features/graph/{entity_id}`."""
    routes = APIRouter(prefix="/api/v1/features", tags=["features"], responses=_ERRORS)

    # Any text is an id, one with a slash too.
    @routes.get("/graph/{entity_id:path}", response_model=contract.GraphResponse)
    def graph(
        entity_id: str,
        entity_type: Annotated[
            Literal["lead", "agent"], Query(description="what the id is of")
        ] = "lead",
        limit: Annotated[
            int,
            Query(ge=1, le=MAX_NEIGHBOURS, description="most neighbours that are listed"),
        ] = 50,
    ) -> Response:
        """A lead or an agent as the graph has it now, with the metrics of the latest snapshot."""
        try:
            found = lookup(entity_type, entity_id, limit)
        except GraphNotConfiguredError as error:
            raise _unavailable("graph_not_configured", str(error)) from error
        except GraphUnavailableError as error:
            # Only the kind: the message names the graph's address, and the log has it.
            kind = type(error.__cause__ or error).__name__
            why = f"the graph did not answer ({kind}); try again shortly"
            raise _unavailable("graph_unavailable", why) from error
        if found is None:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "unknown_entity",
                f"the graph has no {entity_type} with the id {entity_id}",
            )
        return json_response({"success": True, "data": found})

    return routes


def _unavailable(code: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, code, message)
