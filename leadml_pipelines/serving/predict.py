"""Predictions: features read, population asked, model run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np
import structlog

from leadml_pipelines.online.format import Rows
from leadml_pipelines.serving.answered import Answered
from leadml_pipelines.serving.assignment import CHALLENGER, CHAMPION, Part
from leadml_pipelines.serving.errors import ApiError, some
from leadml_pipelines.serving.found import unknown_entity
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import ModelShelf
from leadml_pipelines.serving.prediction_log import PredictionLog
from leadml_pipelines.serving.reader import FeatureReader
from leadml_pipelines.serving.served_model import ServedModel
from leadml_pipelines.times import from_micros, utc_now

OUTSIDE = "outside_population"
UNAVAILABLE = "unavailable"
UNKNOWN = "unknown_entity"

log = structlog.get_logger(__name__)


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
        self._told: set[str] = set()

    def one(self, model_type: str, entity_id: str, *, explain: bool = True) -> dict[str, Any]:
        """The prediction for one entity.

        Args:
            model_type: Name of a model.
            entity_id: Whom to predict for.
            explain: Whether the answer has reasons.

        Raises:
            ApiError: model or entity are unknown, or the model does not score this entity.
        """
        (row,) = self.many(model_type, [entity_id], explain=explain)
        if row["error"] is not None:
            unknown = row["error"]["code"] == UNKNOWN
            status = HTTPStatus.NOT_FOUND if unknown else HTTPStatus.UNPROCESSABLE_ENTITY
            raise ApiError(status, **row["error"])
        return {name: value for name, value in row.items() if name != "error"}

    def many(
        self, model_type: str, ids: Sequence[str], *, explain: bool = False
    ) -> list[dict[str, Any]]:
        """Predictions in the order of the ids.

        Whom nobody knows, whom the model does not score, and whose features can't be had now, has
        an `error` instead.

        Args:
            model_type: Name of a model.
            ids: Whom to predict for.
            explain: Whether the answers have reasons, which takes a model longer than all else.

        Raises:
            ApiError: the model is unknown or not loaded, or no entity's features can be had.
        """
        begun = time.perf_counter()
        model = self.model(model_type)
        found = self._reader.read(model.entity_type, ids)
        count = len(ids)
        answered = Answered(
            found=found,
            parts=[
                part
                for group in found.batch.groups
                for part in self._shelf.assign(model, group, found.batch.entity_ids)
            ],
            values=np.full(count, np.nan),
            predictions=np.full(count, np.nan),
            scores=np.full(count, np.nan),
            as_of=np.zeros(count, np.int64),
            timestamp=utc_now(),
            seconds=0.0,
        )
        rows: list[dict[str, Any]] = [{}] * count
        parts = [
            self._answer_part(model, part, answered, rows, explain=explain)
            for part in answered.parts
        ]
        for at, source in enumerate(found.sources):
            if source is None:
                away = at in found.unavailable
                error = _unavailable(ids[at]) if away else _unknown(model, ids[at])
                rows[at] = _without_features(model, answered, ids[at], error)
        self._note(replace(answered, parts=parts, seconds=time.perf_counter() - begun))
        return rows

    def _answer_part(
        self,
        champion: ServedModel,
        part: Part,
        answered: Answered,
        rows: list[dict[str, Any]],
        *,
        explain: bool,
    ) -> Part:
        """Put the answers for a part in their places; returns who gave them.

        A challenger is on trial: where it fails, the champion answers, and no request fails for it.
        """
        if part.role == CHALLENGER:
            try:
                self._answer(part.model, part.rows, answered, rows, explain=explain)
                return part
            except Exception as error:
                self._note_failed(part, error)
            positions = part.rows.positions
            for values in (answered.values, answered.predictions, answered.scores):
                values[positions] = np.nan
            # It was not by lot that the champion got them.
            part = Part(champion, CHAMPION, part.rows, None)
        self._answer(part.model, part.rows, answered, rows, explain=explain)
        return part

    def _note_failed(self, part: Part, error: Exception) -> None:
        name, model_id = part.model.name, part.model.model.model_id
        count = len(part.rows.positions)
        self._metrics.challenger_failures.labels(name, model_id).inc(count)
        # Where it came from, once for each version: it would be in the log for every request.
        told = None if model_id in self._told else error
        self._told.add(model_id)
        log.error(
            "challenger_failed",
            model=name,
            model_id=model_id,
            entities=count,
            error=type(error).__name__,
            exc_info=told,
        )

    def _note(self, answered: Answered) -> None:
        """Count and keep the answers of one request."""
        for part in answered.parts:
            self._metrics.predictions.labels(part.model.name).inc(len(part.rows.positions))
        self._log.note(answered)

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
                f"the model {model_type} could not be loaded: {self._shelf.trouble(model_type)}",
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

    def _answer(
        self,
        model: ServedModel,
        group: Rows,
        answered: Answered,
        rows: list[dict[str, Any]],
        *,
        explain: bool,
    ) -> None:
        """Put the answers for a group of rows in their places."""
        try:
            inside = model.population.holds(group.values, group.schema.positions)
            inputs = model.inputs(group)
        except KeyError as error:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "features_do_not_fit",
                f"the features online do not fit {model.model.model_id} ({error.args[0]}); "
                "publish a new feature snapshot, or train the model again",
            ) from error
        if not inside.all():
            inputs = inputs[inside]
        predictions = model.model.predict(inputs)
        scored = group.positions[inside]
        answered.values[scored] = predictions.values
        answered.predictions[scored] = predictions.predictions
        answered.scores[scored] = predictions.scores
        answered.as_of[group.positions] = group.as_of
        if explain:
            answers = iter(model.answers.explained(inputs, predictions))
        else:
            answers = iter(model.answers.plain(predictions))
        ids, stale = answered.found.batch.entity_ids, answered.found.stale.tolist()
        same = {
            "model_type": model.name,
            "model_id": model.model.model_id,
            "timestamp": answered.timestamp,
            "degraded": answered.found.degraded,
        }
        for position, is_scored, as_of in zip(
            group.positions.tolist(), inside.tolist(), group.as_of.tolist(), strict=True
        ):
            answer = next(answers) if is_scored else _outside(model, ids[position])
            rows[position] = {
                "entity_id": ids[position],
                "error": None,
                "prediction": None,
                "probability": None,
                "value": None,
                **answer,
                **same,
                "features_as_of": from_micros(as_of),
                "stale": stale[position],
            }


def _unavailable(entity_id: str) -> dict[str, str]:
    return {
        "code": UNAVAILABLE,
        "message": f"the features of {entity_id} are not cached and PostgreSQL can't give them "
        "now; ask again shortly",
    }


def _unknown(model: ServedModel, entity_id: str) -> dict[str, str]:
    error = unknown_entity(model.entity_type, [entity_id])
    return {"code": error.code, "message": error.message}


def _without_features(
    model: ServedModel, answered: Answered, entity_id: str, error: dict[str, str]
) -> dict[str, Any]:
    return {
        "entity_id": entity_id,
        "error": error,
        "prediction": None,
        "probability": None,
        "value": None,
        "model_type": model.name,
        "model_id": model.model.model_id,
        "timestamp": answered.timestamp,
        "degraded": answered.found.degraded,
        "features_as_of": None,
        "stale": False,
    }


def _outside(model: ServedModel, entity_id: str) -> dict[str, Any]:
    return {
        "error": {
            "code": OUTSIDE,
            "message": f"{entity_id} is outside the population of {model.name}, "
            f"which scores a {model.entity_type} only while: {model.population.condition}",
        },
    }
