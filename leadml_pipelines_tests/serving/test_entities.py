"""Rows that are written past the app: who wrote them says so, and the next read sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from leadml_pipelines.features.entity_types import UnknownEntityTypeError
from leadml_pipelines.online.keys import EntityIdError
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import contract
from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import NaiveTimeError, utc_now
from leadml_pipelines_tests.serving.conftest import NO_POSTGRES, NO_REDIS, World
from leadml_pipelines_tests.serving.offline import load_leads

INVALIDATE = "/api/v1/entities/invalidate"
BATCH = "/api/v1/features/batch"

pytestmark = pytest.mark.usefixtures("compiled")

Serving = Callable[[Settings], httpx.Client]


@pytest.fixture
def offline(world: World) -> World:
    """The world, whose leads PostgreSQL has too."""
    load_leads(world.settings.require_postgres())
    return world


@pytest.fixture
def app(offline: World, serving: Serving) -> httpx.Client:
    return serving(offline.settings)


@pytest.fixture
def online(offline: World) -> Iterator[OnlineFeatures]:
    """The same without HTTP; nothing is delivered in the background."""
    with closing(OnlineFeatures(offline.settings)) as online:
        yield online


def _invalidate(client: httpx.Client, *ids: str, **more: Any) -> Any:
    response = client.post(INVALIDATE, json={"entity_ids": ids, **more})
    assert response.status_code == 200, response.text
    answer = response.json()
    TypeAdapter(contract.InvalidateResponse).validate_python(answer)
    return answer


def _policies(client: httpx.Client, lead_id: str) -> tuple[int, str]:
    """How many active policies the features know of, and where they come from."""
    body = {"entity_ids": [lead_id], "feature_names": ["active_policy_count"]}
    answer = client.post(BATCH, json=body).json()
    count = answer["features"][lead_id]["active_policy_count"]
    return int(count), answer["meta"][lead_id]["source"]


def _bind(world: World, lead_id: str, bound_at: datetime) -> None:
    """Write a policy past the app, as a CRM does."""
    with connect(world.settings.require_postgres()) as connection:
        connection.execute(
            "INSERT INTO crm.policies (policy_id, lead_id, product, annual_premium, bound_at) "
            "VALUES ('written past the app', %s, 'auto', 500, %s)",
            (lead_id, bound_at),
        )


def _notes(world: World) -> list[tuple[str, str, bool]]:
    with connect(world.settings.require_postgres()) as connection:
        return connection.execute(
            "SELECT entity_type, entity_id, delivered_at IS NOT NULL FROM leadml.invalidations "
            "ORDER BY entity_id"
        ).fetchall()


def _cached(client: httpx.Client, world: World, lead_id: str) -> int:
    """Active policies of a lead whose true values are in the cache now."""
    world.store.invalidate("lead", [lead_id], utc_now())
    before, _ = _policies(client, lead_id)
    assert _policies(client, lead_id) == (before, "cache")
    return before


def test_a_policy_that_the_crm_wrote_is_seen_by_the_read_after_the_call(
    app: httpx.Client, offline: World
) -> None:
    before = _cached(app, offline, "lead_0")
    _bind(offline, "lead_0", utc_now())
    assert _policies(app, "lead_0") == (before, "cache")
    answer = _invalidate(app, "lead_0")
    assert answer == {"success": True, "entities": 1, "invalidation": "done"}
    assert _policies(app, "lead_0") == (before + 1, "computed")
    assert _policies(app, "lead_1")[1] == "cache"
    assert _notes(offline) == [("lead", "lead_0", True)]
    text = app.get("/metrics").text
    assert 'leadml_online_invalidated_entities_total{entity_type="lead"} 1.0' in text


def test_a_lead_that_was_closed_past_the_app_is_scored_as_open_no_more(
    app: httpx.Client, offline: World
) -> None:
    with connect(offline.settings.require_postgres()) as connection:
        row = connection.execute(
            "SELECT lead_id FROM crm.leads WHERE lead_id NOT IN (SELECT lead_id FROM crm.closures) "
            "AND lead_id NOT IN (SELECT lead_id FROM crm.policies) ORDER BY lead_id LIMIT 1"
        ).fetchone()
    assert row is not None
    lead_id = row[0]
    offline.store.invalidate("lead", [lead_id], utc_now())
    body = {"model_type": "conversion", "entity_id": lead_id}
    assert app.post("/api/v1/ml/predict", json=body).status_code == 200
    with connect(offline.settings.require_postgres()) as connection:
        connection.execute(
            "INSERT INTO crm.closures (lead_id, closed_at, reason) VALUES (%s, now(), 'lost')",
            (lead_id,),
        )
    _invalidate(app, lead_id)
    refused = app.post("/api/v1/ml/predict", json=body)
    assert refused.json()["error"]["code"] == "outside_population"


def test_a_row_dated_a_little_ahead_is_seen_as_soon_as_its_time_has_come(
    app: httpx.Client, offline: World
) -> None:
    """The clock of the CRM is ahead of ours; what was read in between was cached without it."""
    before = _cached(app, offline, "lead_0")
    when = utc_now() + timedelta(seconds=1.5)
    _bind(offline, "lead_0", when)
    _invalidate(app, "lead_0", at=when.isoformat())
    _policies(app, "lead_0")
    while utc_now() <= when:
        time.sleep(0.02)
    assert _policies(app, "lead_0")[0] == before + 1


def test_ids_that_nobody_knows_and_repeats_do_no_harm(app: httpx.Client, offline: World) -> None:
    answer = _invalidate(app, "lead_1", "deleted long ago", "lead_1")
    assert (answer["entities"], answer["invalidation"]) == (2, "done")
    meta = app.post(BATCH, json={"entity_ids": ["lead_1", "deleted long ago"]}).json()["meta"]
    assert meta["lead_1"]["source"] == "computed"
    assert meta["deleted long ago"]["status"] == "unknown"


def test_agents_are_entities_too(app: httpx.Client, offline: World) -> None:
    _invalidate(app, "smith", entity_type="agent")
    assert _notes(offline) == [("agent", "smith", True)]


@pytest.mark.parametrize(
    ("body", "code", "part"),
    [
        ({"entity_ids": ["a"], "entity_type": "house"}, "unknown_entity_type", "house"),
        ({"entity_ids": ["a", "b\nc"]}, "invalid_entity_id", "control character"),
        ({"entity_ids": []}, "invalid_request", "entity_ids"),
        ({"entity_ids": ["a"] * 1001}, "invalid_request", "1000 is the limit"),
        ({"entity_ids": ["a"], "at": "2026-11-01T00:00:00"}, "invalid_request", "at"),
        ({"entity_ids": ["a"], "until": "x"}, "invalid_request", "until"),
    ],
)
def test_a_request_that_means_nothing_is_refused_and_nothing_is_noted(
    app: httpx.Client, offline: World, body: dict[str, Any], code: str, part: str
) -> None:
    response = app.post(INVALIDATE, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (422, code)
    assert part in response.json()["error"]["message"]
    assert _notes(offline) == []


def test_without_redis_the_note_waits_and_the_answer_says_so(
    offline: World, serving: Serving
) -> None:
    client = serving(offline.settings.model_copy(update={"redis_url": NO_REDIS}))
    assert _invalidate(client, "lead_0")["invalidation"] == "pending"
    assert _notes(offline) == [("lead", "lead_0", False)]


def test_without_postgresql_the_answer_says_to_ask_again(offline: World, serving: Serving) -> None:
    client = serving(offline.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    response = client.post(INVALIDATE, json={"entity_ids": ["lead_0"]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_invalidated")
    assert "secret" not in response.text


def test_in_process_any_number_of_entities_is_made_untrue(
    online: OnlineFeatures, offline: World
) -> None:
    ids = ["lead_0", *(f"other {i}" for i in range(6000)), "lead_1"]
    assert online.invalidate("lead", ids)
    assert offline.store.read_batch("lead", ["lead_0", "lead_1", "lead_2"]).missing() == [0, 1]
    assert {delivered for _, _, delivered in _notes(offline)} == {True}


def test_in_process_what_can_be_no_entity_is_refused(
    online: OnlineFeatures, offline: World
) -> None:
    with pytest.raises(UnknownEntityTypeError, match="no entity type house"):
        online.invalidate("house", ["a"])
    with pytest.raises(EntityIdError, match="empty"):
        online.invalidate("lead", ["a", ""])
    with pytest.raises(NaiveTimeError, match="at is"):
        online.invalidate("lead", ["a"], datetime(2026, 11, 1))
    assert _notes(offline) == []
