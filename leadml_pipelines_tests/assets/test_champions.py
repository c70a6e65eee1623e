"""What the nightly job promotes, and what it leaves to people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from leadml_pipelines.assets.models import champion_asset
from leadml_pipelines.assets.online import online_models
from leadml_pipelines.learning.evaluation.examination import Examination, examine
from leadml_pipelines.learning.evaluation.gate import Decision
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.postgres import connect
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
)
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.learning.frames import spec_for, toy_set
from leadml_pipelines_tests.tables import empty_registry

NOBODY_LISTENS = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    spec = spec_for(name="churn", rounds=5)
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture(scope="module")
def examined(trained: TrainedModel) -> Examination:
    return replace(examine(trained, resamples=50), decision=Decision(True, ("it is better",)))


@pytest.fixture
def registry(postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty registry of a fresh home."""
    monkeypatch.setenv("LEADML_HOME", str(home))
    with connect(postgres_url) as connection:
        empty_registry(connection)
    return Registry.of(Settings(), postgres_url)


@pytest.fixture
def night(postgres_url: str, redis_url: str) -> Callable[..., dict[str, Any]]:
    """Materializes the champion and returns its metadata."""

    def run(redis: str = redis_url) -> dict[str, Any]:
        asset = champion_asset("churn")
        resources = {
            "postgres": PostgresResource(url=postgres_url),
            "redis": RedisResource(url=redis),
            "settings": SettingsResource(),
        }
        done = dg.materialize([asset], resources=resources)
        (event,) = done.asset_materializations_for_node("churn_champion")
        return {name: value.value for name, value in event.metadata.items()}

    return run


def test_a_candidate_that_passed_becomes_champion_and_is_online_at_once(
    registry: Registry,
    pointers: ModelPointers,
    night: Callable[..., dict[str, Any]],
    trained: TrainedModel,
    examined: Examination,
) -> None:
    candidate = registry.store(trained, examined, None)
    told = night()
    assert (told["model_id"], told["promoted"], told["online"]) == (candidate.model_id, True, True)
    pointer = pointers.get("churn", "champion")
    assert pointer is not None
    assert pointer["model_id"] == candidate.model_id


def test_with_redis_away_the_promotion_stands(
    registry: Registry,
    night: Callable[..., dict[str, Any]],
    trained: TrainedModel,
    examined: Examination,
) -> None:
    candidate = registry.store(trained, examined, None)
    told = night(NOBODY_LISTENS)
    assert (told["model_id"], told["online"]) == (candidate.model_id, False)


def test_a_second_night_does_not_undo_a_persons_rollback(
    registry: Registry,
    night: Callable[..., dict[str, Any]],
    trained: TrainedModel,
    examined: Examination,
) -> None:
    first = registry.store(trained, examined, None)
    night()
    registry.store(trained, examined, first.model_id)
    night()
    registry.rollback("churn", by="anna")
    told = night()
    assert (told["model_id"], told["promoted"]) == (first.model_id, False)
    assert "anna rolled back churn" in told["reasons"][-1]


def test_where_people_promote_the_night_does_not(
    registry: Registry,
    night: Callable[..., dict[str, Any]],
    trained: TrainedModel,
    examined: Examination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = registry.store(trained, examined, None)
    registry.promote(first.model_id, by="anna")
    registry.store(trained, examined, first.model_id)
    monkeypatch.setenv("LEADML_AUTO_PROMOTE", "false")
    told = night()
    assert (told["model_id"], told["promoted"]) == (first.model_id, False)
    assert "LEADML_AUTO_PROMOTE" in told["reasons"][-1]


def test_challengers_go_online_with_the_champions(
    registry: Registry,
    pointers: ModelPointers,
    trained: TrainedModel,
    examined: Examination,
    postgres_url: str,
    redis_url: str,
) -> None:
    first, second = (registry.store(trained, examined, None).model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.challenge(second, 0.3, by="anna")
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "redis": RedisResource(url=redis_url),
        "settings": SettingsResource(),
    }
    assert dg.materialize([online_models], resources=resources).success
    pointer = pointers.get("churn", "challenger")
    assert pointer is not None
    assert (pointer["model_id"], pointer["traffic_share"]) == (second, 0.3)
