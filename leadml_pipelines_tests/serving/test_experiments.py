"""Champion and challenger in the running app: who answers for whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.serving.assignment import challenged
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.serving.artifacts import expected_value, make_model
from leadml_pipelines_tests.serving.conftest import World, wait_for

BATCH = "/api/v1/ml/predict/batch"


def _challenge(world: World, model_id: str, share: Any, **options: Any) -> dict[str, Any]:
    """Publish a challenger of `conversion`."""
    made = make_model(world.artifacts, "conversion", model_id, **({"seed": 5} | options))
    pointer = made | {"traffic_share": share}
    world.models.set("conversion", "challenger", pointer)
    return pointer


def _share(world: World, pointer: dict[str, Any], share: Any) -> None:
    world.models.set("conversion", "challenger", pointer | {"traffic_share": share})


def _who(client: httpx.Client, ids: list[str]) -> dict[str, str]:
    """The model that answers for each entity."""
    body = {"model_type": "conversion", "entity_ids": ids}
    rows = client.post(BATCH, json=body).json()["data"]
    return {row["entity_id"]: row["model_id"] for row in rows}


def _drawn(world: World, model_id: str, share: float) -> set[str]:
    ids = world.open_ids
    lots = challenged("conversion", model_id, ids, share)
    return {entity_id for entity_id, drawn in zip(ids, lots, strict=True) if drawn}


def _challengers(who: dict[str, str], model_id: str) -> set[str]:
    return {entity_id for entity_id, its in who.items() if its == model_id}


def test_the_challenger_answers_for_its_share_and_the_champion_for_the_rest(
    client: httpx.Client, world: World
) -> None:
    pointer = _challenge(world, "conversion_2", 0.5)
    ids = world.open_ids
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2"))
    who = _who(client, ids)
    assert _challengers(who, "conversion_2") == _drawn(world, "conversion_2", 0.5)
    assert set(who.values()) == {"conversion_1", "conversion_2"}
    body = {"model_type": "conversion", "entity_ids": ids}
    for row in client.post(BATCH, json=body).json()["data"]:
        its = pointer if row["model_id"] == "conversion_2" else world.pointers["conversion"]
        expected = expected_value(its, world.frame, row["entity_id"])
        assert row["probability"] == pytest.approx(expected, abs=1e-7)


def test_one_and_many_are_answered_by_the_same_model(client: httpx.Client, world: World) -> None:
    _challenge(world, "conversion_2", 0.5)
    ids = world.open_ids
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2"))
    for entity_id, model_id in _who(client, ids).items():
        body = {"model_type": "conversion", "entity_id": entity_id}
        answer = client.post("/api/v1/ml/predict", json=body).json()["data"]
        assert answer["model_id"] == model_id


def test_raising_the_share_moves_nobody_back_and_lowering_it_to_none_ends_it(
    client: httpx.Client, world: World
) -> None:
    pointer = _challenge(world, "conversion_2", 0.3)
    ids = world.open_ids
    before: set[str] = set()
    for share in (0.3, 0.6, 1.0):
        _share(world, pointer, share)
        wanted = _drawn(world, "conversion_2", share)
        wait_for(lambda: _challengers(_who(client, ids), "conversion_2") == wanted)  # noqa: B023
        assert before <= wanted
        before = wanted
    assert before == set(ids)
    _share(world, pointer, 0)
    wait_for(lambda: not _challengers(_who(client, ids), "conversion_2"))


def test_a_lowered_share_counts_even_if_the_files_are_gone(
    client: httpx.Client, world: World
) -> None:
    pointer = _challenge(world, "conversion_2", 1.0)
    ids = world.open_ids
    wait_for(lambda: len(_challengers(_who(client, ids), "conversion_2")) == len(ids))
    (world.artifacts / "conversion_2" / "model.ubj").unlink()
    _share(world, pointer, 0.3)
    wanted = _drawn(world, "conversion_2", 0.3)
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2") == wanted)


def test_a_withdrawn_challenger_answers_no_more(client: httpx.Client, world: World) -> None:
    _challenge(world, "conversion_2", 1.0)
    ids = world.open_ids
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2"))
    assert 'model_id="conversion_2"' in client.get("/metrics").text
    health = client.get("/api/v1/ml/health").json()["models"]["conversion"]
    assert health["challenger"] == {
        "model_id": "conversion_2",
        "loaded": True,
        "traffic_share": 1.0,
        "error": None,
    }
    world.models.delete("conversion", "challenger")
    wait_for(lambda: not _challengers(_who(client, ids), "conversion_2"))
    assert client.get("/api/v1/ml/health").json()["models"]["conversion"]["challenger"] is None
    assert 'model_id="conversion_2"' not in client.get("/metrics").text


def test_a_challenger_that_is_promoted_answers_for_all(client: httpx.Client, world: World) -> None:
    pointer = _challenge(world, "conversion_2", 0.3)
    ids = world.open_ids
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2"))
    champion = pointer | {"traffic_share": 1.0}
    world.models.set("conversion", "champion", champion)
    wait_for(lambda: set(_who(client, ids).values()) == {"conversion_2"})
    world.models.delete("conversion", "challenger")
    wait_for(lambda: 'model_id="conversion_1"' not in client.get("/metrics").text)
    assert set(_who(client, ids).values()) == {"conversion_2"}
    assert 'leadml_model_loaded{model="conversion",model_id="conversion_2"} 1.0' in (
        client.get("/metrics").text
    )


@pytest.mark.parametrize("share", [-0.1, 1.5, "0.5", None, True, float("inf")])
def test_a_share_that_is_none_leaves_all_to_the_champion(
    client: httpx.Client, world: World, share: Any
) -> None:
    made = make_model(world.artifacts, "conversion", "conversion_2", seed=5)
    text = json.dumps(made | {"traffic_share": share})
    world.store._redis.set("leadml:model:conversion:challenger", text)
    world.store._redis.sadd("leadml:models", "conversion:challenger")
    failed = 'leadml_model_load_failures_total{model="conversion"}'
    wait_for(lambda: failed in client.get("/metrics").text)
    assert set(_who(client, world.open_ids).values()) == {"conversion_1"}


def test_a_challenger_that_cannot_be_loaded_leaves_all_to_the_champion(
    client: httpx.Client, world: World
) -> None:
    ids = world.open_ids
    _challenge(world, "conversion_2", 1.0)
    wait_for(lambda: _challengers(_who(client, ids), "conversion_2"))
    bad = make_model(world.artifacts, "conversion", "conversion_3", seed=6)
    (world.artifacts / "conversion_3" / "model.ubj").write_bytes(b"no model")
    world.models.set("conversion", "challenger", bad | {"traffic_share": 1.0})
    # Neither the new challenger nor the one before: nobody wants that one any more.
    wait_for(lambda: set(_who(client, ids).values()) == {"conversion_1"})
    health = client.get("/api/v1/ml/health").json()
    its = health["models"]["conversion"]
    assert (its["error"], its["challenger"]["loaded"]) == (None, False)
    assert its["challenger"]["model_id"] == "conversion_3"
    assert health["status"] == "degraded"
    assert "challenger of conversion: " in health["reason"]


def test_a_challenger_without_its_features_online_leaves_all_to_the_champion(
    client: httpx.Client, world: World
) -> None:
    ids = world.open_ids
    _challenge(world, "conversion_2", 1.0, population="no_such_feature > 0")
    wait_for(lambda: 'model_id="conversion_2"' in client.get("/metrics").text)
    assert set(_who(client, ids).values()) == {"conversion_1"}


def test_each_model_has_its_own_experiment(client: httpx.Client, world: World) -> None:
    _challenge(world, "conversion_2", 1.0)
    wait_for(lambda: _challengers(_who(client, world.open_ids), "conversion_2"))
    body = {"model_type": "lead_score", "entity_id": world.open_ids[0]}
    answer = client.post("/api/v1/ml/predict", json=body).json()["data"]
    assert answer["model_id"] == "lead_score_1"


def test_the_log_knows_who_was_drawn_and_with_what_chance(
    world: World, serving: Callable[[Settings], httpx.Client], postgres_url: str
) -> None:
    ids = world.open_ids
    with psycopg.connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")
    _challenge(world, "conversion_2", 0.5)
    client = serving(world.settings)
    drawn = _drawn(world, "conversion_2", 0.5)
    assert _challengers(_who(client, ids), "conversion_2") == drawn
    query = (
        "SELECT entity_id, model_id, role, experiment, traffic_share FROM leadml.predictions "
        "WHERE experiment = 'conversion_2'"
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        rows = wait_for(
            lambda: rows if len(rows := connection.execute(query).fetchall()) == len(ids) else None
        )
    for entity_id, model_id, role, experiment, share in rows:
        its = "challenger" if entity_id in drawn else "champion"
        assert (role, experiment, share) == (its, "conversion_2", 0.5)
        assert model_id == ("conversion_2" if entity_id in drawn else "conversion_1")


@pytest.mark.parametrize("path", [BATCH, "/api/v1/ml/predict"])
def test_where_the_challenger_fails_the_champion_answers(
    client: httpx.Client, world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    ids = world.open_ids
    _challenge(world, "conversion_2", 1.0)
    wait_for(lambda: len(_challengers(_who(client, ids), "conversion_2")) == len(ids))
    predict = LoadedModel.predict

    def failing(self: LoadedModel, *given: Any) -> Any:
        if self.model_id == "conversion_2":
            raise RuntimeError("nobody foresaw this")
        return predict(self, *given)

    monkeypatch.setattr(LoadedModel, "predict", failing)
    asked = {"entity_ids": ids} if path == BATCH else {"entity_id": ids[0]}
    answer = client.post(path, json={"model_type": "conversion"} | asked)
    assert answer.status_code == 200
    data = answer.json()["data"]
    rows = data if path == BATCH else [data]
    assert {row["model_id"] for row in rows} == {"conversion_1"}
    for row in rows:
        expected = expected_value(world.pointers["conversion"], world.frame, row["entity_id"])
        assert row["probability"] == pytest.approx(expected, abs=1e-7)
    counted = (
        'leadml_challenger_failed_predictions_total{model="conversion",model_id="conversion_2"} '
        f"{len(rows)}.0"
    )
    assert counted in client.get("/metrics").text
