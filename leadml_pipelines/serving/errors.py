"""One shape for everything that goes wrong: `{"success": false, "error": {"code", "message"}}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from leadml_pipelines.online.keys import EntityIdError

_NAMED = 5
"""How many of several names a message lists."""


class ApiError(Exception):
    """A request that can't be answered as asked.

    Args:
        status: HTTP status.
        code: Word for programs, such as `unknown_entity`.
        message: Sentence for people: what is wrong, and the way out.
    """

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def json_response(
    content: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response; NaN becomes null, an integer stays one, times are ISO 8601."""
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def error_response(status: int, code: str, message: str) -> Response:
    """The one shape of an error."""
    return json_response({"success": False, "error": {"code": code, "message": message}}, status)


def some(names: Iterable[str]) -> str:
    """The first few of several names, and how many more there are."""
    listed = list(dict.fromkeys(names))
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of an app the one shape."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error_response(error.status, error.code, error.message)

    @app.exception_handler(EntityIdError)
    async def entity_id_error(request: Request, error: EntityIdError) -> Response:
        return error_response(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_entity_id", f"{error}; ids are keys of Redis"
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        message = "; ".join(_sentence(problem) for problem in error.errors()[:_NAMED])
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        message = f"{request.method} {request.url.path}: {error.detail}"
        return error_response(error.status_code, code, message)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # The server logs it with its traceback: Starlette raises it again after this answer.
        return error_response(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong inside the app; its log has the details",
        )


def _sentence(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"][1:])
    context = problem.get("ctx") or {}
    if problem["type"] == "too_long":
        return (
            f"{where} has {context['actual_length']} entries; {context['max_length']} is the "
            "limit, so split the request"
        )
    if problem["type"] == "json_invalid":
        return f"the body is not valid JSON ({context.get('error', 'unreadable')})"
    return f"{where or 'the body'}: {problem['msg']}"
