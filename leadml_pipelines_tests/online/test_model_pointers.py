"""Pointers to models in a real Redis, and what a listener hears."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import redis

from leadml_pipelines.online.model_pointers import ModelPointers


def test_model_pointer_is_read_back_and_announced(
    pointers: ModelPointers, raw: redis.Redis
) -> None:
    listener = raw.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("leadml:model")
    listener.get_message(timeout=1)
    pointers.set("churn", "champion", {"model_id": "churn_1"})
    message = listener.get_message(timeout=2)
    listener.close()
    assert message is not None
    assert json.loads(message["data"]) == {
        "name": "churn",
        "role": "champion",
        "model_id": "churn_1",
    }
    assert pointers.get("churn", "champion") == {"model_id": "churn_1"}
    assert pointers.get("churn", "challenger") is None


def test_model_pointers_are_those_of_the_role(pointers: ModelPointers) -> None:
    assert pointers.of_role("champion") == {}
    pointers.set("churn", "champion", {"model_id": "1"})
    pointers.set("churn", "challenger", {"model_id": "2"})
    pointers.set("lead_score", "champion", {"model_id": "3"})
    assert pointers.of_role("champion") == {
        "churn": {"model_id": "1"},
        "lead_score": {"model_id": "3"},
    }


def test_listener_is_told_of_a_change_and_of_silence(pointers: ModelPointers) -> None:
    changes = pointers.changes(0.1)
    assert list(islice(changes, 2)) == [True, False]
    pointers.set("churn", "champion", {"model_id": "1"})
    assert next(changes)
    changes.close()  # type: ignore[attr-defined]


def test_pointer_that_is_no_json_is_refused(pointers: ModelPointers) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        pointers.set("churn", "champion", {"threshold": float("nan")})
