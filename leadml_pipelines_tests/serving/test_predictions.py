"""Predictions over HTTP: equal to the model asked directly, and refused where they mean nothing."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import httpx
import pytest
from pydantic import ConfigDict

from leadml_pipelines.serving.prediction_contract import (
    CrossSellOpportunity,
    FeatureImportance,
    Prediction,
    PredictionFactor,
)
from leadml_pipelines_tests.serving.artifacts import expected_value
from leadml_pipelines_tests.serving.conftest import World

pytestmark = pytest.mark.usefixtures("compiled")

PREDICT = "/api/v1/ml/predict"
BATCH = "/api/v1/ml/predict/batch"


@pytest.fixture(scope="module")
def world(kept_world: World) -> World:
    return kept_world


@pytest.fixture(scope="module")
def client(kept_client: httpx.Client) -> httpx.Client:
    return kept_client


def _predict(client: httpx.Client, model: str, entity_id: str, **options: Any) -> dict[str, Any]:
    body = {"model_type": model, "entity_id": entity_id, **options}
    response = client.post(PREDICT, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["success"] is True
    data: dict[str, Any] = answer["data"]
    return data


def _error(response: httpx.Response, status: int, code: str) -> str:
    answer = response.json()
    assert (response.status_code, answer["success"]) == (status, False)
    assert answer["error"]["code"] == code
    return str(answer["error"]["message"])


def test_classifier_over_http_equals_the_model_itself(client: httpx.Client, world: World) -> None:
    """The codes of categories in Redis are other than the model's: `stage` is in another order."""
    for entity_id in world.open_ids:
        data = _predict(client, "conversion", entity_id)
        wanted = expected_value(world.pointers["conversion"], world.frame, entity_id)
        assert data["probability"] == pytest.approx(wanted, abs=1e-7)
        assert data["prediction"] == int(wanted >= 0.5)
        assert (data["entity_id"], data["model_type"]) == (entity_id, "conversion")
        assert data["model_id"] == "conversion_1"


def test_score_has_a_value_and_no_probability(client: httpx.Client, world: World) -> None:
    entity_id = world.open_ids[0]
    data = _predict(client, "lead_score", entity_id)
    wanted = expected_value(world.pointers["lead_score"], world.frame, entity_id)
    assert data["value"] == pytest.approx(wanted, rel=1e-6)
    assert data["probability"] is None
    assert 0 <= data["prediction"] <= 100


def test_prediction_tells_when_it_was_made_and_of_which_moment(
    client: httpx.Client, world: World
) -> None:
    data = _predict(client, "conversion", world.open_ids[0])
    made, as_of = (datetime.fromisoformat(data[n]) for n in ("timestamp", "features_as_of"))
    assert as_of == world.store.snapshot_as_of("lead")
    assert made >= as_of


def test_batch_keeps_order_and_repeats(client: httpx.Client, world: World) -> None:
    ids = [*reversed(world.open_ids), world.open_ids[0]]
    answer = client.post(BATCH, json={"model_type": "conversion", "entity_ids": ids}).json()
    assert [row["entity_id"] for row in answer["data"]] == ids
    single = _predict(client, "conversion", ids[0])
    for name in ("prediction", "probability", "model_id"):
        assert answer["data"][0][name] == single[name]


def test_lead_outside_of_the_population_is_refused_with_the_condition(
    client: httpx.Client, world: World
) -> None:
    entity_id = world.closed_ids[0]
    response = client.post(PREDICT, json={"model_type": "conversion", "entity_id": entity_id})
    message = _error(response, 422, "outside_population")
    assert entity_id in message
    assert message.endswith("only while: is_open")


def test_in_a_batch_only_the_row_outside_of_the_population_has_an_error(
    client: httpx.Client, world: World
) -> None:
    ids = [world.open_ids[0], world.closed_ids[0], world.open_ids[1]]
    response = client.post(BATCH, json={"model_type": "conversion", "entity_ids": ids})
    rows = response.json()["data"]
    assert response.status_code == 200
    assert [row["entity_id"] for row in rows] == ids
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        "outside_population",
        None,
    ]
    assert rows[1]["probability"] is None
    alone = _predict(client, "conversion", ids[2], explain=False)
    assert rows[2] == {**rows[2], **_without_time(alone)}


def test_unknown_lead_fails_a_prediction_by_name(client: httpx.Client) -> None:
    response = client.post(PREDICT, json={"model_type": "churn", "entity_id": "nobody"})
    assert _error(response, 404, "unknown_entity") == "no lead is known by the id nobody"


def test_in_a_batch_an_unknown_lead_is_an_error_of_its_row(
    client: httpx.Client, world: World
) -> None:
    known = world.open_ids[:2]
    ids = [known[0], "nobody", known[1], "nowhere"]
    response = client.post(BATCH, json={"model_type": "conversion", "entity_ids": ids})
    assert response.status_code == 200, response.text
    rows = response.json()["data"]
    assert [row["entity_id"] for row in rows] == ids
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        "unknown_entity",
        None,
        "unknown_entity",
    ]
    assert rows[1]["error"]["message"] == "no lead is known by the id nobody"
    for row in rows:
        Prediction.model_validate(row)
    empty = ("prediction", "probability", "value", "features_as_of")
    assert [rows[1][name] for name in empty] == [None] * 4
    for at in (0, 2):
        alone = _predict(client, "conversion", ids[at], explain=False)
        assert rows[at] == {**rows[at], **_without_time(alone)}


def test_a_batch_of_unknown_leads_alone_is_answered_row_by_row(client: httpx.Client) -> None:
    response = client.post(BATCH, json={"model_type": "churn", "entity_ids": ["nobody"]})
    assert response.status_code == 200
    (row,) = response.json()["data"]
    assert (row["error"]["code"], row["model_id"]) == ("unknown_entity", "churn_1")


def test_unknown_model_is_told_which_there_are(client: httpx.Client) -> None:
    response = client.post(PREDICT, json={"model_type": "chrun", "entity_id": "lead_0"})
    message = _error(response, 404, "unknown_model")
    assert message == (
        "there is no model named chrun; the models are churn, conversion, lead_score"
    )


def test_batch_of_1001_is_told_the_limit(client: httpx.Client) -> None:
    response = client.post(BATCH, json={"model_type": "churn", "entity_ids": ["x"] * 1001})
    assert "1000 is the limit" in _error(response, 422, "invalid_request")


def test_health_names_each_model_and_service(client: httpx.Client, world: World) -> None:
    answer = client.get("/api/v1/ml/health").json()
    assert answer["status"] == "ok"
    assert answer["services"] == {"redis": "ok", "postgres": "ok"}
    assert set(answer["models"]) == {"churn", "conversion", "lead_score"}
    churn = answer["models"]["churn"]
    assert (churn["model_id"], churn["loaded"], churn["error"]) == ("churn_1", True, None)
    assert churn["trained_at"] == "2026-11-01T00:00:00+00:00"
    schema = world.store.current_schema("lead")
    assert schema is not None
    assert answer["schemas"] == {"lead": schema.schema_id, "agent": None}


def test_predictions_are_counted_by_model(client: httpx.Client, world: World) -> None:
    def counted() -> float:
        found = re.search(
            r'^leadml_predictions_total{model="conversion"} (.+)$',
            client.get("/metrics").text,
            re.MULTILINE,
        )
        return float(found[1]) if found else 0.0

    before = counted()
    _predict(client, "conversion", world.open_ids[0])
    assert counted() == before + 1


def test_one_prediction_has_reasons_unless_they_are_not_wanted(
    client: httpx.Client, world: World
) -> None:
    whole = _predict(client, "churn", _churn_id(world))
    short = _predict(client, "churn", _churn_id(world), explain=False)
    assert whole["factors"][0]["sentence"].endswith(" the risk.")
    assert whole["feature_importance"][0]["share"] > 0
    assert _without_time(short) == {name: whole[name] for name in _without_time(short)}
    assert {"factors", "feature_importance", "raw_score", "base_value"}.isdisjoint(short)


def test_a_batch_has_reasons_only_if_they_are_wanted(client: httpx.Client, world: World) -> None:
    body = {"model_type": "lead_score", "entity_ids": world.open_ids}
    short = client.post(BATCH, json=body).json()["data"]
    whole = client.post(BATCH, json={**body, "explain": True}).json()["data"]
    assert all("factors" not in row for row in short)
    for row in whole:
        assert row == {**row, **_without_time(_predict(client, "lead_score", row["entity_id"]))}


def test_a_score_tells_urgency_dimensions_and_opportunities(
    client: httpx.Client, world: World
) -> None:
    data = _predict(client, "lead_score", world.open_ids[0])
    assert data["quality_score"] == data["prediction"]
    assert data["urgency"]["level"] in ("low", "medium", "high")
    assert data["urgency"]["ratio"] == pytest.approx(
        data["urgency"]["near_chance"] / data["urgency"]["far_chance"]
    )
    assert len(data["dimensions"]) == 6
    total = data["base_value"]
    for dimension in data["dimensions"].values():
        total += dimension["contribution"]
    assert total == data["raw_score"]
    assert [one["product"] for one in data["cross_sell_opportunities"]] != []


def test_a_prediction_tells_that_nothing_was_stale_or_away(
    client: httpx.Client, world: World
) -> None:
    data = _predict(client, "churn", _churn_id(world))
    assert (data["stale"], data["degraded"]) == (False, [])


@pytest.mark.parametrize("model", ["churn", "conversion", "lead_score"])
def test_answers_are_what_openapi_says(client: httpx.Client, world: World, model: str) -> None:
    """Every member that comes is declared, in its type."""

    class Strict(Prediction):
        model_config = ConfigDict(extra="forbid", protected_namespaces=())

    entity_id = _churn_id(world) if model == "churn" else world.open_ids[0]
    data = _predict(client, model, entity_id)
    Strict.model_validate(data)
    for part, declared in (
        ("factors", PredictionFactor),
        ("feature_importance", FeatureImportance),
        ("cross_sell_opportunities", CrossSellOpportunity),
    ):
        for item in data.get(part, []):
            assert set(item) == set(declared.model_fields)


def test_every_member_of_a_prediction_is_described(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in (
        "Prediction",
        "PredictionFactor",
        "FeatureImportance",
        "DimensionAnswer",
        "UrgencyAnswer",
        "CrossSellOpportunity",
    ):
        for member, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{member}"


def _churn_id(world: World) -> str:
    """A lead that the model of churn scores."""
    frame = world.frame
    active = (frame["active_policy_count"] > 0).fillna(False).astype(bool)
    return str(frame.loc[active, "entity_id"].iloc[0])


def _without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "timestamp"}
