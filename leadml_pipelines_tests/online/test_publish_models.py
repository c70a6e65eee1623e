"""Pointers in Redis follow the registry, whoever publishes and how often."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.publish_models import is_in_step, publish_model, publish_roles


@dataclass(frozen=True)
class Held:
    """What an alias points to."""

    name: str
    alias: str
    model_id: str
    traffic_share: float = 1.0


@dataclass(frozen=True)
class Record:
    """A registered model."""

    name: str
    model_id: str

    def pointer(self) -> dict[str, Any]:
        return {"model_id": self.model_id, "artifact_uri": f"file:///{self.model_id}"}


class Registry:
    """Knows what it is told."""

    def __init__(self, *held: Held) -> None:
        self.all = list(held)

    @contextmanager
    def publication(
        self, names: Collection[str] | None = None
    ) -> Iterator[list[tuple[Held, Record]]]:
        held = [one for one in self.all if names is None or one.name in names]
        yield [(one, Record(one.name, one.model_id)) for one in held]


CHAMPION = Held("churn", "champion", "churn_1")
CHALLENGER = Held("churn", "challenger", "churn_2", 0.1)
PREVIOUS = Held("churn", "previous", "churn_0")


def _records(held: list[Held]) -> list[tuple[Held, Record]]:
    return [(one, Record(one.name, one.model_id)) for one in held]


@pytest.fixture
def messages(redis_url: str) -> Iterator[Any]:
    """The messages on the channel of models, one call each."""
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        listener.subscribe("leadml:model")
        assert listener.get_message(timeout=5)

        def read() -> list[dict[str, Any]]:
            found = []
            while message := listener.get_message(timeout=0.2):
                found.append(json.loads(message["data"]))
            return found

        yield read


def test_a_pointer_tells_role_and_share(pointers: ModelPointers) -> None:
    assert publish_model(pointers, Record("churn", "churn_2"), "challenger", 0.1)
    assert pointers.get("churn", "challenger") == {
        "model_id": "churn_2",
        "artifact_uri": "file:///churn_2",
        "role": "challenger",
        "traffic_share": 0.1,
    }


def test_every_role_is_published(pointers: ModelPointers) -> None:
    published = publish_roles(pointers, Registry(CHAMPION, CHALLENGER, PREVIOUS))
    assert published == {
        "churn:champion": "churn_1",
        "churn:challenger": "churn_2",
        "churn:previous": "churn_0",
    }
    for role, model_id in (
        ("champion", "churn_1"),
        ("challenger", "churn_2"),
        ("previous", "churn_0"),
    ):
        pointer = pointers.of_role(role)["churn"]
        assert (pointer["role"], pointer["model_id"]) == (role, model_id)


def test_a_previous_version_that_the_registry_has_no_more_is_withdrawn(
    pointers: ModelPointers,
) -> None:
    publish_roles(pointers, Registry(CHAMPION, PREVIOUS))
    assert not is_in_step(pointers, _records([CHAMPION]))
    assert publish_roles(pointers, Registry(CHAMPION))["churn:previous"] is None
    assert pointers.of_role("previous") == {}
    assert is_in_step(pointers, _records([CHAMPION]))


def test_a_withdrawn_challenger_goes_and_is_announced(
    pointers: ModelPointers, messages: Any
) -> None:
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER))
    messages()
    assert publish_roles(pointers, Registry(CHAMPION)) == {
        "churn:champion": "churn_1",
        "churn:challenger": None,
    }
    assert pointers.get("churn", "challenger") is None
    assert pointers.of_role("challenger") == {}
    assert messages() == [{"name": "churn", "role": "challenger", "model_id": None}]


def test_what_is_published_already_disturbs_nobody(pointers: ModelPointers, messages: Any) -> None:
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER))
    assert len(messages()) == 2
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER))
    assert messages() == []


def test_only_the_named_models_are_touched(pointers: ModelPointers) -> None:
    score = Held("lead_score", "challenger", "lead_score_2", 0.5)
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER, score))
    publish_roles(pointers, Registry(CHAMPION), ["churn"])
    assert list(pointers.of_role("challenger")) == ["lead_score"]


def test_a_champion_is_never_withdrawn(pointers: ModelPointers) -> None:
    publish_roles(pointers, Registry(CHAMPION))
    publish_roles(pointers, Registry())
    assert pointers.get("churn", "champion") is not None


@pytest.mark.parametrize(
    ("held", "in_step"),
    [
        ([CHAMPION, CHALLENGER], True),
        ([CHAMPION, CHALLENGER, PREVIOUS], False),
        ([CHAMPION], False),
        ([Held("churn", "champion", "churn_2"), CHALLENGER], False),
        ([CHAMPION, Held("churn", "challenger", "churn_2", 0.2)], False),
        ([CHAMPION, CHALLENGER, Held("lead_score", "champion", "lead_score_1")], False),
    ],
)
def test_a_difference_is_seen(pointers: ModelPointers, held: list[Held], in_step: bool) -> None:
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER))
    assert is_in_step(pointers, _records(held)) is in_step


def test_an_emptied_redis_is_not_in_step(pointers: ModelPointers) -> None:
    assert not is_in_step(pointers, _records([CHAMPION]))
    assert is_in_step(pointers, [])


@pytest.mark.parametrize(
    "foreign",
    [
        b"{", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000,
        b'{"model_id": "churn_1", "artifact_uri": "file:///else", "role": "champion",'
        b' "traffic_share": 1.0}',
    ],
)  # fmt: skip
def test_what_somebody_else_put_there_is_seen_and_overwritten(
    pointers: ModelPointers, redis_url: str, foreign: bytes
) -> None:
    publish_roles(pointers, Registry(CHAMPION, Held("upsell", "champion", "upsell_1")))
    with redis.Redis.from_url(redis_url) as client:
        client.set("leadml:model:churn:champion", foreign)
    assert pointers.of_role("champion")["upsell"]["model_id"] == "upsell_1"
    assert not is_in_step(pointers, _records([CHAMPION]), ["churn"])
    publish_roles(pointers, Registry(CHAMPION), ["churn"])
    assert is_in_step(pointers, _records([CHAMPION]), ["churn"])


def test_a_challenger_that_nobody_understands_is_withdrawn_too(
    pointers: ModelPointers, redis_url: str
) -> None:
    publish_roles(pointers, Registry(CHAMPION, CHALLENGER))
    with redis.Redis.from_url(redis_url) as client:
        client.set("leadml:model:churn:challenger", b"{")
    assert not is_in_step(pointers, _records([CHAMPION]))
    publish_roles(pointers, Registry(CHAMPION))
    assert is_in_step(pointers, _records([CHAMPION]))
    assert pointers.names("challenger") == []
