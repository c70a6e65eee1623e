"""Redis or PostgreSQL away, or a key missing: answers are right, or say what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from pydantic import TypeAdapter

from leadml_pipelines.learning.registry.aliases import Held
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.online.format import encode
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import contract, prediction_contract
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import to_micros, utc_now
from leadml_pipelines_tests.online.frames import expected, lead_features, lead_frame
from leadml_pipelines_tests.serving.artifacts import expected_value
from leadml_pipelines_tests.serving.conftest import IDS, NO_POSTGRES, NO_REDIS, World, wait_for
from leadml_pipelines_tests.serving.offline import load_leads, row_of

BATCH = "/api/v1/features/batch"

Serving = Callable[[Settings], httpx.Client]


def _ask(client: httpx.Client, *ids: str) -> Any:
    return client.post(BATCH, json={"entity_ids": ids}).json()


def _computed(world: World, answer: Any, entity_id: str) -> dict[str, Any]:
    """What PostgreSQL computes of a lead as of the moment that an answer names."""
    url = world.settings.require_postgres()
    return row_of(url, entity_id, answer["meta"][entity_id]["as_of"])


@pytest.fixture
def offline(world: World) -> World:
    """The world, whose leads PostgreSQL has too, with one lead more."""
    load_leads(world.settings.require_postgres(), "only_offline")
    return world


def test_lead_that_redis_lacks_is_computed(offline: World, serving: Serving) -> None:
    answer = _ask(serving(offline.settings), "lead_0", "only_offline")
    assert answer["features"]["lead_0"] == expected(offline.frame, "lead_0")
    assert answer["features"]["only_offline"] == _computed(offline, answer, "only_offline")
    sources = {i: meta["source"] for i, meta in answer["meta"].items()}
    assert sources == {"lead_0": "cache", "only_offline": "computed"}


def test_miss_is_written_back(offline: World, serving: Serving) -> None:
    client = serving(offline.settings)
    first, second = _ask(client, "only_offline"), _ask(client, "only_offline")
    assert second["meta"]["only_offline"]["source"] == "cache"
    assert second["features"] == first["features"]
    as_of = [a["meta"]["only_offline"]["as_of"] for a in (first, second)]
    assert as_of[0] == as_of[1]


def test_late_write_back_does_not_undo_a_correction(offline: World, serving: Serving) -> None:
    """What is published between the computation and its write-back is of a later moment."""
    client = serving(offline.settings)
    corrected = lead_frame([*IDS, "only_offline"], seed=9)
    original = offline.store.__class__.write_batch
    calls: list[str] = []

    def late(store: Any, entity_type: str, ids: Any, payloads: Any, *rest: Any, **more: Any) -> Any:
        if not calls:
            calls.append("once")
            publish_snapshot(offline.store, "lead", lead_features(), corrected, utc_now())
        return original(store, entity_type, ids, payloads, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline.store.__class__, "write_batch", late)
        _ask(client, "only_offline")
    assert calls
    again = _ask(client, "only_offline")
    assert again["features"]["only_offline"] == expected(corrected, "only_offline")


def test_invalidated_lead_is_not_served_from_the_cache(offline: World, serving: Serving) -> None:
    offline.store.invalidate("lead", ["lead_0"], utc_now())
    answer = _ask(serving(offline.settings), "lead_0")
    assert answer["meta"]["lead_0"]["source"] == "computed"


def test_redis_down_features_are_computed_and_the_answer_says_so(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    answer = _ask(client, *IDS)
    assert {meta["source"] for meta in answer["meta"].values()} == {"computed"}
    assert answer["degraded"] == answer["meta"]["lead_0"]["degraded"] == ["redis"]
    for entity_id in IDS[:5]:
        assert answer["features"][entity_id] == _computed(offline, answer, entity_id)
    health = client.get("/api/v1/ml/health").json()
    assert health["status"] == "degraded"
    assert health["services"]["redis"] == "can't be reached (ConnectionError)"
    text = client.get("/metrics").text
    assert 'leadml_online_failures_total{store="redis"}' in text
    assert f'leadml_online_computed_entities_total{{reason="redis_down"}} {len(IDS)}.0' in text


def test_redis_down_unknown_lead_is_still_a_404(offline: World, serving: Serving) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    response = client.post(BATCH, json={"entity_ids": ["nobody"]})
    assert response.status_code == 404


def _register(world: World, patch: pytest.MonkeyPatch) -> None:
    """Let the registry know the champion for conversion."""

    class Champion:
        def pointer(self) -> dict[str, Any]:
            return world.pointers["conversion"]

    held = Held("conversion", "champion", "conversion_1", 1.0, utc_now(), "anna")
    patch.setattr(Registry, "overview", lambda self: ([held], {"conversion_1": Champion()}))


@pytest.mark.parametrize("redis_state", ["down", "emptied"])
def test_models_come_from_the_registry_when_redis_points_to_none(
    offline: World, serving: Serving, monkeypatch: pytest.MonkeyPatch, redis_state: str
) -> None:
    _register(offline, monkeypatch)
    offline.store._redis.flushdb()
    down = {"redis_url": NO_REDIS} if redis_state == "down" else {}
    client = serving(offline.settings.model_copy(update=down))
    url = offline.settings.require_postgres()
    entity_id = next(i for i in IDS if row_of(url, i, utc_now())["is_open"])
    body = {"model_type": "conversion", "entity_id": entity_id}
    response = client.post("/api/v1/ml/predict", json=body)
    assert response.status_code == 200
    data = response.json()["data"]
    assert data["model_id"] == "conversion_1"
    assert data["degraded"] == (["redis"] if redis_state == "down" else [])


def test_health_without_any_model_is_degraded_and_says_why(world: World, serving: Serving) -> None:
    world.store._redis.flushdb()
    health = serving(world.settings).get("/api/v1/ml/health").json()
    assert health["status"] == "degraded"
    assert health["reason"].startswith("no model is loaded")


def test_health_has_no_reason_when_all_is_well(client: httpx.Client) -> None:
    health = client.get("/api/v1/ml/health").json()
    assert (health["status"], health["reason"]) == ("ok", None)


def test_health_tells_of_a_redis_that_goes_away_while_it_is_asked(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(store: OnlineStore, entity_type: str) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(OnlineStore, "snapshot", away)
    health = client.get("/api/v1/ml/health").json()
    assert health["status"] == "degraded"
    assert health["services"]["redis"] == "can't be reached (ConnectionError)"
    assert set(health["snapshot"].values()) == {None}


def test_postgres_down_cached_leads_are_answered(world: World, serving: Serving) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    answer = _ask(client, *IDS)
    assert answer["features"] == {i: expected(world.frame, i) for i in IDS}
    health = client.get("/api/v1/ml/health").json()
    assert (health["status"], health["services"]["redis"]) == ("degraded", "ok")


def test_postgres_down_a_miss_alone_is_unavailable(world: World, serving: Serving) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    for path in (BATCH, "/api/v1/features/retrieve"):
        response = client.post(path, json={"entity_ids": ["lead_0", "missing", "lead_1"]})
        assert response.status_code == 200
        answer = response.json()
        wanted = {"lead_0": "present", "missing": "unavailable", "lead_1": "present"}
        assert {i: meta["status"] for i, meta in answer["meta"].items()} == wanted
        assert answer["features"]["missing"] is None
        assert answer["features"]["lead_1"] == expected(world.frame, "lead_1")
        assert answer["degraded"] == ["postgres"]
    TypeAdapter(contract.FeatureRetrieveResponse).validate_python(answer)


def test_postgres_down_a_miss_alone_has_no_prediction(world: World, serving: Serving) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    ids = [world.open_ids[0], "missing", world.open_ids[1]]
    body = {"model_type": "conversion", "entity_ids": ids}
    response = client.post("/api/v1/ml/predict/batch", json=body)
    assert response.status_code == 200
    TypeAdapter(prediction_contract.PredictBatchResponse).validate_python(response.json())
    rows = response.json()["data"]
    assert [row["entity_id"] for row in rows] == ids
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "unavailable", None]
    assert rows[1]["probability"] is None
    value = expected_value(world.pointers["conversion"], world.frame, ids[2])
    assert rows[2]["probability"] == pytest.approx(value, abs=1e-7)


def test_postgres_down_only_misses_are_a_503_that_names_them(
    world: World, serving: Serving
) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    response = client.post(BATCH, json={"entity_ids": ["missing", "missing"]})
    assert response.status_code == 503
    message = response.json()["error"]["message"]
    assert message.startswith("no features now for missing: Redis does not have")
    assert "PostgreSQL did not answer" in message


def test_both_down_is_a_503_that_says_so_without_secrets(world: World, serving: Serving) -> None:
    down = {"redis_url": NO_REDIS, "postgres_url": NO_POSTGRES}
    client = serving(world.settings.model_copy(update=down))
    response = client.post(BATCH, json={"entity_ids": ["lead_0"]})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "features_unavailable"
    assert "Redis can't be reached and PostgreSQL did not answer" in response.text
    health = client.get("/api/v1/ml/health")
    assert (health.status_code, health.json()["status"]) == (503, "down")
    assert "secret" not in response.text + health.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "rubbish", [b"\x01\x00rubbish", b"\x01\x01\x00", b"\xff" * 7 + b"\x7f" * 60]
)
def test_broken_value_alone_is_computed_and_replaced(
    offline: World, serving: Serving, rubbish: bytes
) -> None:
    client = serving(offline.settings)
    offline.store._redis.set("leadml:lead:lead_0", rubbish)
    for source in ("computed", "cache"):
        answer = _ask(client, "lead_0", "lead_1")
        assert answer["features"]["lead_0"] == _computed(offline, answer, "lead_0")
        sources = {i: meta["source"] for i, meta in answer["meta"].items()}
        assert sources == {"lead_0": source, "lead_1": "cache"}


def test_value_of_a_lost_schema_is_computed(offline: World, serving: Serving) -> None:
    schema = offline.store.current_schema("lead")
    assert schema is not None
    client = serving(offline.settings)
    offline.store._redis.delete(f"leadml:schema:lead:{schema.schema_id}")
    answer = _ask(client, "lead_0")
    assert answer["features"]["lead_0"] == _computed(offline, answer, "lead_0")


@pytest.mark.parametrize("damaged", [b'{"format": 1', b"text", b"another"])
def test_a_damaged_schema_document_is_mended_and_its_values_are_computed(
    offline: World, serving: Serving, damaged: bytes
) -> None:
    """Also where the values that are computed are of this very schema."""
    client = serving(offline.settings)
    offline.store._redis.delete("leadml:lead:lead_0")
    number = (
        _ask(client, "lead_0", "lead_1")
        and client.post("/api/v1/features/retrieve", json={"entity_ids": ["lead_0"]}).json()[
            "meta"
        ]["lead_0"]["schema_id"]
    )
    schema = offline.store.schema("lead", number)
    assert schema is not None
    documents = {
        b"text": schema.document.replace(b'"boolean"', b'"text"'),
        b"another": schema.document.replace(b"is_open", b"is_shut"),
    }
    offline.store._redis.set(f"leadml:schema:lead:{number}", documents.get(damaged, damaged))
    offline.store._redis.set("leadml:schema:lead:current", number)
    fresh = serving(offline.settings)
    for source in ("computed", "cache"):
        answer = _ask(fresh, "lead_0")
        assert answer["features"]["lead_0"] == _computed(offline, answer, "lead_0")
        assert answer["meta"]["lead_0"]["source"] == source


def test_a_value_with_a_code_without_a_word_alone_is_computed(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings)
    schema = offline.store.current_schema("lead")
    assert schema is not None
    at = 24 + 8 * schema.positions["stage"]
    offline.store._redis.setrange("leadml:lead:lead_0", at, struct.pack("<d", 99.0))
    answer = _ask(client, "lead_0", "lead_1")
    assert answer["features"]["lead_0"] == _computed(offline, answer, "lead_0")
    assert answer["meta"]["lead_1"]["source"] == "cache"


def test_app_notices_that_redis_is_back(offline: World, serving: Serving) -> None:
    client = serving(offline.settings)
    offline.store._redis.execute_command("CLIENT", "PAUSE", "600", "ALL")
    assert _ask(client, "lead_0")["meta"]["lead_0"]["source"] == "computed"
    wait_for(lambda: _ask(client, "lead_1")["meta"]["lead_1"]["source"] == "cache")


def test_word_that_no_snapshot_had_is_answered_and_cached(offline: World, serving: Serving) -> None:
    with connect(offline.settings.require_postgres()) as connection:
        connection.execute("UPDATE crm.lead_versions SET state = 'brand new'")
    client = serving(offline.settings)
    for source in ("computed", "cache"):
        answer = _ask(client, "only_offline")
        assert answer["features"]["only_offline"]["state"] == "brand new"
        assert answer["meta"]["only_offline"]["source"] == source


def test_prediction_of_a_miss_is_that_of_the_value_written_back(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings)
    url = offline.settings.require_postgres()
    entity_id = next(i for i in IDS if row_of(url, i, utc_now())["is_open"])
    offline.store._redis.delete(f"leadml:lead:{entity_id}")
    body = {"model_type": "conversion", "entity_id": entity_id}
    missed, cached = (client.post("/api/v1/ml/predict", json=body).json()["data"] for _ in "12")
    assert missed["probability"] == cached["probability"]
    assert missed["features_as_of"] == cached["features_as_of"]


def test_prediction_of_features_that_are_too_old_says_so(world: World, serving: Serving) -> None:
    entity_id, schema = world.open_ids[0], world.store.current_schema("lead")
    assert schema is not None
    world.store._redis.delete(f"leadml:lead:{entity_id}")
    row = world.frame[world.frame["entity_id"] == entity_id]
    publish_snapshot(world.store, "lead", lead_features(), row, utc_now() - timedelta(hours=30))
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    body = {"model_type": "conversion", "entity_id": entity_id}
    data = client.post("/api/v1/ml/predict", json=body).json()["data"]
    assert (data["stale"], data["degraded"]) == (True, ["postgres"])


def test_older_value_than_the_schema_has_null_for_a_younger_feature(
    world: World, serving: Serving
) -> None:
    schema = world.store.current_schema("lead")
    assert schema is not None
    older = type(schema)("lead", schema.fields[:3])
    world.store.put_schema(older)
    values = np.zeros((1, 3))
    payloads = encode(older, to_micros(utc_now()), to_micros(utc_now()), values)
    world.store.write_batch("lead", ["lead_0"], payloads)
    client = serving(world.settings)
    asked = {"entity_ids": ["lead_0"], "feature_names": ["quality_score"]}
    answer = client.post(BATCH, json=asked).json()
    assert answer["features"] == {"lead_0": {"quality_score": None}}
    response = client.post(
        "/api/v1/ml/predict", json={"model_type": "churn", "entity_id": "lead_0"}
    )
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "features_do_not_fit"
