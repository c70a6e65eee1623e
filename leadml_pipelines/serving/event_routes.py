"""The route by which events come in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from leadml_pipelines.serving import contract
from leadml_pipelines.serving.connections import PostgresUnavailableError, StatementFailedError
from leadml_pipelines.serving.errors import ApiError, json_response
from leadml_pipelines.serving.events import EventDoor

_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.CONFLICT, "lead_events is a view of the customer's, which is only read"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a request that is not of this shape"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL can't store events now"),
    )
}


def event_routes(door: EventDoor) -> APIRouter:
    """The routes of events.

    Args:
        door: What stores them.
    """
    routes = APIRouter(prefix="/api/v1", tags=["events"])

    @routes.post("/events", response_model=contract.EventsResponse, responses=_ERRORS)
    def events(request: contract.EventsRequest) -> Response:
        """Store 1 to 1,000 events of leads; the next read of their features sees them.

        Each is answered by itself: `stored`, `duplicate` (the same event was known; it changes
        nothing), or `quarantined` with the reason, where it waits for a correction.
        """
        rows = [event.model_dump(exclude_unset=True) for event in request.events]
        try:
            receipt = door.post(rows)
        except TypeError as error:
            raise ApiError(HTTPStatus.CONFLICT, "events_not_taken", str(error)) from error
        except (PostgresUnavailableError, StatementFailedError) as error:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "events_not_stored",
                "PostgreSQL can't store events now; post the same events again shortly, "
                "for those that were stored are not stored twice",
            ) from error
        answers = [
            {
                "event_id": event.event_id,
                "status": posted.status,
                "reason": posted.reason,
                "message": posted.message,
            }
            for event, posted in zip(request.events, receipt.events, strict=True)
        ]
        invalidation = "done" if receipt.invalidated else "pending"
        return json_response({"success": True, "events": answers, "invalidation": invalidation})

    return routes
