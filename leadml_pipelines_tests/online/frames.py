"""Frames of every catalogue feature, as the offline side makes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.view import Feature

WORDS = {"stage": ["open", "customer", "closed"]}


def lead_features() -> list[Feature]:
    return catalogue().features("lead")


def lead_frame(ids: Sequence[str], seed: int = 1, missing: float = 0.1) -> pd.DataFrame:
    """Random values of the right types within the declared ranges, some missing."""
    random = np.random.default_rng(seed)
    count = len(ids)
    columns: dict[str, pd.Series] = {"entity_id": pd.Series(list(ids), dtype=object)}
    for feature in lead_features():
        gone = random.random(count) < missing
        low = -50.0 if feature.low is None else feature.low
        high = low + 100.0 if feature.high is None else feature.high
        if feature.type == "double":
            values = pd.Series(random.uniform(low, high, count)).mask(gone)
        elif feature.type == "integer":
            numbers = np.floor(random.uniform(np.ceil(low), high, count)).astype(np.int64)
            values = pd.Series(numbers, dtype="Int64").mask(gone)
        elif feature.type == "boolean":
            values = pd.Series(random.random(count) < 0.5, dtype="boolean").mask(gone)
        else:
            words = WORDS.get(feature.name, ["a", "b", "c"])
            values = pd.Series(random.choice(words, count), dtype=object).mask(gone, None)
        columns[feature.name] = values
    return pd.DataFrame(columns)


def expected(frame: pd.DataFrame, entity_id: str) -> dict[str, object]:
    """A row as Python values, None where missing."""
    row = frame.set_index("entity_id").loc[entity_id]
    result: dict[str, object] = {}
    for feature in lead_features():
        value = row[feature.name]
        if pd.isna(value):
            result[feature.name] = None
        elif feature.type == "double":
            result[feature.name] = float(value)
        elif feature.type == "integer":
            result[feature.name] = int(value)
        elif feature.type == "boolean":
            result[feature.name] = bool(value)
        else:
            result[feature.name] = str(value)
    return result
