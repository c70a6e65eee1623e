"""From numbers to reasons: what moved an answer, by feature and by dimension, in words.

Serving imports this: NumPy at the top, and everything that does not depend on the row is looked up
once per model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.phrase import Phrase
from leadml_pipelines.features.phrases import derived_phrase, phrase_of, spoken
from leadml_pipelines.learning.encoding import Encoder

Vector = npt.NDArray[np.float64]
Value = float | int | bool | str | None
AGE_OF_LEAD = "lead_age_days"
"""The feature that says how long a window can be at most."""
Direction = Literal["raises", "lowers"]
RiskLevel = Literal["low", "medium", "high", "critical"]
Level = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Factor:
    """A feature that moved an answer.

    Attributes:
        feature: Name in the catalogue.
        value: In its own type, a category as its word; None when it is missing.
        direction: Whether it raises or lowers the outcome, against the average row of training.
        shap_value: By how much, in units of the raw score.
        sentence: The same for people.
    """

    feature: str
    value: Value
    direction: Direction
    shap_value: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of an answer is a feature's doing.

    Attributes:
        feature: Name in the catalogue.
        share: Its |SHAP value| over the sum of those of all features, 0 to 1.
    """

    feature: str
    share: float


@dataclass(frozen=True, slots=True)
class DimensionScore:
    """A dimension of an answer.

    Attributes:
        score: 0 to 100: the share of the training population with a lower contribution.
        contribution: Sum of the SHAP values of its features.
    """

    score: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Urgency:
    """How soon it happens.

    Attributes:
        level: By the rank.
        rank: 0 to 100, the share of the training population whose near chance is lower.
        ratio: Chance within the near horizon over the chance within the far one, 0 to 1.
        near_chance: The former.
        far_chance: The latter.
    """

    level: Level
    rank: float
    ratio: float
    near_chance: float
    far_chance: float


@dataclass(frozen=True, slots=True)
class Opportunity:
    """A product to offer.

    Attributes:
        product: Its word in the data.
        chance: That it is what the lead buys.
    """

    product: str
    chance: float


@dataclass(frozen=True, slots=True)
class _Spoken:
    name: str
    type: str
    unit: str
    phrase: Phrase
    young: Phrase
    words: tuple[str, ...]


class Explainer:
    """Speaks of the inputs of one model. Safe to share between threads.

    Args:
        encoder: The model's features and vocabularies.
        outcome: What the model predicts, as sentences call it (see `outcome`).
        among: Where phrases and units come from; the built-in catalogue by default. A feature that
            it does not have, or has as another type, is spoken of by its name.
    """

    def __init__(self, encoder: Encoder, outcome: str, among: Catalogue | None = None) -> None:
        known = catalogue() if among is None else among
        features = {f.name: f for entity in known.entities for f in known.features(entity)}
        spoken_of = []
        for column in encoder.columns:
            feature = features.get(column.name)
            if feature is not None and feature.type == column.type:
                unit, phrase = feature.unit, phrase_of(feature)
            else:
                unit, phrase = "", derived_phrase(column.name, column.type)
            words = tuple(encoder.vocabularies.get(column.name, ()))
            young = phrase.without_window()
            spoken_of.append(_Spoken(column.name, column.type, unit, phrase, young, words))
        self._features = tuple(spoken_of)
        names = encoder.names
        self._age_at = names.index(AGE_OF_LEAD) if AGE_OF_LEAD in names else None
        self._outcome = outcome

    def value(self, at: int, number: float) -> Value:
        """A number of the model's matrix in the feature's own type.

        Args:
            at: Place of the feature in the model.
            number: NaN when it is missing; a category is the code of its word.
        """
        return _own(self._features[at], number)

    def factors(self, values: Vector, contributions: Vector, limit: int) -> list[Factor]:
        """The features that moved an answer most, the greatest first; those of no effect are none.

        Args:
            values: float64[features], the row as the model read it.
            contributions: float64[features], its SHAP values.
            limit: How many at most.
        """
        found = []
        age = self._age(values)
        for at in _greatest(contributions, limit):
            feature, shap = self._features[at], float(contributions[at])
            value = _own(feature, float(values[at]))
            raises = shap > 0
            young = age is not None and age < feature.phrase.window_days
            text = spoken(
                feature.young if young else feature.phrase,
                feature.unit,
                value,
                raises=raises,
                outcome=self._outcome,
                age_days=age,
            )
            found.append(Factor(feature.name, value, "raises" if raises else "lowers", shap, text))
        return found

    def _age(self, values: Vector) -> float | None:
        """Days since the lead came; None where the model does not read that, or it is missing."""
        age = np.nan if self._age_at is None else float(values[self._age_at])
        return age if age >= 0 else None

    def importance(self, contributions: Vector, limit: int) -> list[Importance]:
        """The features with the greatest shares in an answer; the shares of all add up to 1.

        Args:
            contributions: float64[features], SHAP values of one row.
            limit: How many at most.
        """
        total = float(np.abs(contributions).sum())
        return [
            Importance(self._features[at].name, abs(float(contributions[at])) / total)
            for at in _greatest(contributions, limit)
        ]


def outcome(objective: str, *, is_risk: bool) -> str:
    """What sentences call the thing that a model predicts.

    Args:
        objective: `classification` or `regression`.
        is_risk: Whether the chance of a classifier is a risk, as one with risk levels is.
    """
    if objective != "classification":
        return "the score"
    return "the risk" if is_risk else "the chance"


def risk_level(chance: float, levels: Sequence[float]) -> RiskLevel:
    """In words how great a risk is.

    Args:
        chance: 0 to 1.
        levels: From which chance (inclusive) it is medium, high and critical.
    """
    medium, high, critical = levels
    if chance >= critical:
        return "critical"
    if chance >= high:
        return "high"
    return "medium" if chance >= medium else "low"


def urgency(chances: Vector, rank: float, levels: Sequence[float]) -> Urgency:
    """How soon something happens.

    Args:
        chances: float64[words], of one row: that it happens within the near horizon; after it but
            within the far one; perhaps still later. No two can come true together.
        rank: 0 to 100, of the first of them in the training population.
        levels: From which rank (inclusive), as a share of 1, it is medium, and from which high.
    """
    near, far = float(chances[0]), float(chances[:2].sum())
    ratio = near / far if far > 0 else 0.0
    medium, high = (100 * level for level in levels)
    level: Level = "high" if rank >= high else "medium" if rank >= medium else "low"
    return Urgency(level, rank, ratio, near, far)


def opportunities(words: Sequence[str], chances: Vector) -> list[Opportunity]:
    """Products by their chance, the greatest first; equal ones in the order of the words.

    Args:
        words: The products.
        chances: float64[words], of one row.
    """
    order = np.argsort(-chances, kind="stable").tolist()
    return [Opportunity(words[at], float(chances[at])) for at in order]


def dimension_answers(
    base: float, scores: Mapping[str, tuple[float, float]]
) -> tuple[dict[str, DimensionScore], float]:
    """The dimensions of one row, and the raw score that they add up to.

    Args:
        base: The average raw score of the training rows.
        scores: Contribution and score (0 to 100) by dimension.

    Returns:
        The dimensions in the same order, and base + the contributions in that order: to the last
        bit what a reader gets who adds them up likewise.
    """
    answers, raw = {}, base
    for name, (contribution, score) in scores.items():
        answers[name] = DimensionScore(score, contribution)
        raw += contribution
    return answers, raw


def _greatest(contributions: Vector, limit: int) -> list[int]:
    """Places of the greatest |SHAP values|, those of nothing left out."""
    sizes = np.abs(contributions)
    order: list[int] = np.argsort(-sizes, kind="stable")[:limit].tolist()
    return [at for at in order if sizes[at] > 0]


def _own(feature: _Spoken, number: float) -> Value:
    if not abs(number) < float("inf"):
        return None
    if feature.type == "category":
        return feature.words[int(number)] if 0 <= number < len(feature.words) else None
    if feature.type == "boolean":
        return number == 1.0
    return int(number) if feature.type == "integer" else number
