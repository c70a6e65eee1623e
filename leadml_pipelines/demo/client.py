"""A service's view of LeadML: features and predictions asked for over HTTP, with the times seen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

REPEATS = 100
"""Requests behind each latency: enough for a p95 that means something, over in a second."""


@dataclass
class Answers:
    """What the app answered.

    Attributes:
        features: `POST /api/v1/features/batch`, for the leads asked for.
        predictions: one prediction by model.
        batch: predictions of the first model for several leads.
        latency_ms: request kind to its p50 and p95, milliseconds.
    """

    features: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch: list[dict[str, Any]] = field(default_factory=list)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)


def ask(base_url: str, leads: Mapping[str, Sequence[str]]) -> Answers:
    """Ask for features and predictions as a service would, with one kept-alive connection.

    Args:
        base_url: `http://host:port`.
        leads: for each model, leads that it scores; at least one each.

    Raises:
        httpx.HTTPStatusError: an answer was not a success.
    """
    answers = Answers()
    first = next(iter(leads))
    some = list(leads[first])[:100]
    with httpx.Client(base_url=base_url, timeout=10, trust_env=False) as client:
        answers.features = _timed(
            answers,
            f"features of {len(some)}",
            lambda: _post(client, "/api/v1/features/batch", entity_type="lead", entity_ids=some),
        )["features"]
        for model, ids in leads.items():
            answers.predictions[model] = _timed(
                answers,
                f"predict {model}",
                lambda m=model, i=ids[0]: _post(  # type: ignore[misc]
                    client, "/api/v1/ml/predict", model_type=m, entity_id=i
                ),
            )["data"]
        answers.batch = _timed(
            answers,
            f"predict {first}, batch of {len(some)}",
            lambda: _post(client, "/api/v1/ml/predict/batch", model_type=first, entity_ids=some),
        )["data"]
    return answers


def _post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def _timed(answers: Answers, kind: str, request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    request()
    milliseconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        answer = request()
        milliseconds.append((time.perf_counter() - start) * 1000)
    answers.latency_ms[kind] = {
        "p50": round(statistics.median(milliseconds), 3),
        "p95": round(statistics.quantiles(milliseconds, n=20)[18], 3),
    }
    return answer
