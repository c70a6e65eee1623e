"""After a restart the version before answers for a champion that can't be loaded."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.serving import app
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import ModelShelf
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.serving.artifacts import KEY, expected_value, make_model
from leadml_pipelines_tests.serving.conftest import NO_REDIS, World, wait_for

Serving = Callable[[Settings], httpx.Client]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointers are looked at every fraction of a second, not every three."""
    monkeypatch.setattr(app, "ModelShelf", partial(ModelShelf, poll_seconds=0.3))


class Evil:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._folder,)


@pytest.fixture
def damaged(world: World) -> Path:
    """The file that is wrong of the champion `conversion_2`; `conversion_1` is the previous one."""
    world.promote("conversion", "conversion_2", population="is_open", seed=5)
    world.models.set("conversion", "previous", world.pointers["conversion"])
    file = world.artifacts / "conversion_2" / "rest.joblib"
    file.rename(world.artifacts / "sound.joblib")
    file.write_bytes(pickle.dumps(Evil(world.artifacts / "unpickled")))
    return file


def _repair(world: World, file: Path) -> None:
    (world.artifacts / "sound.joblib").replace(file)


def _model(client: httpx.Client) -> dict[str, Any]:
    state: dict[str, Any] = client.get("/api/v1/ml/health").json()["models"]["conversion"]
    return state


def _predict(client: httpx.Client, entity_id: str) -> httpx.Response:
    body = {"model_type": "conversion", "entity_id": entity_id}
    return client.post("/api/v1/ml/predict", json=body)


def test_the_previous_version_answers_and_everybody_is_told(
    world: World, serving: Serving, damaged: Path
) -> None:
    with capture_logs() as logs:
        client = serving(world.settings)
    entity_id = world.open_ids[0]
    data = _predict(client, entity_id).json()["data"]
    wanted = expected_value(world.pointers["conversion"], world.frame, entity_id)
    assert data["model_id"] == "conversion_1"
    assert data["probability"] == pytest.approx(wanted, abs=1e-7)
    health = client.get("/api/v1/ml/health").json()
    state = health["models"]["conversion"]
    assert (state["model_id"], state["wanted_model_id"]) == ("conversion_1", "conversion_2")
    assert (state["loaded"], state["fallback"]) == (True, "previous")
    assert "rest.joblib has SHA-256" in state["error"]
    assert state["error"].endswith("conversion_1, its previous version, answers instead")
    assert (health["status"], health["reason"]) == (
        "degraded",
        f"model conversion: {state['error']}",
    )
    text = client.get("/metrics").text
    assert 'leadml_model_fallback{model="conversion"} 1.0' in text
    assert 'leadml_model_fallback{model="churn"} 0.0' in text
    assert 'leadml_model_loaded{model="conversion",model_id="conversion_1"} 1.0' in text
    (told,) = [entry for entry in logs if entry["event"] == "previous_model_answers"]
    assert (told["log_level"], told["model_id"]) == ("error", "conversion_1")
    assert not (world.artifacts / "unpickled").exists()


def test_the_champion_takes_over_as_soon_as_it_can_be_loaded(
    world: World, serving: Serving, damaged: Path
) -> None:
    client = serving(world.settings)
    assert _model(client)["model_id"] == "conversion_1"
    _repair(world, damaged)
    state = wait_for(lambda: s if (s := _model(client))["model_id"] == "conversion_2" else None)
    assert (state["fallback"], state["error"]) == (None, None)
    assert 'leadml_model_fallback{model="conversion"} 0.0' in client.get("/metrics").text


def test_a_rollback_to_the_version_that_stands_in_ends_the_trouble(
    world: World, serving: Serving, damaged: Path
) -> None:
    client = serving(world.settings)
    assert _model(client)["fallback"] == "previous"
    world.models.set("conversion", "champion", world.pointers["conversion"])
    state = wait_for(lambda: s if (s := _model(client))["error"] is None else None)
    assert (state["model_id"], state["fallback"]) == ("conversion_1", None)


def test_what_answered_before_answers_on_rather_than_the_previous_version(
    client: httpx.Client, world: World
) -> None:
    """Though previous ones are looked for, since of another model nothing is in memory."""
    unsound = make_model(world.artifacts, "upsell", "upsell_1")
    (world.artifacts / "upsell_1" / "model.ubj").unlink()
    world.models.set("upsell", "champion", unsound)
    older = make_model(world.artifacts, "conversion", "conversion_0", population="is_open", seed=9)
    world.models.set("conversion", "previous", older)
    broken = make_model(world.artifacts, "conversion", "conversion_2", seed=5)
    (world.artifacts / "conversion_2" / "model.ubj").unlink()
    world.models.set("conversion", "champion", broken)
    wait_for(lambda: _model(client)["error"])
    # A challenger is taken last: when it is there, a whole look has come to its end.
    world.models.set("churn", "challenger", world.pointers["churn"])
    wait_for(lambda: client.get("/api/v1/ml/health").json()["models"]["churn"]["challenger"])
    state = _model(client)
    assert (state["model_id"], state["fallback"]) == ("conversion_1", "last_good")
    assert state["error"].endswith("conversion_1, the last good one, answers instead")
    assert 'leadml_model_fallback{model="conversion"} 1.0' in client.get("/metrics").text


def test_where_neither_is_sound_nothing_is_unpickled_and_both_are_named(
    world: World, serving: Serving, damaged: Path
) -> None:
    file = world.artifacts / "conversion_1" / "rest.joblib"
    sound = file.read_bytes()
    file.write_bytes(damaged.read_bytes())
    client = serving(world.settings)
    response = _predict(client, world.open_ids[0])
    assert response.status_code == 503
    message = response.json()["error"]["message"]
    assert message.count("rest.joblib has SHA-256") == 2
    assert "nor can its previous version, conversion_1, be loaded" in message
    assert not (world.artifacts / "unpickled").exists()
    file.write_bytes(sound)
    state = wait_for(lambda: s if (s := _model(client))["loaded"] else None)
    assert (state["model_id"], state["fallback"]) == ("conversion_1", "previous")


def test_without_redis_the_registry_names_the_previous_version_and_the_champion_takes_over(
    world: World, damaged: Path
) -> None:
    """Though other models are loaded meanwhile, and Redis stays away."""
    pointers: dict[Any, Any] = {
        "champion": {
            "conversion": world.models.get("conversion", "champion"),
            "churn": world.pointers["churn"],
        },
        "previous": {"conversion": world.pointers["conversion"]},
    }
    with ModelPointers(NO_REDIS.get_secret_value()) as nowhere:
        shelf = ModelShelf(
            nowhere,
            lambda: pointers,
            SigningKey(KEY),
            world.artifacts,
            Metrics(),
            poll_seconds=0.05,
        )
        shelf.start()
        try:
            assert shelf.looked.wait(20)
            assert shelf.states["churn"].error is None
            assert shelf.states["conversion"].instead == "previous"
            _repair(world, damaged)
            wait_for(lambda: shelf.states["conversion"].error is None)
            served = shelf.states["conversion"].served
            assert served is not None
            assert served.model.model_id == "conversion_2"
        finally:
            shelf.stop()
