"""The schema by which computed values are written, as the words of categories come up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from leadml_pipelines.online.format import Schema
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
        with self._lock:
            now = time.monotonic()
            if ask and now - self._looked.get(entity_type, -CURRENT_FOR) >= CURRENT_FOR:
                current = self._current(entity_type)
                self._looked[entity_type] = now
                if current is not None and current != self._base.get(entity_type):
                    self._base[entity_type] = current
                    self._grown.pop(entity_type, None)
            previous = self._grown.get(entity_type) or self._base.get(entity_type)
            schema = schema_for_rows(entity_type, features, rows, previous)
            if schema is not previous:
                self._grown[entity_type] = schema
            self._by_id[schema.schema_id] = schema
            return schema

    def by_id(self, schema_id: int) -> Schema | None:
        """A schema that `of_rows` gave."""
        return self._by_id.get(schema_id)
