"""Redis or PostgreSQL away, or a key missing: answers are right, or say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.snapshots import check_snapshot, write_view_snapshot
from leadml_pipelines.learning.registry import Registry
from leadml_pipelines.online.format import encode
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import to_micros, utc_now
from leadml_pipelines_tests.online.frames import expected, lead_features, lead_frame
from leadml_pipelines_tests.serving.conftest import IDS, NOBODY_LISTENS, World, wait_for

NO_REDIS = SecretStr(f"redis://{NOBODY_LISTENS}/0")
NO_POSTGRES = SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none")
BATCH = "/api/v1/features/batch"

Serving = Callable[[Settings], httpx.Client]


def _keep_offline(world: World, frame: pd.DataFrame, as_of: datetime) -> None:
    """Write a checked snapshot to PostgreSQL."""
    url = world.settings.require_postgres()
    dated = frame.assign(as_of=pd.Series([as_of] * len(frame), dtype="datetime64[us, UTC]"))
    for view in catalogue().views("lead"):
        write_view_snapshot(url, view, dated, as_of)
    report = check_snapshot(url, catalogue(), "lead", as_of)
    assert report.sound, report.problems


def _ask(client: httpx.Client, *ids: str) -> Any:
    return client.post(BATCH, json={"entity_ids": ids}).json()


@pytest.fixture
def offline(world: World) -> World:
    """The world, whose snapshot PostgreSQL has too, with one lead more."""
    world.frame = world.more
    _keep_offline(world, world.frame, utc_now())
    return world


def test_lead_that_redis_lacks_comes_from_the_snapshot(offline: World, serving: Serving) -> None:
    answer = _ask(serving(offline.settings), "lead_0", "only_offline")
    assert answer["features"]["only_offline"] == expected(offline.frame, "only_offline")
    sources = {i: meta["source"] for i, meta in answer["meta"].items()}
    assert sources == {"lead_0": "cache", "only_offline": "snapshot"}


def test_miss_is_written_back(offline: World, serving: Serving) -> None:
    client = serving(offline.settings)
    first, second = _ask(client, "only_offline"), _ask(client, "only_offline")
    assert second["meta"]["only_offline"]["source"] == "cache"
    assert second["features"] == first["features"]
    as_of = [a["meta"]["only_offline"]["as_of"] for a in (first, second)]
    assert as_of[0] == as_of[1]


def test_late_write_back_does_not_undo_a_correction(offline: World, serving: Serving) -> None:
    """A correction of the same moment is published between the lookup and the write-back."""
    client = serving(offline.settings)
    as_of = utc_now()
    _keep_offline(offline, offline.frame, as_of)
    corrected = lead_frame([*IDS, "only_offline"], seed=9)
    original = offline.store.__class__.write_batch
    calls: list[str] = []

    def late(store: Any, entity_type: str, ids: Any, payloads: Any, *rest: Any) -> Any:
        if not calls:
            calls.append("once")
            publish_snapshot(offline.store, "lead", lead_features(), corrected, as_of)
        return original(store, entity_type, ids, payloads, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline.store.__class__, "write_batch", late)
        _ask(client, "only_offline")
    assert calls
    again = _ask(client, "only_offline")
    assert again["features"]["only_offline"] == expected(corrected, "only_offline")


def test_emptied_redis_is_not_filled_with_schemas_of_single_reads(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings)
    offline.store._redis.flushdb()
    for entity_id in IDS[:8]:
        answer = _ask(client, entity_id)
        assert answer["features"][entity_id] == expected(offline.frame, entity_id)
    assert offline.store._redis.keys("leadml:*") == []


def test_new_words_of_single_reads_are_gathered_in_one_schema(
    offline: World, serving: Serving
) -> None:
    """The third read knows both of its words already, so that it needs no schema of its own."""
    words = [f"new {i % 3}" for i in range(len(offline.frame))]
    _keep_offline(offline, offline.frame.assign(state=words), utc_now())
    client = serving(offline.settings)
    redis = offline.store._redis
    counts = []
    for pair in (IDS[0:2], IDS[4:6], IDS[8:10]):
        redis.delete(*(f"leadml:lead:{entity_id}" for entity_id in pair))
        assert _ask(client, *pair)["meta"][pair[0]]["source"] == "snapshot"
        counts.append(len(redis.keys("leadml:schema:lead:*")))
    assert counts[2] == counts[1]


def test_invalidated_lead_is_not_served_from_the_cache(offline: World, serving: Serving) -> None:
    offline.store.invalidate("lead", ["lead_0"], utc_now())
    answer = _ask(serving(offline.settings), "lead_0")
    assert answer["meta"]["lead_0"]["source"] == "snapshot"


def test_redis_down_features_come_from_the_snapshot(offline: World, serving: Serving) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    answer = _ask(client, *IDS)
    assert answer["features"] == {i: expected(offline.frame, i) for i in IDS}
    assert {meta["source"] for meta in answer["meta"].values()} == {"snapshot"}
    health = client.get("/api/v1/ml/health").json()
    assert health["status"] == "degraded"
    assert health["services"]["redis"] == "can't be reached (ConnectionError)"
    assert 'leadml_online_failures_total{store="redis"}' in client.get("/metrics").text


def test_redis_down_unknown_lead_is_still_a_404(offline: World, serving: Serving) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    response = client.post(BATCH, json={"entity_ids": ["nobody"]})
    assert response.status_code == 404


def _register(world: World, patch: pytest.MonkeyPatch) -> None:
    """Let the registry know the champion for conversion."""

    class Champion:
        def pointer(self) -> dict[str, Any]:
            return world.pointers["conversion"]

    patch.setattr(
        Registry, "champion", lambda self, name: Champion() if name == "conversion" else None
    )


@pytest.mark.parametrize("redis_state", ["down", "emptied"])
def test_models_come_from_the_registry_when_redis_points_to_none(
    offline: World, serving: Serving, monkeypatch: pytest.MonkeyPatch, redis_state: str
) -> None:
    _register(offline, monkeypatch)
    offline.store._redis.flushdb()
    down = {"redis_url": NO_REDIS} if redis_state == "down" else {}
    client = serving(offline.settings.model_copy(update=down))
    body = {"model_type": "conversion", "entity_id": offline.open_ids[0]}
    response = client.post("/api/v1/ml/predict", json=body)
    assert response.status_code == 200
    assert response.json()["data"]["model_id"] == "conversion_1"


def test_health_without_any_model_is_degraded_and_says_why(world: World, serving: Serving) -> None:
    world.store._redis.flushdb()
    health = serving(world.settings).get("/api/v1/ml/health").json()
    assert health["status"] == "degraded"
    assert health["reason"].startswith("no model is loaded")


def test_health_has_no_reason_when_all_is_well(client: httpx.Client) -> None:
    health = client.get("/api/v1/ml/health").json()
    assert (health["status"], health["reason"]) == ("ok", None)


def test_postgres_down_cached_leads_are_answered(world: World, serving: Serving) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    answer = _ask(client, *IDS)
    assert answer["features"] == {i: expected(world.frame, i) for i in IDS}
    health = client.get("/api/v1/ml/health").json()
    assert (health["status"], health["services"]["redis"]) == ("degraded", "ok")


def test_postgres_down_a_miss_is_a_503_that_names_it(world: World, serving: Serving) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    response = client.post(BATCH, json={"entity_ids": ["lead_0", "missing"]})
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


@pytest.mark.parametrize("rubbish", [b"\x01\x00rubbish", b"\xff" * 7 + b"\x7f" * 60])
def test_broken_value_alone_is_looked_up_and_replaced(
    offline: World, serving: Serving, rubbish: bytes
) -> None:
    client = serving(offline.settings)
    offline.store._redis.set("leadml:lead:lead_0", rubbish)
    for source in ("snapshot", "cache"):
        answer = _ask(client, "lead_0", "lead_1")
        assert answer["features"]["lead_0"] == expected(offline.frame, "lead_0")
        sources = {i: meta["source"] for i, meta in answer["meta"].items()}
        assert sources == {"lead_0": source, "lead_1": "cache"}


def test_value_of_a_lost_schema_is_answered_from_the_snapshot(
    offline: World, serving: Serving
) -> None:
    schema = offline.store.current_schema("lead")
    assert schema is not None
    client = serving(offline.settings)
    offline.store._redis.delete(f"leadml:schema:lead:{schema.schema_id}")
    answer = _ask(client, "lead_0")
    assert answer["features"]["lead_0"] == expected(offline.frame, "lead_0")


def test_app_notices_that_redis_is_back(offline: World, serving: Serving) -> None:
    client = serving(offline.settings)
    reader_store = offline.store._redis
    reader_store.execute_command("CLIENT", "PAUSE", "600", "ALL")
    assert _ask(client, "lead_0")["meta"]["lead_0"]["source"] == "snapshot"
    wait_for(lambda: _ask(client, "lead_1")["meta"]["lead_1"]["source"] == "cache")


def test_word_that_only_the_snapshot_has_is_answered_and_cached(
    offline: World, serving: Serving
) -> None:
    only = offline.frame["entity_id"] == "only_offline"
    _keep_offline(
        offline,
        offline.frame.assign(state=offline.frame["state"].mask(only, "brand new")),
        utc_now(),
    )
    client = serving(offline.settings)
    for source in ("snapshot", "cache"):
        answer = _ask(client, "only_offline")
        assert answer["features"]["only_offline"]["state"] == "brand new"
        assert answer["meta"]["only_offline"]["source"] == source


def test_prediction_of_a_miss_is_that_of_the_snapshot(offline: World, serving: Serving) -> None:
    client = serving(offline.settings)
    entity_id = offline.open_ids[0]
    body = {"model_type": "conversion", "entity_id": entity_id}
    cached = client.post("/api/v1/ml/predict", json=body).json()["data"]
    offline.store._redis.delete(f"leadml:lead:{entity_id}")
    missed = client.post("/api/v1/ml/predict", json=body).json()["data"]
    assert missed["probability"] == cached["probability"]


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
