"""The schema by which computed values are written, as the words of categories come up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from leadml_pipelines.online.format import Schema
from leadml_pipelines.online.store import KEPT_SCHEMAS
from leadml_pipelines.online.values import FeatureLike, schema_for_rows

CURRENT_FOR = 1.0
"""Seconds for which the current schema is taken to be still the current one."""


class WritingSchemas:
    """Schemas of computed values, by entity type. Safe to share between threads.

    They continue the vocabulary of the current schema. New words are gathered over the requests,
    so that there are at most as many schemas as such words; an emptied Redis is filled by the
    schema that was known before.

    Args:
        current: Asks Redis for the current schema; None when it has none or can't be asked.
    """

    def __init__(self, current: Callable[[str], Schema | None]) -> None:
        self._current = current
        self._lock = threading.Lock()
        self._looked: dict[str, float] = {}
        self._base: dict[str, Schema | None] = {}
        self._grown: dict[str, Schema] = {}
        self._by_id: dict[int, Schema] = {}

    def of_rows(
        self,
        entity_type: str,
        features: Sequence[FeatureLike],
        rows: Sequence[Sequence[Any]],
        *,
        ask: bool,
    ) -> Schema:
        """The schema of rows in the order of the features.

        Args:
            entity_type: Such as `lead`.
            features: What the rows hold.
            rows: Python values.
            ask: Whether Redis may be asked what the current schema is.
        """
        if ask:
            self._look(entity_type)
        with self._lock:
            previous = self._grown.get(entity_type) or self._base.get(entity_type)
            schema = schema_for_rows(entity_type, features, rows, previous)
            if schema is not previous:
                self._grown[entity_type] = schema
            # The latest one comes last, and the first one is forgotten first.
            self._by_id.pop(schema.schema_id, None)
            self._by_id[schema.schema_id] = schema
            if len(self._by_id) > KEPT_SCHEMAS:
                del self._by_id[next(iter(self._by_id))]
            return schema

    def by_id(self, schema_id: int) -> Schema | None:
        """A schema that `of_rows` gave lately."""
        return self._by_id.get(schema_id)

    def _look(self, entity_type: str) -> None:
        """Ask Redis for the current schema, if that was long ago, while others go on."""
        before = self._looked.get(entity_type, -CURRENT_FOR)
        if time.monotonic() - before < CURRENT_FOR:
            return
        current = self._current(entity_type)
        with self._lock:
            if self._looked.get(entity_type, -CURRENT_FOR) != before:
                return  # Somebody else asked later, or as late.
            self._looked[entity_type] = time.monotonic()
            if current is not None and current != self._base.get(entity_type):
                self._base[entity_type] = current
                self._grown.pop(entity_type, None)
