"""Which features a model might still want: candidates over the events in the data, ranked.

The candidates are the feature functions over the event types, directions and channels that occur,
in several windows. They are computed as of the moments of a saved training set, of its training
part alone, and made of events that were known by the last of these moments (a choice made on the
test rows, or on what happened in their time, would flatter the next test). They are ranked by
their mutual information with the label. Values are cut into bins first, in which missing is one
more, because that a value is missing often tells the most.

Of functions that differ by their window only the best is proposed, and none that the catalogue has
under its name, or that orders the rows as a feature of the training set does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.functions import (
    Count,
    Diversity,
    Events,
    FeatureFunction,
    Ratio,
    Recency,
    ResponseTime,
    Total,
    Trend,
    function_view,
)
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.sources.contract import DIRECTIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from leadml_pipelines.features.engines import DuckDBEngine
    from leadml_pipelines.learning.spec import Objective
    from leadml_pipelines.settings import Settings

MAX_ROWS = 5_000
"""Rows of the training set that the ranking looks at."""

MAX_TYPES = 10
"""Event types that are looked at, the most frequent ones."""

COUNT_WINDOWS = ("1d", "3d", "7d", "14d", "30d", "60d", "90d")
LONG_WINDOWS = ("14d", "30d", "60d", "90d")
"""Windows of what needs more than a few events to say anything."""

SAME = 0.98
"""Rank correlation from which on a function tells the same as a feature that is there already."""

BINS = 10
"""Bins of about as many values each."""

PRIOR_WEIGHT = 5.0
"""Events that the prior of a proposed ratio is worth."""

MEMORY, THREADS = "1GB", 1
"""What DuckDB may take: proposals are made beside the answers of a service."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class NoBasisError(UserError):
    """What proposals are made from is not on this host."""


@dataclass(frozen=True)
class Seen:
    """The events in the data, up to a moment.

    Attributes:
        types: Event type -> number, the most frequent first.
        directions: Event type -> its most frequent direction.
        channels: The most frequent first.
    """

    types: dict[str, int]
    directions: dict[str, str]
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """A feature function that tells of the label.

    Attributes:
        function: The function.
        score: Mutual information with the label, in nats.
        known_share: Share of the rows that have a value.
        most_like: The feature of the training set that orders the rows most alike; empty when none
            does at all.
        likeness: Spearman's correlation with it, from 0 to 1, its sign left out.
    """

    function: FeatureFunction
    score: float
    known_share: float
    most_like: str
    likeness: float


@dataclass(frozen=True)
class Proposals:
    """What was proposed, and from what.

    Attributes:
        target: Name of the model.
        entity: Entity type that it scores.
        found: Best first.
        candidates: How many functions were tried.
        rows: Rows that they were tried on.
        training_set: Hash of the training set.
        data_end: Where its data ends.
    """

    target: str
    entity: str
    found: tuple[Proposal, ...]
    candidates: int
    rows: int
    training_set: str
    data_end: datetime


def propose(settings: Settings, target: str, limit: int = 10) -> Proposals:
    """Propose feature functions for a model.

    Args:
        settings: Where training sets and extracts are; the seed.
        target: Name of a model.
        limit: How many at most.

    Raises:
        KeyError: there is no such model.
        NoBasisError: this host has no training set of it, or no extract.
        TooLittleDataError: the training set is too small to split.
    """
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.learning.specs import specs
    from leadml_pipelines.learning.split import train_test
    from leadml_pipelines.learning.training_set import latest_training_set
    from leadml_pipelines.sources.extract import latest_extract

    spec = specs(settings)[target]
    try:
        training_set = latest_training_set(settings.training_sets, spec)
        extract = latest_extract(settings.extracts)
    except FileNotFoundError as error:
        raise NoBasisError(
            f"proposals for {target} need its saved training set and an extract of the sources, "
            "and this host lacks one of them in its home folder; materialize "
            f"{target}_training_set here, or ask a host that shares the home of Dagster"
        ) from error
    frame = training_set.frame
    split = train_test(
        spec, frame, data_start=training_set.data_start, data_end=training_set.data_end
    )
    rows = frame.iloc[split.train]
    last = rows["as_of"].max().to_pydatetime()
    if len(rows) > MAX_ROWS:
        rows = rows.sample(MAX_ROWS, random_state=settings.seed).sort_index()
    known = {feature.name for feature in catalogue().features(spec.entity)}
    bounded = settings.model_copy(update={"duckdb_memory_limit": MEMORY, "duckdb_threads": THREADS})
    with bulk_engine(extract, bounded) as engine:
        functions = candidates(seen_events(engine, last), known)
        view = _view(spec.entity, tuple(functions))
        values = engine.compute([view], rows[["entity_id", "as_of"]])
    existing = [column.name for column in training_set.features if column.type != "category"]
    found = ranked(
        functions,
        values,
        rows["label"].to_numpy(),
        rows[existing],
        spec.objective,
        seed=settings.seed,
        limit=limit,
    )
    return Proposals(
        target,
        spec.entity,
        tuple(found),
        len(functions),
        len(rows),
        training_set.hash,
        training_set.data_end,
    )


@lru_cache(maxsize=4)
def _view(entity: str, functions: tuple[FeatureFunction, ...]) -> FeatureView:
    """One view for the same functions, so that it is compiled once."""
    return function_view("candidates", entity, functions)


def seen_events(engine: DuckDBEngine, until: datetime) -> Seen:
    """The events of an extract that were known by a moment, by type, direction and channel."""
    found = engine.sql(
        "SELECT event_type, direction, channel, count(*) AS n FROM lead_events "
        "WHERE event_type <> '' AND occurred_at <= $until "
        "AND COALESCE(ingested_at, occurred_at) <= $until "
        "GROUP BY ALL ORDER BY n DESC, event_type, direction, channel",
        {"until": until},
    )
    types = found.groupby("event_type", sort=False)["n"].sum().sort_values(ascending=False)
    top = found.drop_duplicates("event_type")
    channels = found.groupby("channel", sort=False)["n"].sum().sort_values(ascending=False)
    return Seen(
        {str(name): int(n) for name, n in types.head(MAX_TYPES).items()},
        dict(zip(top["event_type"], top["direction"], strict=True)),
        tuple(str(name) for name in channels.head(4).index if name),
    )


def candidates(seen: Seen, known: Iterable[str]) -> list[FeatureFunction]:
    """The functions worth a try over these events, without those whose name is known."""
    taken = set(known)
    found: list[FeatureFunction] = []
    for function in _grid(seen):
        name = function.name or function.derived_name
        if name not in taken and _NAME.fullmatch(name):
            taken.add(name)
            found.append(function)
    return found


def _grid(seen: Seen) -> Iterable[FeatureFunction]:
    types = list(seen.types)
    for window in COUNT_WINDOWS:
        for kind in types:
            yield Count(event_type=kind, window=window)
        for direction in DIRECTIONS:
            yield Count(direction=direction, window=window)
        for channel in seen.channels:
            yield Count(channel=channel, direction="inbound", window=window)
    for kind in types:
        yield Recency(event_type=kind, window="90d")
        yield Trend(event_type=kind)
    for direction in DIRECTIONS:
        yield Recency(direction=direction, window="90d")
        yield Trend(direction=direction)
    ours = [kind for kind in types if seen.directions[kind] == "outbound"][:3]
    theirs = [kind for kind in types if seen.directions[kind] == "inbound"][:4]
    for of, per, window in product(theirs, ours, ("30d", "90d")):
        prior = round(min(seen.types[of] / seen.types[per], 1.0), 2)
        # Its own name says only what is counted; with what it is set against, two differ.
        name = f"{Events.of(of).what}_per_{Events.of(per).what}_ratio_{window}"
        yield Ratio(of=of, per=per, window=window, prior=prior, weight=PRIOR_WEIGHT, name=name)
    for window in LONG_WINDOWS:
        yield ResponseTime(window=window)
        yield Total(window=window)
        if seen.channels[1:]:
            yield Diversity(over="channel", kinds=seen.channels[:3], window=window)
        if types[1:]:
            yield Diversity(over="event_type", kinds=tuple(types[:6]), window=window)


def ranked(
    functions: Sequence[FeatureFunction],
    values: pd.DataFrame,
    labels: npt.NDArray[Any],
    existing: pd.DataFrame,
    objective: Objective,
    *,
    seed: int,
    limit: int,
) -> list[Proposal]:
    """Rank functions by what their values tell of the label.

    Args:
        functions: The candidates.
        values: A column for each, by the name of its feature; a row per label.
        labels: The label of each row.
        existing: Features that are there already, for the same rows; numbers and booleans.
        objective: Of the label.
        seed: Of the estimate.
        limit: How many at most.

    Returns:
        Best first, one for each choice of events, and none that tells nothing, or nothing new.
    """
    import numpy as np
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    names = [function.feature.name for function in functions]
    columns = {name: _numbers(values[name]) for name in names}
    codes = np.column_stack([binned(columns[name]) for name in names])
    if objective == "classification":
        scores = mutual_info_classif(codes, labels > 0, discrete_features=True, random_state=seed)
    else:
        scores = mutual_info_regression(
            codes, labels.astype(np.float64), discrete_features=True, random_state=seed
        )
    others = {str(name): _ranks(_numbers(existing[name])) for name in existing}
    found: list[Proposal] = []
    seen: set[tuple[Any, ...]] = set()
    for at in np.argsort(-scores, kind="stable"):
        function, score = functions[at], float(scores[at])
        if len(found) == limit or score <= 0:
            break
        if _family(function) in seen:
            continue
        column = columns[names[at]]
        like, likeness = _most_like(_ranks(column), others)
        if likeness >= SAME:
            continue
        seen.add(_family(function))
        known = float(np.mean(~np.isnan(column)))
        found.append(Proposal(function, score, known, like, likeness))
    return found


def binned(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Values as numbers of bins of about as many values each; missing ones have their own."""
    import numpy as np

    missing = np.isnan(values)
    if missing.all():
        return np.zeros(len(values), np.int64)
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(values[~missing], inner))
    return np.where(missing, len(edges) + 1, np.searchsorted(edges, values)).astype(np.int64)


def _family(function: FeatureFunction) -> tuple[Any, ...]:
    """What functions have in common that differ by their window only."""
    arguments = function.arguments()
    kept = {k: v for k, v in arguments.items() if k not in ("window", "name", "description")}
    return (function.function, *sorted(kept.items()))


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    import numpy as np

    numbers = column.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    return np.asarray(numbers, np.float64)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks, ties in the middle, missing values below all others, centred and of length one."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(np.where(np.isnan(values), -np.inf, values))
    centred = ranks - ranks.mean()
    centred /= float(np.linalg.norm(centred)) or 1.0
    return np.asarray(centred, np.float64)


def _most_like(
    ranks: npt.NDArray[np.float64], others: dict[str, npt.NDArray[np.float64]]
) -> tuple[str, float]:
    likeness = {name: abs(float(ranks @ other)) for name, other in others.items()}
    best = max(likeness, key=lambda name: likeness[name], default="")
    return (best, min(likeness[best], 1.0)) if best and likeness[best] > 0 else ("", 0.0)
