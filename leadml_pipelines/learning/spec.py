"""All there is to say about a model, in one declaration; the trainer has no opinion of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.population import Population, PopulationError
from leadml_pipelines.times import duration_text

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.settings import ModelOverrides

Objective = Literal["classification", "regression"]
Split = Literal["lead", "row"]
Candidates = Literal["open", "customer", "alive"]
Learner = Literal["xgboost", "stack"]
Tuner = Literal["grid", "optuna"]
Calibration = Literal["best", "isotonic", "platt", "none"]
CompanionAnswer = Literal["urgency", "cross_sell"]

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "roc_auc": True,
    "average_precision": True,
    "log_loss": False,
    "brier": False,
    "ece": False,
    "accuracy": True,
    "precision": True,
    "recall": True,
    "gini": True,
    "r2": True,
    "spearman": True,
    "mae": False,
    "captured_10": True,
    "captured_20": True,
    "lift_10": True,
    "lift_20": True,
}
"""Every metric a spec may name, and which way is better."""

NEW_LEAD_AGES = tuple(timedelta(hours=hours) for hours in (1, 24, 72, 168))
"""Ages at which a new lead is asked about most: the first hour, day, three days, week."""

SMALL_GRID: tuple[Mapping[str, Any], ...] = (
    {"max_depth": 3, "min_child_weight": 10},
    {"max_depth": 4, "min_child_weight": 30},
    {"max_depth": 6, "min_child_weight": 30},
)
"""From few, shallow splits to many: enough of a search for a first model, over in seconds."""

CLASS_GRID = (*SMALL_GRID, {"max_depth": 4, "min_child_weight": 30, "class_weights": 1.0})
"""The same, and one combination in which both classes count alike."""

TUNING_SPACE: Mapping[str, tuple[float, float, str]] = {
    "max_depth": (2, 6, "int"),
    "min_child_weight": (3, 60, "log"),
    "learning_rate": (0.01, 0.1, "log"),
    "subsample": (0.5, 1.0, "float"),
    "colsample_bytree": (0.15, 0.8, "float"),
    "reg_lambda": (0.5, 50, "log"),
    "class_weights": (0.0, 1.0, "float"),
}
"""Where optuna looks for parameters unless a spec says otherwise."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class SpecError(UserError, ValueError):
    """A declaration that contradicts itself; the message names the model and the field."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a wrong answer costs, in any unit; only the ratio counts.

    Attributes:
        miss: A row that was positive and that the model called negative.
        false_alarm: A row that was negative and that the model called positive.
    """

    miss: float = 1.0
    false_alarm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that share a word and are judged by a measure of their own.

    Attributes:
        word: What they share in the column that `ModelSpec.group_by` names.
        cost: What wrong answers cost among them; None for the model's.
        risk_levels: Chances from which their risk is medium, high and critical; None for the
            model's.
        slice_floor: The metric's value that this slice may not be worse than, beyond noise; None
            for the model's.
    """

    word: str
    cost: Cost | None = None
    risk_levels: tuple[float, float, float] | None = None
    slice_floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A second question, asked where the model's label is over 0: which of several words is it.

    It looks as far ahead as the model does. What it learns is the chance of each word if anything
    happens at all; an answer is that times the chance that something does.

    Attributes:
        name: Name of the question, as in `timing`.
        label: SQL like a model's, whose `label` is a word, or NULL where it is none of them.
        answer: What the chances of its words are shown as. `urgency`: the chance of the first of
            `words` over that of the first two. `cross_sell`: words by chance, the greatest first.
        words: The words in order; empty means those that the training rows have.
        levels: For `urgency`: the share of the training population whose chance of the first word
            is lower, from which it is medium, and from which it is high.
    """

    name: str
    label: str
    answer: CompanionAnswer
    words: tuple[str, ...] = ()
    levels: tuple[float, float] = (0.6, 0.9)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The declaration of a model.

    Attributes:
        name: Name of the model, as requests and settings call it.
        description: One sentence for people.
        candidates: Which leads make rows at all: `open` (no closure, no active policy), `customer`
            (an active policy) or `alive` (either). A cheap superset of the population, in SQL.
        population: Predicate over feature columns that says who is scored, for example
            `(is_open and inbound_count_30d > 0) or active_policy_count > 0`. Missing is false.
        population_text: The same in words for people who read a model card, as in `every open
            lead`; empty where there are none but the predicate.
        label: SQL that reads `moments(row_id, entity_id, as_of, until)` and the contract's tables,
            and returns `row_id` and `label` (number or boolean), one row for each moment. It looks
            at `(as_of, until]` only; `until` is `as_of` + horizon. Times are naive UTC.
        horizon: How far the label looks ahead.
        objective: `classification` (label 0 or 1) or `regression` (label >= 0).
        entity: What is scored.
        views: Names of the feature views to learn from; empty means all of the entity.
        dimensions: Dimensions to learn from (`fit`, `engagement`, ...); empty means all.
        exclude: Features of those views that the model must not see.
        every: Spacing of the calendar cut-offs; each lead has its own offset, so that all hours
            and weekdays occur. None for none.
        ages: Ages after creation at which each lead makes a row too.
        split_by: `lead`: the test rows are those of the newest leads by creation; `row`: the
            newest rows by time.
        test_share: Newest share of the leads (or rows) with a known label kept for the test.
        folds: Time-ordered validation folds of the search, inside the training part.
        max_rows: Most rows taken, by a hash of the row; the same rows each time.
        learner: `xgboost`, or `stack`: trees blended with a linear model where the blend is better
            on the validation part.
        params: Parameters on top of the defaults of `trees`: XGBoost's, and `class_weights`.
        hyperparameter_tuning: Whether the search runs; without it the first of the grid is taken.
        tuner: `grid`: every combination of `grid`, the same model each time. `optuna`: a search
            through `tuning_space` that ends after `tuning_trials` or `tuning_seconds`.
        grid: Parameter combinations the search chooses from, by `metric`.
        tuning_space: For optuna, by parameter: least, greatest, and `int`, `float` or `log`.
        tuning_trials: Most combinations that optuna tries.
        tuning_seconds: When optuna stops even so; None for never.
        rounds: Most boosting rounds.
        calibration: The shape by which raw scores become chances or values: the `best` on the
            validation part, or a named one; for values `platt` is a line on the scale of the link.
        cost: What wrong answers cost; the threshold is the one that costs least on the validation
            part; for classification.
        metric: Metric that selects and gates.
        floor: The metric's value on the test rows that a candidate must beat.
        heuristic: Name of the rule that the model replaces (see `baselines`).
        champion_margin: How much worse than the champion a candidate's metric may be on the same
            rows where noise would allow it more.
        max_calibration_error: Greatest expected calibration error on the test rows, beyond noise,
            and at most a quarter of the rarer class's share; for classification.
        max_total_error: How far the sum of all predicted values, or chances, may be from the sum of
            those that came, as a part of it and beyond noise; prices and seasons drift between
            training and test.
        slices: Columns by whose values the test rows are measured apart; `lead_age` is the age of
            the lead at the row's moment, in bands. In none of them the rule that the model
            replaces may be better beyond noise.
        slice_floor: The metric's value that no slice may be worse than, beyond noise; None for no
            such gate.
        risk_levels: Chances from which the risk is medium, high and critical; None where a chance
            is no risk.
        groups: Groups that are judged apart: each has a threshold of its own, chosen by its cost on
            its validation rows, and risk levels and a floor of its own where it says so. Who is in
            none has the model's. For classification.
        group_by: The category among the features that says who is in which group, as in `stage`.
        factors: How many reasons an answer gives.
        companions: Further questions whose answers are shown beside this one's.
    """

    name: str
    description: str
    candidates: Candidates
    population: str
    label: str
    horizon: timedelta
    objective: Objective
    population_text: str = ""
    entity: str = "lead"
    views: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    every: timedelta | None = timedelta(days=7)
    ages: tuple[timedelta, ...] = ()
    split_by: Split = "lead"
    test_share: float = 0.2
    folds: int = 2
    max_rows: int = 60_000
    learner: Learner = "xgboost"
    params: Mapping[str, Any] = field(default_factory=dict)
    hyperparameter_tuning: bool = True
    tuner: Tuner = "grid"
    grid: tuple[Mapping[str, Any], ...] = ({},)
    tuning_space: Mapping[str, tuple[float, float, str]] = field(
        default_factory=lambda: dict(TUNING_SPACE)
    )
    tuning_trials: int = 40
    tuning_seconds: float | None = 600.0
    rounds: int = 600
    calibration: Calibration = "best"
    cost: Cost = Cost()
    metric: str = "roc_auc"
    floor: float = 0.5
    heuristic: str = "base_rate"
    champion_margin: float = 0.02
    max_calibration_error: float = 0.05
    max_total_error: float = 0.25
    slices: tuple[str, ...] = ("source", "state", "product_interest", "agent", "lead_age")
    slice_floor: float | None = None
    risk_levels: tuple[float, float, float] | None = None
    groups: tuple[Group, ...] = ()
    group_by: str = ""
    factors: int = 5
    companions: tuple[Companion, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(
                f"{self.name!r} can't be a model's name; use lower-case letters, digits and _"
            )
        if self.metric not in HIGHER_IS_BETTER:
            raise SpecError(
                f"{self.name}: {self.metric!r} is no metric; take one of "
                f"{', '.join(HIGHER_IS_BETTER)}"
            )
        if self.every is None and not self.ages:
            raise SpecError(f"{self.name}: neither `every` nor `ages` is set, so no row is made")
        times = [("horizon", self.horizon), *(("ages", age) for age in self.ages)]
        if self.every is not None:
            times.append(("every", self.every))
        for label, value in times:
            if value <= timedelta(0):
                raise SpecError(f"{self.name}: {label} is {value}; it must be longer than nothing")
        if not 0 < self.test_share < 1:
            raise SpecError(f"{self.name}: test_share is {self.test_share}; it must be in (0, 1)")
        if not self.grid:
            raise SpecError(f"{self.name}: the grid is empty; ({{}},) means no search")
        for problem in self._problems():
            raise SpecError(f"{self.name}: {problem}")

    def _problems(self) -> Iterator[str]:
        """What else contradicts itself, sentence by sentence."""
        try:
            Population(self.population)
        except PopulationError as error:
            yield str(error)
        for cost in (self.cost, *(group.cost for group in self.groups)):
            if cost is not None and min(cost.miss, cost.false_alarm) <= 0:
                yield "a cost is not over 0; what costs nothing is not worth a model"
        for levels in (self.risk_levels, *(group.risk_levels for group in self.groups)):
            if levels is not None and not 0 < levels[0] < levels[1] < levels[2] < 1:
                yield f"risk_levels are {levels}; they must rise between 0 and 1"
        yield from self._group_problems()
        log_link = self.params.get("objective") in ("reg:tweedie", "reg:gamma")
        if self.learner == "stack" and log_link:
            yield "a stack sums values, and an objective with a logarithm does not; take one"
        for parameter, (least, greatest, kind) in self.tuning_space.items():
            if kind not in ("int", "float", "log"):
                yield f"tuning_space: {parameter} is {kind!r}; take int, float or log"
            if least >= greatest or (kind == "log" and least <= 0):
                yield f"tuning_space: {parameter} can't lie between {least} and {greatest}"
        names = [companion.name for companion in self.companions]
        for companion in self.companions:
            if not _NAME.fullmatch(companion.name) or names.count(companion.name) > 1:
                yield f"{companion.name!r} can't name one companion; use a name of its own"
            if companion.name == "occurs":
                yield "no companion can be called occurs; that is whether anything comes true"
            if companion.answer == "urgency" and len(companion.words) < 2:
                yield f"{companion.name} shows urgency, and needs two words: soon and later"
            if not 0 < companion.levels[0] < companion.levels[1] < 1:
                yield f"the levels of {companion.name} must rise between 0 and 1"

    def _group_problems(self) -> Iterator[str]:
        if bool(self.groups) != bool(self.group_by):
            yield "groups and group_by go together: which groups there are, and who is in which"
        if self.groups and self.objective != "classification":
            yield "groups have thresholds and risk levels, which only a classification has"
        words = [group.word for group in self.groups]
        if len(set(words)) < len(words):
            yield f"two groups have the same word; they are {', '.join(words)}"
        if self.group_by not in ("", *self.slices):
            yield f"{self.group_by} is not among the slices, so no gate would look at the groups"

    def group_of(self, word: str) -> Group:
        """What a group is judged by, whatever it has not said itself taken from the model."""
        found = next((group for group in self.groups if group.word == word), Group(word=word))
        return replace(
            found,
            cost=found.cost or self.cost,
            risk_levels=found.risk_levels or self.risk_levels,
            slice_floor=self.slice_floor if found.slice_floor is None else found.slice_floor,
        )

    @property
    def higher_is_better(self) -> bool:
        """Whether a greater value of the metric is a better model."""
        return HIGHER_IS_BETTER[self.metric]

    @property
    def population_features(self) -> tuple[str, ...]:
        """The features that the population asks for, in the order of their first use."""
        return Population(self.population).features

    @property
    def hash(self) -> str:
        """SHA-256 of everything above: two specs of one hash train the same model."""
        content = json.dumps(asdict(self), default=_json, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def with_overrides(self, overrides: ModelOverrides) -> ModelSpec:
        """This spec with what a deployment's settings change."""
        given = {
            name: value
            for name in type(overrides).model_fields
            if (value := getattr(overrides, name)) is not None
        }
        return replace(self, **given)

    def in_population(self, frame: pd.DataFrame) -> pd.Series:
        """Which rows of a feature frame this model scores, as a boolean column.

        Args:
            frame: Has a column for each of `population_features`; booleans or numbers.

        Raises:
            KeyError: such a column is not there; the message names it.
        """
        import numpy as np
        import pandas as pd

        absent = [name for name in self.population_features if name not in frame]
        if absent:
            raise KeyError(
                f"the population of {self.name} needs the feature {absent[0]}, "
                "which the frame does not have"
            )
        names = self.population_features
        values = np.empty((len(frame), len(names)))
        for at, name in enumerate(names):
            values[:, at] = frame[name].astype("Float64").to_numpy(np.float64, na_value=np.nan)
        places = {name: at for at, name in enumerate(names)}
        return pd.Series(Population(self.population).holds(values, places), index=frame.index)


def age_text(age: timedelta) -> str:
    """An age as reports name it: in hours, as in `168h`, where it is whole hours."""
    hours, rest = divmod(age, timedelta(hours=1))
    return duration_text(age) if rest else f"{hours}h"


def _json(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} can't be part of a spec")
