"""Rows of the log of predictions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from leadml_pipelines.postgres import connect


def add_predictions(
    url: str,
    ids: Sequence[str],
    at: datetime,
    *,
    values: float | Mapping[str, float] = 0.5,
    model_name: str = "churn",
    model_id: str = "churn_1",
    role: str = "champion",
    source: str = "cache",
    stale: bool = False,
    latency_ms: float | None = 2.0,
) -> None:
    """Log one prediction for each id."""
    rows = []
    for entity_id in ids:
        value = values if isinstance(values, float) else values[entity_id]
        answer = float(value >= 0.5)
        made = (secrets.token_hex(8), model_name, model_id, role, entity_id, at, at, value)
        rows.append((*made, answer, source, stale, latency_ms))
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO leadml.predictions (prediction_id, model_name, model_id, role,"
            " entity_type, entity_id, features_as_of, predicted_at, value, prediction, source,"
            " stale, degraded, latency_ms)"
            " VALUES (%s, %s, %s, %s, 'lead', %s, %s, %s, %s, %s, %s, %s, false, %s)",
            rows,
        )
