"""Features over HTTP: shapes, types, ages, and what is refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import expected
from leadml_pipelines_tests.serving.conftest import IDS, World

BATCH = "/api/v1/features/batch"
RETRIEVE = "/api/v1/features/retrieve"


@pytest.fixture(scope="module")
def world(kept_world: World) -> World:
    return kept_world


@pytest.fixture(scope="module")
def client(kept_client: httpx.Client) -> httpx.Client:
    return kept_client


def _ask(client: httpx.Client, path: str = BATCH, **body: Any) -> httpx.Response:
    return client.post(path, json={"entity_ids": ["lead_0"], "entity_type": "lead", **body})


def _refused(response: httpx.Response, status: int, code: str) -> str:
    answer = response.json()
    assert response.status_code == status, answer
    assert set(answer) == {"success", "error"}
    assert answer["success"] is False
    assert set(answer["error"]) == {"code", "message"}
    assert answer["error"]["code"] == code
    return str(answer["error"]["message"])


@pytest.mark.parametrize("path", [BATCH, RETRIEVE])
def test_all_features_of_all_entities_are_the_published_ones(
    client: httpx.Client, world: World, path: str
) -> None:
    answer = _ask(client, path, entity_ids=IDS).json()
    assert answer["success"] is True
    assert answer["features"] == {i: expected(world.frame, i) for i in IDS}


def test_only_the_named_features_come_back_in_the_named_order(client: httpx.Client) -> None:
    names = ["stage", "quality_score", "is_open"]
    answer = _ask(client, feature_names=names).json()
    assert list(answer["features"]["lead_0"]) == names


def test_a_feature_that_is_named_twice_is_looked_up_once(client: httpx.Client) -> None:
    null = _ask(client).json()["meta"]["lead_0"]["null_features"][0]
    answer = _ask(client, feature_names=[null, "is_open", null]).json()
    assert list(answer["features"]["lead_0"]) == [null, "is_open"]
    assert answer["meta"]["lead_0"]["null_features"].count(null) == 1


def test_more_feature_names_than_anybody_has_are_refused(client: httpx.Client) -> None:
    message = _refused(_ask(client, feature_names=["is_open"] * 1001), 422, "invalid_request")
    assert "feature_names has 1001 entries; 1000 is the limit" in message


def test_integers_stay_integers_and_missing_is_null(client: httpx.Client, world: World) -> None:
    text = _ask(client, entity_ids=IDS, feature_names=["inbound_count_30d"]).text
    assert "NaN" not in text
    assert ".0}" not in text
    assert '"inbound_count_30d":null' in text


def test_each_entity_tells_its_age_and_source(client: httpx.Client) -> None:
    meta = _ask(client).json()["meta"]["lead_0"]
    assert set(meta) == {"as_of", "age_seconds", "status", "source", "null_features", "degraded"}
    assert (meta["status"], meta["source"], meta["degraded"]) == ("present", "cache", [])
    age = utc_now() - datetime.fromisoformat(meta["as_of"])
    assert 0 <= meta["age_seconds"] <= age.total_seconds()


def test_retrieve_tells_nulls_and_schema_too(client: httpx.Client, world: World) -> None:
    answer = _ask(client, RETRIEVE, entity_ids=IDS).json()
    for entity_id in IDS:
        row = expected(world.frame, entity_id)
        nulls = [name for name, value in row.items() if value is None]
        assert answer["meta"][entity_id]["null_features"] == nulls
    schema = world.store.current_schema("lead")
    assert schema is not None
    assert answer["meta"]["lead_0"]["schema_id"] == schema.schema_id


@pytest.mark.parametrize("path", [BATCH, RETRIEVE])
def test_an_unknown_lead_is_told_beside_the_known_ones(client: httpx.Client, path: str) -> None:
    answer = _ask(client, path, entity_ids=["lead_0", "lead_x"]).json()
    assert answer["features"]["lead_x"] is None
    assert answer["features"]["lead_0"]
    unknown = answer["meta"]["lead_x"]
    assert (unknown.pop("status"), unknown.pop("null_features")) == ("unknown", [])
    assert unknown.pop("degraded") == answer["degraded"] == []
    assert set(unknown.values()) == {None}
    assert answer["meta"]["lead_0"]["status"] == "present"


def test_a_single_unknown_lead_is_named(client: httpx.Client) -> None:
    message = _refused(_ask(client, entity_ids=["lead_x"]), 404, "unknown_entity")
    assert message == "no lead is known by the id lead_x"


def test_null_features_are_those_asked_for_without_a_value(
    client: httpx.Client, world: World
) -> None:
    names = ["stage", "quality_score", "age"]
    answer = _ask(client, entity_ids=IDS, feature_names=names).json()
    for entity_id in IDS:
        row = expected(world.frame, entity_id)
        nulls = [name for name in names if row[name] is None]
        assert answer["meta"][entity_id]["null_features"] == nulls


def test_first_few_of_many_unknown_leads_are_named(client: httpx.Client) -> None:
    ids = [f"nobody_{i}" for i in range(12)]
    message = _refused(_ask(client, entity_ids=ids), 404, "unknown_entity")
    assert "nobody_0" in message
    assert "and 7 more" in message


def test_unknown_feature_is_named_with_its_like(client: httpx.Client) -> None:
    names = ["quality_score", "qualty_score"]
    message = _refused(_ask(client, feature_names=names), 422, "unknown_feature")
    assert "no lead feature named qualty_score; did you mean quality_score" in message


def test_unknown_entity_type_is_named_with_those_there_are(client: httpx.Client) -> None:
    message = _refused(_ask(client, entity_type="house"), 422, "unknown_entity_type")
    assert "'house'; there is lead" in message


@pytest.mark.parametrize(("path", "limit"), [(BATCH, 1000), (RETRIEVE, 100)])
def test_one_entity_over_the_limit_is_told_the_limit(
    client: httpx.Client, path: str, limit: int
) -> None:
    ids = [f"lead_{i}" for i in range(limit + 1)]
    message = _refused(_ask(client, path, entity_ids=ids), 422, "invalid_request")
    assert f"entity_ids has {limit + 1} entries; {limit} is the limit" in message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"entity_ids": []}, "entity_ids"),
        ({"entity_ids": "lead_0"}, "entity_ids"),
        ({"entity_ids": [1]}, "entity_ids.0"),
        ({"feature_name": ["stage"]}, "feature_name"),
    ],
)
def test_wrong_body_is_told_where(client: httpx.Client, body: dict[str, Any], part: str) -> None:
    assert part in _refused(_ask(client, **body), 422, "invalid_request")


def test_body_that_is_no_json_is_refused_in_the_one_shape(client: httpx.Client) -> None:
    response = client.post(BATCH, content=b"{", headers={"content-type": "application/json"})
    assert "not valid JSON" in _refused(response, 422, "invalid_request")


def test_id_with_a_control_character_is_refused(client: httpx.Client) -> None:
    response = _ask(client, entity_ids=["a\nb"])
    assert "control character" in _refused(response, 422, "invalid_entity_id")


def test_unknown_path_and_method_are_refused_in_the_one_shape(client: httpx.Client) -> None:
    assert "/nowhere" in _refused(client.get("/nowhere"), 404, "not_found")
    assert "GET" in _refused(client.get(BATCH), 405, "method_not_allowed")


def test_body_of_megabytes_is_refused(client: httpx.Client) -> None:
    response = _ask(client, entity_ids=["x" * 3_000_000])
    assert response.status_code == 413


def test_openapi_describes_the_answers(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    answer = schema["paths"][BATCH]["post"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"]["$ref"].endswith("FeatureBatchResponse")
    assert "404" in schema["paths"][BATCH]["post"]["responses"]
