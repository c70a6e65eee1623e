"""The schemas that computed values are written by."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from leadml_pipelines.features.view import Feature
from leadml_pipelines.online.format import Schema
from leadml_pipelines.serving import schemas
from leadml_pipelines.serving.schemas import WritingSchemas

STATE = Feature("state", "category", "", None, None, None, "Where the lead lives.", "fit")


def test_a_redis_that_is_slow_to_answer_holds_only_who_asks_it() -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(entity_type: str) -> Schema | None:
        asked.set()
        assert go.wait(10)
        return None

    writing = WritingSchemas(slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(writing.of_rows, "lead", [STATE], [["Ohio"]], ask=True)
        assert asked.wait(10)
        second = pool.submit(writing.of_rows, "agent", [STATE], [["Iowa"]], ask=False)
        try:
            assert second.result(5).fields[0].vocabulary == ("Iowa",)
        finally:
            go.set()
        assert first.result().fields[0].vocabulary == ("Ohio",)


def test_who_asked_earlier_does_not_put_back_an_older_schema() -> None:
    """Two ask at the same time; the answer of the one that asked first comes last."""
    first_asked, second_done = threading.Event(), threading.Event()
    calls: list[str] = []

    def current(entity_type: str) -> Schema | None:
        calls.append(entity_type)
        if len(calls) > 1:
            return WritingSchemas(lambda name: None).of_rows("lead", [STATE], [["new"]], ask=False)
        first_asked.set()
        assert second_done.wait(10)
        return WritingSchemas(lambda name: None).of_rows("lead", [STATE], [["old"]], ask=False)

    writing = WritingSchemas(current)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(writing.of_rows, "lead", [STATE], [[None]], ask=True)
        assert first_asked.wait(10)
        writing.of_rows("lead", [STATE], [[None]], ask=True)
        second_done.set()
        assert first.result().fields[0].vocabulary == ("new",)


def test_only_the_latest_schemas_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "KEPT_SCHEMAS", 3)
    writing = WritingSchemas(lambda entity_type: None)
    made = [writing.of_rows("lead", [STATE], [[word]], ask=False).schema_id for word in "abcd"]
    assert [writing.by_id(number) is not None for number in made] == [False, True, True, True]
