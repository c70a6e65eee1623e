"""A bounded composite of other features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from leadml_pipelines.features.functions.base import (
    Column,
    FeatureFunction,
    FunctionSpecError,
    feature_function,
)
from leadml_pipelines.features.phrase import SLOT, Phrase

Shape = Literal["linear", "saturating", "fading", "points", "flag"]


@dataclass(frozen=True)
class Part:
    """One part of a score: a feature, brought to 0 to 1, and its weight.

    Attributes:
        weight: How many of the 100 points it is worth.
        feature: Name of the feature.
        shape: `linear`: value / `size`, at most 1. `saturating`: from 0 through 1/2 at `size`
            towards 1. `fading`: from 1 through 1/2 at `size` towards 0. `points`: of a category, as
            `worth` says. `flag`: of a boolean, 1 when true and `size` when false.
        size: The number that the shape needs.
        worth: Category -> 0 to 1; another category counts as `missing`.
        missing: What a missing value counts.
    """

    weight: float
    feature: str
    shape: Shape = "linear"
    size: float = 1.0
    worth: tuple[tuple[str, float], ...] = ()
    missing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a part that could leave 0 to 1."""
        if self.shape not in get_args(Shape):
            raise ValueError(
                f"the part {self.feature} has shape {self.shape!r}; "
                f"use one of {', '.join(get_args(Shape))}"
            )
        shares = [self.missing, *(worth for _, worth in self.worth)]
        if self.shape == "flag":
            shares.append(self.size)
        elif self.size <= 0:
            raise ValueError(f"the part {self.feature} has size {self.size}; it must be positive")
        if not self.weight > 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                f"the part {self.feature} must have a positive weight, and be worth 0 to 1"
            )

    def value(self, column: Column) -> Column:
        """The part, from 0 to 1."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        if self.shape == "points":
            return p.points(column, self.worth, self.missing)
        if self.shape == "flag":
            known = F.when(column, p.number(1)).otherwise(p.number(self.size))
            return F.when(column.isNull(), p.number(self.missing)).otherwise(known)
        number = p.double(column)
        # Not below 0, so that a curve can't run into its pole.
        number = F.when(number < p.number(0), p.number(0)).otherwise(number)
        if self.shape == "linear":
            shaped = p.at_most(number / p.number(self.size), 1)
        elif self.shape == "saturating":
            shaped = p.saturating(number, self.size)
        else:
            shaped = p.fading(number, self.size)
        return F.coalesce(shaped, p.number(self.missing))


@feature_function("weighted_score")
class WeightedScore(FeatureFunction):
    """Weighted mean of parts that each lie in 0 to 1, times 100: points from 0 to 100.

    Bounded by construction, and read off its parts.

    Attributes:
        parts: Whose weights add up to 100.
        views: The views that hold the features of the parts.
        when: A feature that must be there; where it is missing, so is the score.
        label: What people call it; empty for its name.
    """

    unit = "points"
    low = 0
    high = 100

    parts: tuple[Part, ...]
    views: tuple[str, ...] = ()
    when: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse weights that do not add up."""
        total = math.fsum(part.weight for part in self.parts)
        if not math.isclose(total, 100, abs_tol=1e-9):
            raise ValueError(f"the weights of {self.name} add up to {total:g}; they must make 100")

    @property
    def derived_name(self) -> str:
        """After its heaviest part."""
        heaviest = max(self.parts, key=lambda part: part.weight)
        return f"{heaviest.feature[:55]}_score"

    @property
    def derived_description(self) -> str:
        """Out of what."""
        parts = ", ".join(f"{part.weight:g} {part.feature}" for part in self.parts)
        return f"Weighted score from 0 to 100: {parts}."

    @property
    def derived_phrase(self) -> Phrase:
        """`The quality score of 82 points`."""
        label = self.label or (self.name or self.derived_name).replace("_", " ")
        return Phrase(f"The {label} of {SLOT}", missing=f"The {label} is not known yet")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features it is made of."""
        names = [part.feature for part in self.parts]
        return tuple(dict.fromkeys([*names, self.when] if self.when else names))

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The score out of the features."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        total = p.number(0)
        for part in self.parts:
            total = total + p.number(part.weight) * part.value(columns[part.feature])
        # The weights add up to 100; clamping only takes off what rounding may have added.
        score = p.clamp(total, 0, 100)
        return F.when(columns[self.when].isNotNull(), score) if self.when else score

    @classmethod
    def check_spec(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Parts come as objects.

        Raises:
            FunctionSpecError: a part is none.
        """
        checked = super().check_spec(arguments)
        known = {field.name for field in fields(Part)}
        parts = []
        if not isinstance(checked["parts"], tuple):
            raise FunctionSpecError("parts of weighted_score is no list; give a list of objects")
        for part in checked["parts"]:
            if not isinstance(part, Mapping) or set(part) - known:
                raise FunctionSpecError(
                    f"a part of weighted_score is {part!r}; it is an object with "
                    f"{', '.join(sorted(known))}"
                )
            worth = part.get("worth", {})
            pairs = worth.items() if isinstance(worth, Mapping) else worth
            try:
                listed = tuple((str(word), float(share)) for word, share in pairs)
                parts.append(Part(**{**part, "worth": listed}))
            except (TypeError, ValueError) as error:
                raise FunctionSpecError(f"weighted_score: {error}") from error
        return {**checked, "parts": tuple(parts)}
