"""Functions computed on request, and functions proposed, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from leadml_pipelines.serving import app as app_module
from leadml_pipelines.serving import engineer_routes
from leadml_pipelines.serving.engineer_routes import _proposals
from leadml_pipelines.serving.errors import ApiError
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.features.world import World
from leadml_pipelines_tests.learning.planted import save_planted
from leadml_pipelines_tests.serving.conftest import NOBODY_LISTENS, serve

ENGINEER = "/api/v1/features/engineer"
OPENS = {"function": "count", "event_type": "email_open", "window": "14d"}
Serving = Callable[[Settings], httpx.Client]


@pytest.fixture(scope="module")
def settings(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An app that has PostgreSQL alone: nothing here needs Redis."""
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, redis_url=f"redis://{NOBODY_LISTENS}/0", postgres_url=postgres_url)


@pytest.fixture(scope="module")
def app(settings: Settings) -> Iterator[httpx.Client]:
    with serve(settings) as client:
        yield client


@pytest.fixture
def now(settings: Settings) -> Any:
    """Two leads, and what the first one did up to now."""
    now, day = utc_now(), timedelta(days=1)
    world = World().lead("a", now - 90 * day).lead("b", now - 2 * day)
    world.event("a", now - 3 * day, event_type="email_open")
    world.event("a", now - 20 * day, event_type="email_open")
    world.event("a", now - day, event_type="email_open", ingested_at=now + day)
    world.load(settings.require_postgres())
    return now


def _ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post(ENGINEER, json={"entity_ids": ["a"], "functions": [OPENS], **body})


def _refused(response: httpx.Response, status: int, code: str) -> str:
    answer = response.json()
    assert (response.status_code, answer["error"]["code"]) == (status, code), answer
    return str(answer["error"]["message"])


def test_functions_are_computed_as_of_now(app: httpx.Client, now: Any) -> None:
    recency = {"function": "recency", "direction": "inbound"}
    answer = _ask(app, entity_ids=["b", "a"], functions=[OPENS, recency]).json()
    assert answer["features"]["b"] == {"email_open_count_14d": 0, "inbound_recency": None}
    assert answer["features"]["a"]["email_open_count_14d"] == 1
    assert answer["features"]["a"]["inbound_recency"] == pytest.approx(3, abs=0.01)
    assert (answer["proposals"], answer["basis"]) == ([], None)


def test_each_feature_is_described_with_a_definition_to_paste(app: httpx.Client, now: Any) -> None:
    answer = _ask(app).json()
    (one,) = answer["definitions"]
    assert (one["name"], one["type"], one["unit"]) == ("email_open_count_14d", "integer", "events")
    assert one["definition"] == "Count(event_type='email_open', window='14d')"
    assert one["spec"] == OPENS
    assert one["definition"] in answer["view"]


def test_a_past_moment_can_be_asked_for(app: httpx.Client, now: Any) -> None:
    moment = (now - timedelta(days=15)).isoformat()
    answer = _ask(app, as_of=moment).json()
    assert answer["features"]["a"] == {"email_open_count_14d": 1}
    moment = (now - timedelta(days=3, seconds=1)).isoformat()
    assert _ask(app, as_of=moment).json()["features"]["a"] == {"email_open_count_14d": 0}


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        ({"functions": [{"function": "cuont"}]}, "invalid_function", "did you mean count"),
        ({"functions": [{**OPENS, "windw": "1d"}]}, "invalid_function", "did you mean window"),
        ({"functions": [OPENS, OPENS]}, "invalid_function", "functions.1: there is a function"),
        ({"functions": [OPENS] * 51}, "invalid_request", "functions has 51 entries; 50 is the"),
        ({"functions": [], "target": None}, "invalid_request", "give `functions` to compute"),
        ({"entity_ids": []}, "invalid_request", "give `entity_ids`"),
        ({"entity_ids": ["x"] * 101}, "invalid_request", "entity_ids has 101 entries; 100 is"),
        ({"entity_ids": ["a\nb"]}, "invalid_entity_id", "control character"),
        ({"entity_type": "leed"}, "unknown_entity_type", "there is lead"),
        ({"target": "conversoin"}, "unknown_model", "did you mean conversion?"),
        ({"target": "churn", "entity_type": "agent"}, "invalid_request", "a model of lead, not"),
        ({"as_of": "2026-01-01T00:00:00"}, "invalid_request", "as_of"),
        ({"as_of": "2999-01-01T00:00:00Z"}, "invalid_request", "lies in the future"),
        ({"ids": ["a"]}, "invalid_request", "ids"),
    ],
)
def test_what_means_nothing_is_refused_with_the_way_out(
    app: httpx.Client, now: Any, body: dict[str, Any], code: str, sentence: str
) -> None:
    assert sentence in _refused(_ask(app, **body), 422, code)


def test_a_score_that_takes_a_number_for_a_word_is_refused(app: httpx.Client, now: Any) -> None:
    part = {"weight": 100, "feature": "email_open_rate", "shape": "points", "worth": {"a": 1}}
    score = {"function": "weighted_score", "name": "my_score", "parts": [part]}
    assert "another type" in _refused(_ask(app, functions=[score]), 422, "invalid_function")


def test_unknown_entities_are_named(app: httpx.Client, now: Any) -> None:
    message = _refused(_ask(app, entity_ids=["a", "z"]), 404, "unknown_entity")
    assert message == "there is no lead with the id z"


def test_without_postgresql_the_answer_says_so(settings: Settings, serving: Serving) -> None:
    away = Settings(
        home=settings.home,
        redis_url=settings.redis_url,
        postgres_url=f"postgresql://nobody:secret@{NOBODY_LISTENS}/none",
    )
    message = _refused(_ask(serving(away)), 503, "postgres_unavailable")
    assert "secret" not in message


def test_what_takes_postgresql_too_long_is_stopped(
    settings: Settings, serving: Serving, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engineer_routes, "STATEMENT_SECONDS", 0.3)
    client = serving(settings)
    with psycopg.connect(settings.require_postgres()) as blocker:
        blocker.execute("LOCK TABLE crm.lead_events IN ACCESS EXCLUSIVE MODE")
        assert "fewer functions" in _refused(_ask(client), 503, "too_slow")
    assert _ask(client).status_code == 200


def test_a_request_has_a_time_limit_for_all_its_statements(
    app: httpx.Client, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engineer_routes, "COMPUTING_SECONDS", -1.0)
    assert "fewer ids" in _refused(_ask(app), 503, "too_slow")


def test_requests_one_after_the_other_share_a_connection_that_ends_with_the_app(
    settings: Settings, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = engineer_routes.open_connections(settings)
    monkeypatch.setattr(app_module, "open_connections", lambda settings: pool)
    with serve(settings) as client:
        for _ in range(3):
            assert _ask(client).status_code == 200
        (kept,) = pool._idle.queue
    assert kept.closed


def test_by_the_clock_of_the_data_now_is_the_newest_snapshot(
    settings: Settings, serving: Serving, now: Any
) -> None:
    client = serving(settings.model_copy(update={"clock": "data"}))
    moment = now - timedelta(days=15)
    with psycopg.connect(settings.require_postgres()) as connection:
        connection.execute(
            "INSERT INTO leadml.feature_snapshots (snapshot_id, entity, as_of, rows, checked_at) "
            "VALUES ('s', 'lead', %s, 2, now())",
            (moment,),
        )
    answer = _ask(client).json()
    assert answer["features"]["a"] == {"email_open_count_14d": 1}
    with psycopg.connect(settings.require_postgres()) as connection:
        connection.execute("DELETE FROM leadml.feature_snapshots")


def test_a_host_without_training_set_says_so(
    settings: Settings, serving: Serving, tmp_path: Path
) -> None:
    elsewhere = Settings(
        home=tmp_path / "empty", redis_url=settings.redis_url, postgres_url=settings.postgres_url
    )
    client = serving(elsewhere)
    message = _refused(client.post(ENGINEER, json={"target": "conversion"}), 503, "no_training_set")
    assert "materialize conversion_training_set here" in message
    assert str(tmp_path) not in message


def test_proposals_are_computed_for_the_entities_too(settings: Settings, app: httpx.Client) -> None:
    save_planted(settings)
    body = {"target": "conversion", "limit": 2, "entity_ids": ["lead_0", "lead_1"]}
    response = app.post(ENGINEER, json=body, timeout=60)
    answer = response.json()
    assert response.status_code == 200, answer
    first, second = answer["proposals"]
    assert first["score"] >= second["score"]
    assert first["score"] > 0.5
    assert "email" in first["name"]
    assert [one["name"] for one in answer["definitions"]] == [first["name"], second["name"]]
    assert set(answer["features"]["lead_0"]) == {first["name"], second["name"]}
    assert first["definition"] in answer["view"]
    assert answer["basis"]["target"] == "conversion"
    assert answer["basis"]["rows"] > 100


def test_a_second_request_for_proposals_is_told_to_wait(settings: Settings) -> None:
    turn = threading.Lock()
    with turn, pytest.raises(ApiError, match="ask again in a few seconds") as error:
        _proposals(settings, "conversion", 3, turn)
    assert error.value.status == 429
