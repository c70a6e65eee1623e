"""The routes about the registered models: who answers, how good they are, their cards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal

import psycopg
import structlog
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import HTMLResponse, Response

from leadml_pipelines.errors import UserError
from leadml_pipelines.serving import contract, model_contract
from leadml_pipelines.serving.card_page import HEADERS, card_page
from leadml_pipelines.serving.errors import ApiError, json_response
from leadml_pipelines.serving.models import ModelShelf
from leadml_pipelines.settings import Settings

if TYPE_CHECKING:
    from leadml_pipelines.learning.registry.model_records import ModelRecord
    from leadml_pipelines.learning.registry.registry import Registry

ANSWER_SECONDS = 2.0
"""How long PostgreSQL may take for an answer."""

_MARKDOWN = "text/markdown"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": contract.ErrorResponse, "description": text}
    for status, text in (
        (HTTPStatus.NOT_FOUND, "no such model was registered"),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "a request that can't be answered, with the reason"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL, where the registry is, does not answer now"),
    )
}

ModelId = Annotated[str, Path(max_length=200, description="id of a model, or name@alias")]

log = structlog.get_logger(__name__)


def model_routes(settings: Settings, shelf: ModelShelf) -> APIRouter:
    """The router of `GET /api/v1/models...`.

    Args:
        settings: Where the registry is.
        shelf: What this process answers with.
    """
    routes = APIRouter(prefix="/api/v1/models", tags=["models"], responses=_ERRORS)

    @routes.get("", response_model=model_contract.ModelListResponse)
    def list_models() -> Response:
        """Of each model by name: who answers now, who challenges, what was trained last."""
        from leadml_pipelines.learning.registry.model_documents import summary

        with _registry(settings) as registry:
            held, records = registry.overview()
        # Of each name the newest comes first.
        newest: dict[str, ModelRecord] = {}
        for record in records.values():
            newest.setdefault(record.name, record)
        data = []
        for name, last_trained in newest.items():
            mine = {one.alias: one.model_id for one in held if one.name == name}
            answer: dict[str, Any] = {"name": name}
            for alias in ("champion", "challenger", "previous"):
                found = mine.get(alias)
                answer[alias] = summary(records[found], held) if found else None
            answer["answering"] = _answering(shelf, name)
            answer["last_trained"] = summary(last_trained, held)
            data.append(answer)
        return json_response({"success": True, "data": data})

    @routes.get("/{model_id}", response_model=model_contract.ModelResponse)
    def show_model(model_id: ModelId) -> Response:
        """All about one model: metrics with intervals, gate, files, and its changes of role."""
        from leadml_pipelines.learning.registry.model_documents import detail

        with _registry(settings) as registry:
            record = _find(registry, model_id)
            held = registry.held(record.name)
            changes = registry.changes(model_id=record.model_id)
        return json_response({"success": True, "data": detail(record, held, changes)})

    @routes.get(
        "/{model_id}/card",
        response_class=HTMLResponse,
        responses={200: {"content": {"text/html": {}, _MARKDOWN: {}}}},
    )
    def show_card(
        model_id: ModelId,
        format: Annotated[
            Literal["html", "md"] | None,
            Query(description="html: a page with its plots; md: Markdown"),
        ] = None,
        accept: Annotated[str, Header()] = "",
    ) -> Response:
        """The model card: a page for a browser, Markdown where that is asked for."""
        with _registry(settings) as registry:
            record = _find(registry, model_id)
            if format == "md" or (format is None and _MARKDOWN in accept):
                return Response(record.card, media_type=f"{_MARKDOWN}; charset=utf-8")
            pictures = _pictures(registry, record.model_id)
        return HTMLResponse(card_page(record.model_id, record.card, pictures), headers=HEADERS)

    return routes


def _answering(shelf: ModelShelf, name: str) -> dict[str, Any] | None:
    state = shelf.states.get(name)
    if state is None:
        return None
    return {
        "model_id": state.served.model.model_id if state.served else None,
        "fallback": state.instead,
        "error": shelf.trouble(name),
    }


def _find(registry: Registry, model_id: str) -> ModelRecord:
    if "\0" in model_id:
        # PostgreSQL has no such text, and says so as if it were at fault.
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_model", "no model's id holds a NUL byte")
    return registry.find(model_id)


def _pictures(registry: Registry, model_id: str) -> dict[str, bytes]:
    """The verified files of a model; none where they can't be had: the card is told without."""
    try:
        return registry.files(model_id).files
    except (UserError, OSError) as error:
        log.warning("card_without_plots", model_id=model_id, reason=type(error).__name__)
        return {}


@contextmanager
def _registry(settings: Settings) -> Iterator[Registry]:
    """The registry; what goes wrong with it becomes an answer."""
    from leadml_pipelines.learning.registry.registry import Registry, RegistryError

    registry = Registry.of(
        settings, answer_seconds=ANSWER_SECONDS, connect_timeout=int(ANSWER_SECONDS)
    )
    try:
        yield registry
    except RegistryError as error:
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_model", str(error)) from error
    except psycopg.Error as error:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "registry_unavailable",
            f"the model registry in PostgreSQL did not answer ({type(error).__name__}); "
            "predictions go on, try again shortly",
        ) from error
