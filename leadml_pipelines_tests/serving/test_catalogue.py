"""The catalogue over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from leadml_pipelines.features.entries import entries
from leadml_pipelines.features.lineage import lineage_of_all
from leadml_pipelines.serving.lineages import lineages

FEATURES = "/api/v1/features"


@pytest.fixture(autouse=True, scope="module")
def traced() -> None:
    """Lineage is known, as it is some seconds after an app's start; on a busy machine, many."""
    lineages()


def test_what_another_process_found_out_is_what_this_one_would(traced: None) -> None:
    assert lineages() == lineage_of_all()


@pytest.fixture(scope="module")
def client(kept_client: httpx.Client) -> httpx.Client:
    return kept_client


def _names(client: httpx.Client, **query: Any) -> list[str]:
    response = client.get(FEATURES, params=query)
    assert response.status_code == 200, response.text
    return [one["name"] for one in response.json()["features"]]


def test_all_features_come_back_in_the_order_of_the_catalogue(client: httpx.Client) -> None:
    assert _names(client) == [one.name for one in entries()]


def test_an_entry_has_owner_range_freshness_and_lineage(client: httpx.Client) -> None:
    answer = client.get(FEATURES, params={"view": "engagement"}).json()
    one = next(f for f in answer["features"] if f["name"] == "email_open_rate")
    assert one["owner"] == "team:data"
    assert (one["low"], one["high"], one["default"], one["unit"]) == (0, 1, None, "share")
    assert one["freshness_seconds"] == 26 * 3600
    assert one["lineage"]["values"] == ["lead_events.event_type", "lead_events.occurred_at"]


def test_filters_narrow_together(client: httpx.Client) -> None:
    found = _names(client, entity_type="lead", view="profile", dimension="value")
    assert found == [e.name for e in entries(entity="lead", view="profile", dimension="value")]


def test_a_search_gives_the_best_first_and_without_result_what_is_alike(
    client: httpx.Client,
) -> None:
    assert _names(client, q="email open rate")[0] == "email_open_rate"
    answer = client.get(FEATURES, params={"q": "emial_open_rate"}).json()
    assert answer["features"] == []
    assert answer["near"][0] == "email_open_rate"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"entity_type": "leed"}, "did you mean lead?"),
        ({"view": "profil"}, "did you mean profile"),
        ({"dimension": "luck"}, "there is fit, engagement"),
    ],
)
def test_a_filter_that_names_nothing_is_refused(
    client: httpx.Client, query: dict[str, str], sentence: str
) -> None:
    response = client.get(FEATURES, params=query)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unknown_filter"
    assert sentence in response.json()["error"]["message"]


def test_one_feature_comes_with_its_definition(client: httpx.Client) -> None:
    data = client.get(f"{FEATURES}/catalogue/policy_count").json()["data"]
    assert data["view"] == "lifecycle"
    assert data["definition"]["sql"].startswith("COUNT(")
    assert data["definition"]["place"].startswith("leadml_pipelines.features.views.lifecycle:")


def test_an_unknown_feature_is_named_with_its_like(client: httpx.Client) -> None:
    response = client.get(f"{FEATURES}/catalogue/quality_scor")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "unknown_feature",
        "message": "there is no feature named quality_scor; did you mean quality_score?",
    }


def test_openapi_describes_an_entry(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"CatalogueResponse", "CatalogueEntryResponse", "FeatureLineage"} <= set(schemas)
    answer = client.get(f"{FEATURES}/catalogue/degree").json()["data"]
    assert set(answer) == set(schemas["DefinedCatalogueEntry"]["properties"])
