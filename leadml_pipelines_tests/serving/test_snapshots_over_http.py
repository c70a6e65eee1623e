"""Features over HTTP from apps of their own: of old snapshots, of many leads, counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx

from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_features, lead_frame
from leadml_pipelines_tests.serving.conftest import IDS, NO_POSTGRES, World

BATCH = "/api/v1/features/batch"


def _ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post(BATCH, json={"entity_ids": ["lead_0"], "entity_type": "lead", **body})


def test_values_of_the_day_before_yesterday_are_stale_when_they_cannot_be_computed(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    old = utc_now() - timedelta(days=2)
    publish_snapshot(world.store, "lead", lead_features(), lead_frame(["old"]), old)
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    meta = _ask(client, entity_ids=["old", "lead_0"]).json()["meta"]
    assert [meta[i]["status"] for i in ("old", "lead_0")] == ["stale", "present"]
    text = client.get("/metrics").text
    assert "leadml_online_stale_entities_total 1.0" in text
    assert "leadml_online_stale_share 0.5" in text
    assert "the target is under 0.05" in text


def test_by_the_clock_of_the_data_a_historical_snapshot_is_fresh(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    world.store._redis.flushdb()
    old = utc_now() - timedelta(days=4000)
    publish_snapshot(world.store, "lead", lead_features(), lead_frame(["old"]), old)
    client = serving(world.settings.model_copy(update={"clock": "data"}))
    meta = _ask(client, entity_ids=["old"]).json()["meta"]["old"]
    assert (meta["status"], meta["age_seconds"]) == ("present", 0)


def test_a_thousand_entities_are_answered(client: httpx.Client, world: World) -> None:
    ids = [f"many_{i}" for i in range(1000)]
    publish_snapshot(world.store, "lead", lead_features(), lead_frame(ids), utc_now())
    answer = _ask(client, entity_ids=ids, feature_names=["quality_score"]).json()
    assert list(answer["features"]) == ids


def test_requests_and_hits_are_counted(client: httpx.Client) -> None:
    _ask(client, entity_ids=IDS[:3])
    _ask(client, entity_ids=["nobody"])
    text = client.get("/metrics").text
    assert f'leadml_http_requests_total{{method="POST",route="{BATCH}",status="200"}} 1.0' in text
    assert 'leadml_online_entities_total{source="cache"} 3.0' in text
    assert 'leadml_online_entities_total{source="nowhere"} 1.0' in text
    assert f'leadml_http_request_seconds_count{{route="{BATCH}"}} 2.0' in text
