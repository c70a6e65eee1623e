"""Documents of the prediction log."""

from __future__ import annotations

from typing import Any

import orjson


def document(number: int, **changes: Any) -> bytes:
    """A prediction as the app logs it; its id follows from the number."""
    return orjson.dumps(
        {
            "prediction_id": f"{number:032x}",
            "model_name": "churn",
            "model_id": "churn_1",
            "role": "champion",
            "entity_type": "lead",
            "entity_id": f"lead_{number}",
            "features_as_of": "2026-01-01T00:00:00.000001+00:00",
            "predicted_at": "2026-01-01T00:00:01+00:00",
            "value": number / 8,
            "prediction": 0.0,
            "score": None,
            "source": "cache",
            "stale": False,
            "degraded": False,
            "latency_ms": 1.5,
            "experiment": None,
            "traffic_share": None,
        }
        | changes
    )
