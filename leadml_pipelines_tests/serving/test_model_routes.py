"""The registered models over HTTP, and a rollback that the running app follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from leadml_pipelines.learning.registry.model_records import ModelRecord, insert_record
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.online.publish_models import is_in_step, publish_roles
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import model_contract
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.serving.artifacts import make_model
from leadml_pipelines_tests.serving.conftest import NO_POSTGRES, NO_REDIS, World, wait_for
from leadml_pipelines_tests.tables import empty_registry

CARD = "# conversion\n\n![curves](curves.png)\n"
BOUND_SECONDS = 20
"""The promise is a second; a machine under the load of other tests may take longer."""


@pytest.fixture
def registry(world: World) -> Registry:
    """An empty registry."""
    with connect(world.settings.require_postgres()) as connection:
        empty_registry(connection)
    return Registry.of(world.settings)


@pytest.fixture
def add(world: World, registry: Registry) -> Callable[..., ModelRecord]:
    """Registers a small model."""

    def register(model_id: str, **more: Any) -> ModelRecord:
        pointer = make_model(
            world.artifacts,
            "conversion",
            model_id,
            population="is_open",
            seed=len(model_id),
            more={"curves.png": b"\x89PNG"},
        )
        row: Mapping[str, Any] = {
            "model_id": model_id,
            "name": "conversion",
            "status": "candidate",
            "description": "who buys",
            "objective": "classification",
            "threshold": 0.5,
            "horizon": "30 days",
            "signature": [{"name": name, "type": "double"} for name in pointer["features"]],
            "metrics": {"roc_auc": 0.8, "undefined": float("nan")},
            "card": CARD,
            "gate_passed": True,
            "gate_reasons": ["roc_auc 0.8 is better than the floor"],
            "artifact_uri": pointer["artifact_uri"],
            "manifest_sha256": pointer["manifest_sha256"],
            "sha256": pointer["sha256"],
            "trained_at": utc_now(),
            "seconds": 1.0,
            **dict.fromkeys(("spec_hash", "training_set_hash", "code_version"), "x"),
            **{key: {} for key in ("package_versions", "params", "tuning", "counts", "baseline")},
            **more,
        }
        with connect(world.settings.require_postgres()) as connection:
            insert_record(connection, row)
        return registry.get(model_id)

    return register


def test_the_list_tells_who_answers_and_who_challenges(
    client: httpx.Client, registry: Registry, add: Callable[..., ModelRecord]
) -> None:
    for model_id in ("conversion_a", "conversion_b", "conversion_c"):
        add(model_id)
    for model_id in ("conversion_a", "conversion_b"):
        registry.promote(model_id, by="anna", force=True, reason="for this very test")
    registry.challenge("conversion_c", 0.1, by="anna")
    body = client.get("/api/v1/models").json()
    TypeAdapter(model_contract.ModelListResponse).validate_python(body)
    (roles,) = body["data"]
    found = {role: roles[role]["model_id"] for role in ("champion", "challenger", "previous")}
    assert found == {
        "champion": "conversion_b",
        "challenger": "conversion_c",
        "previous": "conversion_a",
    }
    assert roles["challenger"]["traffic_share"] == 0.1
    assert roles["last_trained"]["model_id"] == "conversion_c"
    # Nobody published these: the app follows the pointers in Redis.
    assert roles["answering"] == {"model_id": "conversion_1", "fallback": None, "error": None}


def test_an_empty_registry_is_an_empty_list(client: httpx.Client, registry: Registry) -> None:
    assert client.get("/api/v1/models").json() == {"success": True, "data": []}


def test_one_model_is_told_whole(
    client: httpx.Client, registry: Registry, add: Callable[..., ModelRecord]
) -> None:
    record = add("conversion_a")
    registry.promote("conversion_a", by="anna", reason="the first one")
    body = client.get("/api/v1/models/conversion@champion").json()
    TypeAdapter(model_contract.ModelResponse).validate_python(body)
    data = body["data"]
    assert data["model_id"] == "conversion_a"
    assert data["manifest_sha256"] == record.manifest_sha256
    assert data["metrics"] == {"roc_auc": 0.8, "undefined": None}
    assert data["horizon_seconds"] == 30 * 86_400
    assert [(c["kind"], c["reason"]) for c in data["changes"]] == [("promote", "the first one")]


@pytest.mark.parametrize(
    "path", ["conversion_9", "conversion@champion", "x@previous/card", "%00", "a%00/card"]
)
def test_a_model_that_nobody_registered_is_not_found(
    client: httpx.Client, registry: Registry, path: str
) -> None:
    response = client.get(f"/api/v1/models/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_model"


def test_the_card_is_a_page_with_its_plots_and_may_do_nothing(
    client: httpx.Client, add: Callable[..., ModelRecord]
) -> None:
    add("conversion_a")
    response = client.get("/api/v1/models/conversion_a/card")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<h1>conversion</h1>" in response.text
    assert 'src="data:image/png;base64,iVBORw=="' in response.text


def test_a_card_whose_files_were_changed_is_shown_without_plots(
    client: httpx.Client, world: World, add: Callable[..., ModelRecord]
) -> None:
    add("conversion_a")
    (world.artifacts / "conversion_a" / "curves.png").write_bytes(b"changed")
    response = client.get("/api/v1/models/conversion_a/card")
    assert response.status_code == 200
    assert "data:image" not in response.text.partition("<body>")[2]


@pytest.mark.parametrize(
    ("query", "headers"), [("?format=md", {}), ("", {"accept": "text/markdown"})]
)
def test_the_card_is_markdown_where_that_is_asked_for(
    client: httpx.Client,
    add: Callable[..., ModelRecord],
    query: str,
    headers: dict[str, str],
) -> None:
    add("conversion_a")
    response = client.get(f"/api/v1/models/conversion_a/card{query}", headers=headers)
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.text == CARD


@pytest.mark.parametrize("path", ["", "/conversion_a", "/conversion_a/card"])
def test_without_postgresql_the_answer_says_so(
    world: World, serving: Callable[[Settings], httpx.Client], path: str
) -> None:
    client = serving(world.settings.model_copy(update={"postgres_url": NO_POSTGRES}))
    response = client.get(f"/api/v1/models{path}")
    assert response.status_code == 503
    error = response.json()["error"]
    assert error["code"] == "registry_unavailable"
    assert "secret" not in error["message"]


def test_without_redis_the_registry_answers(
    world: World,
    registry: Registry,
    add: Callable[..., ModelRecord],
    serving: Callable[[Settings], httpx.Client],
) -> None:
    add("conversion_a")
    client = serving(world.settings.model_copy(update={"redis_url": NO_REDIS}))
    assert client.get("/api/v1/models/conversion_a").status_code == 200


def test_a_rollback_is_answered_by_the_running_app(
    client: httpx.Client, world: World, registry: Registry, add: Callable[..., ModelRecord]
) -> None:
    def answering() -> str:
        body = {"model_type": "conversion", "entity_id": world.open_ids[0]}
        return str(client.post("/api/v1/ml/predict", json=body).json()["data"]["model_id"])

    for model_id in ("conversion_a", "conversion_bb"):
        add(model_id)
        registry.promote(model_id, by="anna", force=True, reason="for this very test")
        publish_roles(world.models, registry)
        wait_for(lambda wanted=model_id: answering() == wanted)
    registry.rollback("conversion", by="anna")
    publish_roles(world.models, registry, ["conversion"])
    wait_for(lambda: answering() == "conversion_a", BOUND_SECONDS)


def test_without_redis_too_the_previous_version_answers_for_a_damaged_champion(
    world: World,
    registry: Registry,
    add: Callable[..., ModelRecord],
    serving: Callable[[Settings], httpx.Client],
) -> None:
    """The list tells who is champion, and who answers."""
    for model_id in ("conversion_a", "conversion_bb"):
        add(model_id)
        registry.promote(model_id, by="anna", force=True, reason="for this very test")
    (world.artifacts / "conversion_bb" / "model.ubj").write_bytes(b"damaged")
    client = serving(world.settings.model_copy(update={"redis_url": NO_REDIS}))
    body = client.get("/api/v1/models").json()
    TypeAdapter(model_contract.ModelListResponse).validate_python(body)
    (roles,) = body["data"]
    assert roles["champion"]["model_id"] == "conversion_bb"
    answering = roles["answering"]
    assert (answering["model_id"], answering["fallback"]) == ("conversion_a", "previous")
    assert "model.ubj has SHA-256" in answering["error"]


def test_an_app_with_another_key_keeps_answering_with_nothing_new(
    world: World,
    registry: Registry,
    add: Callable[..., ModelRecord],
    serving: Callable[[Settings], httpx.Client],
) -> None:
    other = Settings.model_validate(
        {**world.settings.model_dump(), "signing_key": "another key of the tests"}
    )
    client = serving(other)
    response = client.get("/api/v1/ml/health").json()
    assert "not signed with this signing key" in response["models"]["conversion"]["error"]
    assert not response["models"]["conversion"]["loaded"]


def test_the_list_of_models_takes_one_connection_and_reads_nothing_long(
    client: httpx.Client, registry: Registry, add: Callable[..., ModelRecord]
) -> None:
    for model_id in ("conversion_a", "conversion_b", "conversion_c"):
        add(model_id, evaluation={"long": "x"})
    for model_id in ("conversion_a", "conversion_b"):
        registry.promote(model_id, by="anna", force=True, reason="for this very test")
    opened: list[str] = []
    before = Registry._connect

    def connect_counted(self: Registry) -> Any:
        opened.append("one")
        return before(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "_connect", connect_counted)
        assert client.get("/api/v1/models").json()["data"][0]["champion"]
    assert opened == ["one"]
    held, records = registry.overview()
    assert [one.alias for one in held] == ["champion", "previous"]
    assert set(records) == {"conversion_a", "conversion_b", "conversion_c"}
    assert {(record.card, str(record.evaluation)) for record in records.values()} == {("", "{}")}


def test_the_sensor_finds_published_models_in_step(
    world: World, registry: Registry, add: Callable[..., ModelRecord]
) -> None:
    add("conversion_a")
    registry.promote("conversion_a", by="anna")
    publish_roles(world.models, registry)
    held, records = registry.overview()
    assert is_in_step(world.models, [(one, records[one.model_id]) for one in held])
