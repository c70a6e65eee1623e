"""Predictions: features read, population asked, model run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from leadml_pipelines.learning.model import Predictions
from leadml_pipelines.online.format import Rows
from leadml_pipelines.serving.errors import ApiError, some
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import ModelShelf, ServedModel
from leadml_pipelines.serving.prediction_log import PredictionLog
from leadml_pipelines.serving.reader import FeatureReader
from leadml_pipelines.times import from_micros, utc_now

OUTSIDE = "outside_population"


class Predictor:
    """Answers for entities by their ids.

    Args:
        reader: Where features come from.
        shelf: Where models come from.
        metrics: Where to count.
        prediction_log: Where to keep what was answered.
    """

    def __init__(
        self,
        reader: FeatureReader,
        shelf: ModelShelf,
        metrics: Metrics,
        prediction_log: PredictionLog,
    ) -> None:
        self._reader = reader
        self._shelf = shelf
        self._metrics = metrics
        self._log = prediction_log

    def one(self, model_type: str, entity_id: str) -> dict[str, Any]:
        """The prediction for one entity.

        Raises:
            ApiError: model or entity are unknown, or the model does not score this entity.
        """
        (row,) = self.many(model_type, [entity_id])
        if row["error"] is not None:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, **row["error"])
        return {name: value for name, value in row.items() if name != "error"}

    def many(self, model_type: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Predictions in the order of the ids; one that the model does not score has an `error`.

        Raises:
            ApiError: the model is unknown or not loaded, an entity is unknown, or its features
                can't be had.
        """
        start = time.perf_counter()
        model = self.model(model_type)
        found = self._reader.read_known(model.entity_type, ids)
        names = found.batch.entity_ids
        rows: list[dict[str, Any]] = [{}] * len(ids)
        timestamp = utc_now()
        answers = [
            (part, self._group(part.model, part.rows, names))
            for group in found.batch.groups
            for part in self._shelf.assign(model, group, names)
        ]
        for _, answered in answers:
            for position, row in answered:
                rows[position] = {**row, "timestamp": timestamp}
        self._log.note(answers, found, timestamp, time.perf_counter() - start)
        self._metrics.predictions.labels(model.name).inc(len(rows))
        return rows

    def model(self, model_type: str) -> ServedModel:
        """The model that answers to a name.

        Raises:
            ApiError: 404 for a name without a model; 503 while there is none in memory.
        """
        state = self._shelf.states.get(model_type)
        if state is not None and state.served is not None:
            return state.served
        if state is not None:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "model_not_loaded",
                f"the model {model_type} could not be loaded: {state.error}",
            )
        if not self._shelf.looked.is_set():
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "models_loading",
                "the models are still being loaded; try again in a few seconds",
            )
        names = sorted(self._shelf.states)
        there_is = f"the models are {', '.join(names)}" if names else "no model is published yet"
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            "unknown_model",
            f"there is no model named {some([model_type])}; {there_is}",
        )

    def _group(
        self, model: ServedModel, group: Rows, ids: Sequence[str]
    ) -> list[tuple[int, dict[str, Any]]]:
        """Position and prediction of each row of a group."""
        try:
            inside = model.population.holds(group.values, group.schema.positions)
            predictions = model.model.predict(model.inputs(group)[inside])
        except KeyError as error:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "features_do_not_fit",
                f"the features online do not fit {model.model.model_id} ({error.args[0]}); "
                "publish a new feature snapshot, or train the model again",
            ) from error
        answers = iter(_answers(model, predictions))
        rows = []
        for at, scored in enumerate(inside.tolist()):
            position = int(group.positions[at])
            answer = next(answers) if scored else _outside(model, ids[position])
            row = {
                "entity_id": ids[position],
                **answer,
                "model_type": model.name,
                "model_id": model.model.model_id,
                "features_as_of": from_micros(int(group.as_of[at])),
            }
            rows.append((position, row))
        return rows


def _answers(model: ServedModel, predictions: Predictions) -> list[dict[str, Any]]:
    values = predictions.values.tolist()
    if model.model.objective == "classification":
        classes = predictions.predictions.astype(np.int64).tolist()
        return [
            {"prediction": yes, "probability": chance, "value": None, "error": None}
            for yes, chance in zip(classes, values, strict=True)
        ]
    scores = predictions.predictions.tolist()
    return [
        {"prediction": score, "probability": None, "value": value, "error": None}
        for score, value in zip(scores, values, strict=True)
    ]


def _outside(model: ServedModel, entity_id: str) -> dict[str, Any]:
    return {
        "prediction": None,
        "probability": None,
        "value": None,
        "error": {
            "code": OUTSIDE,
            "message": f"{entity_id} is outside the population of {model.name}, "
            f"which scores a {model.entity_type} only while: {model.population.condition}",
        },
    }
