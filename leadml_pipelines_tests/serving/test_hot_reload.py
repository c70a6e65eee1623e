"""A new version reaches the running app; a bad one does not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import httpx
import pytest

from leadml_pipelines.learning.registry import time_limits
from leadml_pipelines.learning.registry.local_store import LocalStore
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.serving import app, models
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import ModelShelf
from leadml_pipelines.serving.served_model import (
    ForeignArtifactError,
    ServedModel,
    load,
    require_ours,
)
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.frozen_server import frozen_server
from leadml_pipelines_tests.s3_server import BUCKET, s3_server
from leadml_pipelines_tests.serving.artifacts import KEY, expected_value, make_model
from leadml_pipelines_tests.serving.conftest import NO_REDIS, World, wait_for


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointers are looked at every fraction of a second, not every three."""
    monkeypatch.setattr(app, "ModelShelf", partial(ModelShelf, poll_seconds=0.3))


def _model(client: httpx.Client, name: str = "conversion") -> dict[str, Any]:
    state: dict[str, Any] = client.get("/api/v1/ml/health").json()["models"][name]
    return state


def _probability(client: httpx.Client, entity_id: str) -> tuple[float, str]:
    body = {"model_type": "conversion", "entity_id": entity_id}
    data = client.post("/api/v1/ml/predict", json=body).json()["data"]
    return data["probability"], data["model_id"]


def test_promoted_version_answers_without_a_restart(client: httpx.Client, world: World) -> None:
    entity_id = world.open_ids[0]
    before, _ = _probability(client, entity_id)
    pointer = world.promote("conversion", "conversion_2", population="is_open", seed=5)
    wait_for(lambda: _model(client)["model_id"] == "conversion_2")
    after, model_id = _probability(client, entity_id)
    assert model_id == "conversion_2"
    assert after == pytest.approx(expected_value(pointer, world.frame, entity_id), abs=1e-7)
    assert after != before
    text = client.get("/metrics").text
    assert 'leadml_model_loaded{model="conversion",model_id="conversion_2"} 1.0' in text
    assert 'model_id="conversion_1"' not in text


def test_change_whose_message_was_lost_is_found(client: httpx.Client, world: World) -> None:
    pointer = make_model(world.artifacts, "conversion", "conversion_2", seed=5)
    world.store._redis.set("leadml:model:conversion:champion", json.dumps(pointer))
    wait_for(lambda: _model(client)["model_id"] == "conversion_2")


def test_rollback_answers_with_the_version_before(client: httpx.Client, world: World) -> None:
    world.promote("conversion", "conversion_2", population="is_open", seed=5)
    wait_for(lambda: _model(client)["model_id"] == "conversion_2")
    world.models.set("conversion", "champion", world.pointers["conversion"])
    wait_for(lambda: _model(client)["model_id"] == "conversion_1")


def test_new_model_appears(client: httpx.Client, world: World) -> None:
    world.promote("upsell", "upsell_1")
    wait_for(lambda: "upsell" in client.get("/api/v1/ml/health").json()["models"])
    assert _model(client, "upsell")["loaded"]


def _tampered(root: Path) -> dict[str, Any]:
    pointer = make_model(root, "conversion", "conversion_2", seed=5)
    file = root / "conversion_2" / "model.ubj"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return pointer


def _missing_file(root: Path) -> dict[str, Any]:
    pointer = make_model(root, "conversion", "conversion_2", seed=5)
    (root / "conversion_2" / "manifest.json").unlink()
    return pointer


def _other_model(root: Path) -> dict[str, Any]:
    return {**make_model(root, "upsell", "upsell_1"), "name": "conversion"}


def _strange_population(root: Path) -> dict[str, Any]:
    return make_model(root, "conversion", "conversion_2", population="__import__('os')")


def _huge(root: Path) -> dict[str, Any]:
    pointer = make_model(root, "conversion", "conversion_2", seed=5)
    os.truncate(root / "conversion_2" / "model.ubj", 10 * 2**30)  # ten GiB that take no room
    return pointer


def _no_hashes(root: Path) -> dict[str, Any]:
    pointer = make_model(root, "conversion", "conversion_2", seed=5)
    del pointer["manifest_sha256"]
    return pointer


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_tampered, "model.ubj has SHA-256"),
        (_missing_file, "manifest.json is missing"),
        (_other_model, "upsell"),
        (_strange_population, "__import__"),
        (_no_hashes, "manifest_sha256"),
        (_huge, "take 10,240.0 MiB, but no more than 512.0 MiB are read"),
    ],
)
def test_version_that_is_not_sound_is_refused_and_the_old_one_answers_on(
    client: httpx.Client,
    world: World,
    make: Callable[[Path], dict[str, Any]],
    reason: str,
) -> None:
    entity_id = world.open_ids[0]
    before = _probability(client, entity_id)
    bad = make(world.artifacts)
    world.models.set("conversion", "champion", bad)
    state = wait_for(lambda: s if (s := _model(client))["error"] else None)
    assert reason in state["error"]
    assert (state["model_id"], state["loaded"]) == ("conversion_1", True)
    assert state["wanted_model_id"] == bad["model_id"]
    assert _probability(client, entity_id) == before
    assert client.get("/api/v1/ml/health").json()["status"] == "degraded"
    text = client.get("/metrics").text
    assert 'leadml_model_load_failures_total{model="conversion"} 1.0' in text


def test_repaired_artifact_is_taken_at_last(client: httpx.Client, world: World) -> None:
    pointer = make_model(world.artifacts, "conversion", "conversion_2", seed=5)
    file = world.artifacts / "conversion_2" / "model.ubj"
    good = file.read_bytes()
    file.write_bytes(b"")
    world.models.set("conversion", "champion", pointer)
    wait_for(lambda: _model(client)["error"])
    file.write_bytes(good)
    wait_for(lambda: _model(client)["error"] is None)
    assert _model(client)["model_id"] == "conversion_2"


def test_model_that_never_loaded_says_so(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    world.promote("conversion", "conversion_2")
    (world.artifacts / "conversion_2" / "model.ubj").unlink()
    client = serving(world.settings)
    response = client.post(
        "/api/v1/ml/predict", json={"model_type": "conversion", "entity_id": "lead_0"}
    )
    assert response.status_code == 503
    assert "conversion could not be loaded" in response.json()["error"]["message"]
    assert not _model(client)["loaded"]
    assert _model(client, "churn")["loaded"]


def test_app_without_models_says_that_none_is_published(
    world: World, serving: Callable[[Settings], httpx.Client]
) -> None:
    world.store._redis.flushdb()
    client = serving(world.settings)
    response = client.post(
        "/api/v1/ml/predict", json={"model_type": "conversion", "entity_id": "lead_0"}
    )
    assert response.status_code == 404
    assert "no model is published yet" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "damaged", [b"[not json", b"\xff", b"[]", b"null", b"{}", b'{"artifact_uri": 5}']
)
def test_a_damaged_pointer_stops_nobody_else(
    client: httpx.Client, world: World, damaged: bytes
) -> None:
    # It is there before the other one changes, and stays.
    world.store._redis.set("leadml:model:churn:champion", damaged)
    world.store._redis.sadd("leadml:models", b"\xff:champion", "No Name:champion")
    world.promote("conversion", "conversion_2", population="is_open", seed=5)
    wait_for(lambda: _model(client)["model_id"] == "conversion_2", 10)
    assert world.store._redis.get("leadml:model:churn:champion") == damaged
    assert _model(client, "churn")["loaded"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (PermissionError(13, "Permission denied", "/m/manifest.json"), "/m/manifest.json"),
        (KeyError("threshold"), "manifest lacks threshold"),
        (AttributeError("no attribute 'Gone'"), "AttributeError: no attribute 'Gone'"),
        (EOFError(), "EOFError"),
        (MemoryError(), "MemoryError"),
        (UnpicklingError("cut off"), "UnpicklingError: cut off"),
    ],
)
def test_whatever_breaks_one_model_is_told_in_words_and_the_others_are_loaded(
    client: httpx.Client,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def broken(name: str, *rest: Any) -> ServedModel:
        if name == "a_broken_one":
            raise error
        return load(name, *rest)

    monkeypatch.setattr(models, "load", broken)
    world.promote("a_broken_one", "a_broken_one_1")
    world.promote("upsell", "upsell_1")
    wait_for(lambda: "upsell" in client.get("/api/v1/ml/health").json()["models"], 10)
    assert _model(client, "upsell")["loaded"]
    assert reason in _model(client, "a_broken_one")["error"]


def test_a_rollback_needs_no_files(client: httpx.Client, world: World) -> None:
    world.promote("conversion", "conversion_2", population="is_open", seed=5)
    wait_for(lambda: _model(client)["model_id"] == "conversion_2")
    (world.artifacts / "conversion_1").rename(world.artifacts / "elsewhere")
    world.models.set("conversion", "champion", world.pointers["conversion"])
    wait_for(lambda: _model(client)["model_id"] == "conversion_1", 10)
    assert _model(client)["error"] is None


def test_a_pointer_out_of_the_folder_of_all_artifacts_is_never_followed(
    client: httpx.Client, world: World, tmp_path: Path
) -> None:
    # Sound and signed, but not where this app may read.
    foreign = make_model(tmp_path / "foreign", "conversion", "conversion_2", seed=5)
    for uri in (foreign["artifact_uri"], "http://127.0.0.1:1/conversion_2"):
        world.models.set("conversion", "champion", {**foreign, "artifact_uri": uri})
        wait_for(lambda: uri.rpartition("/")[0] in (_model(client)["error"] or ""), 10)  # noqa: B023
        assert "LEADML_ARTIFACTS_URL" in _model(client)["error"]
    same = {**world.pointers["conversion"], "artifact_uri": f"{tmp_path.as_uri()}/conversion_1"}
    world.models.set("conversion", "champion", same)
    wait_for(lambda: str(tmp_path.as_uri()) in (_model(client)["error"] or ""), 10)
    assert _model(client)["model_id"] == "conversion_1"


@pytest.mark.parametrize("uri", ["{root}/../m_1", "{root}/", "{root}", "{root}/m_1/..", "m_1", ""])
def test_only_a_folder_right_below_all_artifacts_is_one_of_ours(tmp_path: Path, uri: str) -> None:
    require_ours({"artifact_uri": f"{tmp_path.as_uri()}/m_1"}, tmp_path.as_uri())
    with pytest.raises(ForeignArtifactError, match="LEADML_ARTIFACTS_URL"):
        require_ours({"artifact_uri": uri.format(root=tmp_path.as_uri())}, tmp_path.as_uri())


@pytest.fixture
def shelf_of_the_registry(world: World) -> Iterator[Callable[..., ModelShelf]]:
    """A shelf without Redis: all it knows, it has from the registry."""
    with ModelPointers(NO_REDIS.get_secret_value()) as pointers, ExitStack() as at_end:

        def start(
            fallback: Callable[[], Any], then: Callable[[], None] = lambda: None
        ) -> ModelShelf:
            shelf = ModelShelf(
                pointers, fallback, SigningKey(KEY), world.artifacts, Metrics(), then, 0.05
            )
            at_end.callback(shelf.stop)
            shelf.start()
            return shelf

        yield start


def test_a_registry_that_fails_as_nobody_foresaw_is_asked_again(
    world: World, shelf_of_the_registry: Callable[..., ModelShelf]
) -> None:
    asked: list[str] = []

    def registry() -> dict[str, Any]:
        asked.append("once")
        if len(asked) == 1:
            raise KeyError("nobody foresaw this")
        return {"champion": {"churn": world.pointers["churn"]}}

    shelf = shelf_of_the_registry(registry, lambda: None)
    wait_for(lambda: "churn" in shelf.states)
    assert shelf.looked.is_set()


def test_what_fails_after_the_first_look_does_not_end_the_looking(
    world: World, shelf_of_the_registry: Callable[..., ModelShelf]
) -> None:
    found: dict[str, Any] = {}
    failed: list[str] = []

    def fail() -> None:
        failed.append("once")
        raise ImportError("nobody foresaw this")

    shelf = shelf_of_the_registry(lambda: found, fail)
    wait_for(lambda: failed)
    found["champion"] = {"churn": world.pointers["churn"]}
    wait_for(lambda: "churn" in shelf.states)


def test_the_registry_names_challengers_too(
    world: World, shelf_of_the_registry: Callable[..., ModelShelf]
) -> None:
    made = make_model(world.artifacts, "churn", "churn_2", seed=5)
    pointers = {
        "champion": {"churn": world.pointers["churn"]},
        "challenger": {"churn": {**made, "traffic_share": 0.5}},
    }
    shelf = shelf_of_the_registry(lambda: pointers)
    state = wait_for(lambda: shelf.challengers.get("churn"))
    assert state.served.model.model_id == "churn_2"


def test_a_frozen_postgresql_is_not_waited_for(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        # Connections are taken by the kernel, and nobody ever answers.
        url = f"postgresql://nobody@127.0.0.1:{frozen.getsockname()[1]}/none"
        world.store._redis.flushdb()
        fallback = app._registered(world.settings, url)
        shelf = ModelShelf(
            world.models, fallback, SigningKey(KEY), world.artifacts, Metrics(), poll_seconds=0.05
        )
        shelf.start()
        try:
            assert shelf.looked.wait(20)
            world.models.set("churn", "champion", world.pointers["churn"])
            wait_for(lambda: "churn" in shelf.states, 20)
        finally:
            ended = threading.Thread(target=shelf.stop, daemon=True)
            ended.start()
            ended.join(20)
        assert not ended.is_alive()


def test_what_cannot_be_loaded_is_tried_ever_less_often_until_its_pointer_changes(
    world: World, shelf_of_the_registry: Callable[..., ModelShelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def broken(*given: Any) -> ServedModel:
        tried.append(time.monotonic())
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr(models, "load", broken)
    pointers = {"champion": {"churn": world.pointers["churn"]}}
    shelf_of_the_registry(lambda: pointers)
    wait_for(lambda: len(tried) >= 4)
    # Of the machine's own slowness only more can come, never less.
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert all(pause >= 0.05 * 2**at for at, pause in enumerate(pauses[:3]))
    before = len(tried)
    pointers["champion"] = {"churn": {**world.pointers["churn"], "model_id": "churn_2"}}
    wait_for(lambda: len(tried) > before, 10)


def test_what_runs_after_the_first_look_does_not_keep_the_app_from_ending(
    world: World, shelf_of_the_registry: Callable[..., ModelShelf]
) -> None:
    begun, never = threading.Event(), threading.Event()

    def compile_for_ever() -> None:
        begun.set()
        never.wait()

    shelf = shelf_of_the_registry(dict, compile_for_ever)
    assert begun.wait(20)
    ended = threading.Thread(target=shelf.stop, daemon=True)
    ended.start()
    ended.join(20)
    never.set()
    assert not ended.is_alive()


def test_an_app_whose_store_on_s3_freezes_answers_on_and_says_so(
    world: World, serving: Callable[[Settings], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"s3://{BUCKET}/models"
    with s3_server() as server:
        server.use(monkeypatch)
        first = make_model(root, "conversion", "conversion_1", population="is_open")
        second = make_model(root, "conversion", "conversion_2", population="is_open", seed=5)
        world.models.set("conversion", "champion", first)
        client = serving(world.settings.model_copy(update={"artifacts_url": root}))
        before = _probability(client, world.open_ids[0])
        assert before[1] == "conversion_1"
    monkeypatch.setattr(time_limits, "ANSWER_SECONDS", 0.5)
    with frozen_server(int(server.url.rpartition(":")[2])):
        world.models.set("conversion", "champion", second)
        wait_for(lambda: f"{root} did not answer in" in (_model(client)["error"] or ""))
        assert _probability(client, world.open_ids[0]) == before


def test_a_model_whose_files_never_come_keeps_no_other_from_being_exchanged(
    client: httpx.Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "ANSWER_SECONDS", 0.5)
    back, sizes = threading.Event(), LocalStore.sizes

    def silent(self: LocalStore, folder: str) -> dict[str, int]:
        """As a network disk that is away."""
        if folder == "churn_2":
            back.wait()
        return sizes(self, folder)

    monkeypatch.setattr(LocalStore, "sizes", silent)
    try:
        world.promote("churn", "churn_2")
        wait_for(lambda: "did not answer" in (_model(client, "churn")["error"] or ""))
        world.promote("conversion", "conversion_2", population="is_open", seed=5)
        wait_for(lambda: _model(client)["model_id"] == "conversion_2")
        assert _model(client, "churn")["model_id"] == "churn_1"
    finally:
        back.set()
    wait_for(lambda: _model(client, "churn")["model_id"] == "churn_2")
