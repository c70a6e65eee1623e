"""The routes of the feature catalogue."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from leadml_pipelines.features.catalogue import UnknownFeatureError, catalogue
from leadml_pipelines.features.entries import Entry, entries, entry, record
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.errors import ApiError, json_response
from leadml_pipelines.serving.lineages import lineages

_ERRORS: dict[int | str, dict[str, Any]] = {
    HTTPStatus.UNPROCESSABLE_ENTITY.value: {
        "model": contract.ErrorResponse,
        "description": "a filter that names nothing there is, with near matches",
    }
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND.value: {
        "model": contract.ErrorResponse,
        "description": "no such feature, with near matches",
    }
}


def catalogue_routes() -> APIRouter:
    """The catalogue, whole and one by one."""
    routes = APIRouter(prefix="/api/v1/features", tags=["features"])

    @routes.get("", response_model=contract.CatalogueResponse, responses=_ERRORS)
    def features(
        entity_type: Annotated[str | None, Query(description="only of this type")] = None,
        view: Annotated[str | None, Query(description="only of this view")] = None,
        dimension: Annotated[str | None, Query(description="only of this dimension")] = None,
        q: Annotated[
            str | None,
            Query(max_length=200, description="words in name, meaning or source columns"),
        ] = None,
    ) -> Response:
        """Every feature, or those that were asked for, with its lineage."""
        try:
            found = entries(entity=entity_type, view=view, dimension=dimension)
        except UnknownFeatureError as error:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_filter", str(error)) from error
        traced = lineages()
        near: list[str] = []
        if q is not None:
            found, near = _searched(q, found)
        rows = [record(one, traced[one.name]) for one in found]
        return json_response({"success": True, "features": rows, "near": near})

    @routes.get(
        "/catalogue/{name}", response_model=contract.CatalogueEntryResponse, responses=_UNKNOWN
    )
    def feature(name: str) -> Response:
        """One feature, with its lineage and its definition."""
        from leadml_pipelines.features.definition import definition
        from leadml_pipelines.features.lineage import expression

        try:
            found = entry(name)
        except UnknownFeatureError as error:
            raise ApiError(HTTPStatus.NOT_FOUND, "unknown_feature", str(error)) from error
        traced = lineages()[name]
        text = definition(catalogue().view(found.view), name)
        defined = {"place": text.place, "text": text.text, "sql": expression(name)}
        return json_response(
            {"success": True, "data": {**record(found, traced), "definition": defined}}
        )

    return routes


def _searched(text: str, among: list[Entry]) -> tuple[list[Entry], list[str]]:
    from leadml_pipelines.features.search import near_names, search

    found = search(text, among, lineages())
    return found, [] if found else near_names(text, (one.name for one in among))
