"""From feature functions to views: all functions of a view in one pass over the events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from leadml_pipelines.features.functions.base import FeatureFunction
from leadml_pipelines.features.functions.events import EventFunction
from leadml_pipelines.features.functions.weighted_score import WeightedScore
from leadml_pipelines.features.relations import WINDOW_DAYS
from leadml_pipelines.features.view import (
    FRESHNESS,
    KEYS,
    OWNER,
    FeatureDefinitionError,
    FeatureView,
)

_EVENTS = {"lead": ("recent_events", "known_events"), "agent": ("agent_events", None)}
"""Entity type -> its events of the last 90 days, and all of them where there is such a relation."""


def function_view(
    name: str,
    entity: str,
    functions: Sequence[FeatureFunction],
    *,
    description: str = "",
    owner: str = OWNER,
    freshness: timedelta = FRESHNESS,
    ttl: timedelta | None = None,
) -> FeatureView:
    """A view of nothing but functions.

    Args:
        name: Name of the view.
        entity: Entity type.
        functions: At least one; functions over events and scores may be mixed.
        description: What the features have in common.
        owner: As in `FeatureView`, like the two below.
        freshness: Freshness target.
        ttl: Time to live.

    Raises:
        FeatureDefinitionError: an entity type without events, or a window without a relation.
    """
    events = [function for function in functions if isinstance(function, EventFunction)]
    relation = events_relation(entity, events) if events else None
    scores = [function for function in functions if isinstance(function, WeightedScore)]
    views = tuple(dict.fromkeys(view for score in scores for view in score.views))

    def build(read: Mapping[str, Any]) -> Any:
        from leadml_pipelines.features import primitives as p

        frame = read["spine"]
        if views:
            wanted = {name for score in scores for name in score.inputs}
            others = [
                read[view].select(*KEYS, *(c for c in read[view].columns if c in wanted))
                for view in views
            ]
            frame = p.beside(frame, *others)
        if relation:
            frame = p.beside(frame, aggregated(read[relation], events))
        return with_functions(frame, functions)

    reads = ("spine", *((relation,) if relation else ()), *views)
    return FeatureView(
        name,
        entity,
        description or f"Features of {entity}: {', '.join(f.feature.name for f in functions)}.",
        tuple(function.feature for function in functions),
        reads,
        build,
        owner,
        freshness,
        ttl,
    )


def events_relation(entity: str, functions: Iterable[EventFunction]) -> str:
    """The relation that has the events which functions look back to.

    Raises:
        FeatureDefinitionError: there is none, or a function means nothing there.
    """
    functions = list(functions)
    if entity not in _EVENTS:
        raise FeatureDefinitionError(
            f"there are no events of {entity}; use one of {', '.join(_EVENTS)}"
        )
    strangers = [f.function for f in functions if f.of_one_lead and entity != "lead"]
    if strangers:
        raise FeatureDefinitionError(
            f"{strangers[0]} follows the events of one lead, and those of an {entity} are of many; "
            "use it for leads"
        )
    recent, ever = _EVENTS[entity]
    longest = [function.longest_hours for function in functions]
    if all(hours is not None and hours <= 24 * WINDOW_DAYS for hours in longest):
        return recent
    if ever is None:
        raise FeatureDefinitionError(
            f"events of {entity} go back {WINDOW_DAYS} days; give each function a window of at "
            f"most {WINDOW_DAYS}d"
        )
    return ever


def aggregated(events: Any, functions: Sequence[EventFunction], *more: Any) -> Any:
    """Events grouped by entity and moment, with the aggregates of all functions.

    Args:
        events: The frame of a relation of events.
        functions: Any number; what several of them need is computed once.
        more: Other aggregates, named, to be made in the same pass.

    Returns:
        `entity_id`, `as_of` and a column per distinct aggregate (`with_functions` knows which).
    """
    rows: dict[str, Any] = {}
    for function in functions:
        for name, column in function.rows().items():
            if name in rows and rows[name].expression != column.expression:
                raise FeatureDefinitionError(
                    f"two functions add different columns {name} to the events; rename one"
                )
            rows[name] = column
    if rows:
        names = [name for name in events.columns if name not in rows]
        events = events.select(*names, *(column.alias(name) for name, column in rows.items()))
    found: dict[str, Any] = {}
    for function in functions:
        for column in function.aggregates().values():
            found.setdefault(_alias(column), column)
    aggregates = (column.alias(name) for name, column in found.items())
    return events.groupBy(*KEYS).agg(*aggregates, *more)


def with_functions(frame: Any, functions: Sequence[FeatureFunction], *keep: str) -> Any:
    """Keys, some columns, and the features of functions.

    Args:
        frame: Has the aggregates of event functions (`aggregated`) and the features that scores
            are made of.
        functions: The features to make, in this order.
        keep: Columns to keep beside the keys.
    """
    from sqlframe.standalone import functions as F  # noqa: N812

    features = []
    for function in functions:
        if isinstance(function, EventFunction):
            columns = {
                name: F.col(_alias(column)) for name, column in function.aggregates().items()
            }
        elif isinstance(function, WeightedScore):
            columns = {name: F.col(name) for name in function.inputs}
        else:
            columns = {name: F.col(name) for name in frame.columns}
        features.append(function.value(columns).alias(function.feature.name))
    return frame.select(*KEYS, *keep, *features)


def _alias(column: Any) -> str:
    """A name for an aggregate: the same for two that are the same."""
    import hashlib

    text = column.expression.sql()
    return f"a_{hashlib.blake2s(text.encode(), digest_size=6).hexdigest()}"
