"""Documents of the prediction log."""

from __future__ import annotations

from typing import Any

import orjson

from leadml_pipelines.online.prediction_stream import Document


def document(number: int, count: int = 1, **changes: Any) -> Document:
    """Predictions as the app logs them, about `lead_{number}` and those after it.

    Their ids follow from the number.
    """
    numbers = range(number, number + count)
    content = {
        "id": f"{number:032x}",
        "model_name": "churn",
        "model_id": "churn_1",
        "role": "champion",
        "entity_type": "lead",
        "predicted_at": "2026-01-01T00:00:01+00:00",
        "degraded": False,
        "latency_ms": 1.5,
        "experiment": None,
        "traffic_share": None,
        "entity_ids": [f"lead_{one}" for one in numbers],
        "features_as_of": [1_767_225_600_000_001] * count,
        "values": [one / 8 for one in numbers],
        "predictions": [0.0] * count,
        "scores": [None] * count,
        "sources": ["cache"] * count,
        "stale": [False] * count,
    }
    return Document(orjson.dumps(content | changes), count)
