"""What a model's answer says. Which members it has follows from the model, never from its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.explain import (
    Explainer,
    dimension_answers,
    opportunities,
    outcome,
    risk_level,
    urgency,
)
from leadml_pipelines.learning.model import FEW_ROWS, LoadedModel, Predictions

Matrix = npt.NDArray[np.float64]
Answer = dict[str, Any]
"""Members of a response that a model's manifest decides on; plain values and dataclasses."""


class Answers:
    """Turns what one model computes into members of a response. Make it once per model.

    Args:
        model: The model. Risk levels, objective and companions in its manifest decide what its
            answers have.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._measures = model.groups.measures
        risks = any(measure.risk_levels is not None for measure in self._measures)
        self._explainer = Explainer(model.encoder, outcome(model.objective, is_risk=risks))

    def try_out(self) -> None:
        """Answer for many and with reasons, so that no request waits for anything to be parsed."""
        nobody = np.full((FEW_ROWS, len(self._model.features)), np.nan)
        self.explained(nobody, self._model.predict(nobody))

    def plain(self, predictions: Predictions) -> list[Answer]:
        """Answers without reasons, in the order of the rows.

        Args:
            predictions: Of the rows.
        """
        values = predictions.values.tolist()
        if self._model.objective != "classification":
            return [
                {"prediction": score, "value": value, "quality_score": score}
                for score, value in zip(predictions.scores.tolist(), values, strict=True)
            ]
        classes = predictions.predictions.astype(np.int64).tolist()
        measures = [self._measures[code] for code in self._codes(predictions)]
        answers: list[Answer] = [
            {"prediction": yes, "probability": chance, "threshold": measure.threshold}
            for yes, chance, measure in zip(classes, values, measures, strict=True)
        ]
        if predictions.confidence is not None:
            for answer, sure in zip(answers, predictions.confidence.tolist(), strict=True):
                answer["confidence"] = sure
        for answer, measure in zip(answers, measures, strict=True):
            if measure.word is not None:
                answer["group"] = measure.word
            if measure.risk_levels is not None:
                answer["risk_level"] = risk_level(answer["probability"], measure.risk_levels)
        return answers

    def _codes(self, predictions: Predictions) -> list[int]:
        if predictions.groups is None:
            return [-1] * len(predictions.values)
        return predictions.groups.tolist()

    def explained(self, inputs: Matrix, predictions: Predictions) -> list[Answer]:
        """Answers with their reasons, and with what the model's companions say.

        Args:
            inputs: float64[n, features], the rows as the model reads them.
            predictions: Of the same rows.
        """
        answers = self.plain(predictions)
        if not answers:
            return answers
        model, explainer = self._model, self._explainer
        found = model.contributions(inputs)
        for at, answer in enumerate(answers):
            shap = found.values[at]
            answer["base_value"] = float(found.base[at])
            answer["raw_score"] = float(found.raw[at])
            answer["factors"] = explainer.factors(inputs[at], shap, model.factors)
            answer["feature_importance"] = explainer.importance(shap, model.factors)
        if model.objective != "classification":
            dimensions = model.dimension_scores(found)
            for at, answer in enumerate(answers):
                answer["dimensions"], answer["raw_score"] = dimension_answers(
                    answer["base_value"],
                    {
                        name: (float(sums[at]), float(ranks[at]))
                        for name, (sums, ranks) in dimensions.items()
                    },
                )
        self._ask_companions(inputs, answers)
        return answers

    def _ask_companions(self, inputs: Matrix, answers: list[Answer]) -> None:
        if not self._model.companions:
            return
        chances = self._model.chances(inputs)
        for companion in self._model.companions:
            rows = chances[companion.name]
            if companion.answer == "urgency":
                ranks = self._model.near_ranks(companion, rows[:, 0]).tolist()
                for answer, row, rank in zip(answers, rows, ranks, strict=True):
                    answer["urgency"] = urgency(row, rank, companion.levels)
                continue
            for answer, row in zip(answers, rows, strict=True):
                answer["cross_sell_opportunities"] = opportunities(companion.words, row)
