"""What a feature and a feature view are. Plain data: importing this costs nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.phrase import Phrase
from leadml_pipelines.features.relations import RELATIONS, SOURCE_TABLES

FeatureType = Literal["double", "integer", "boolean", "category"]
Dimension = Literal["fit", "engagement", "intent", "value", "urgency", "relationship"]
Value = float | int | bool | str | None

ViewBuilder = Callable[[Mapping[str, Any]], Any]
"""From the relations and views that were asked for, by name, to one DataFrame (PySpark API)."""

KEYS = ("entity_id", "as_of")
"""What every view's rows are known by."""

FRESHNESS = timedelta(hours=26)
"""Freshness target unless a view says otherwise: a nightly snapshot and two hours to make it."""
OWNER = "team:data"
"""Who answers for a view unless it says otherwise."""

_RESERVED_FEATURES = frozenset({*KEYS, "created_at", "position"})
"""Columns that stand beside the features in tables and statements."""
_OWN_WORDS = ("spine", "online", "snapshots", "view_snapshots", "history")
"""Names of statements, assets and tables of ours that a view of this name would take."""
_SQL_WORDS = """
    all analyse analyze and any array as asc asymmetric authorization between binary both by
    case cast check collate column constraint create cross current_date current_time
    current_user default deferrable desc describe distinct do else end except exists false fetch
    filter for foreign freeze from full function grant group having if ilike in initially inner
    insert intersect interval into is isnull join lateral leading left like limit localtime
    minus natural not notnull null of offset on only or order outer over overlaps partition
    pivot placing primary qualify range references returning right row rows select semi
    session_user set show similar some struct summarize symmetric table tablesample then time to
    trailing true union unique unknown unpivot update user using values variadic view when where
    window with within
"""
_RESERVED_VIEWS = frozenset(
    {"spine", "online", "snapshots", "view_snapshots", "history"} | {*_SQL_WORDS.split()}
)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWNER = re.compile(
    r"team:[A-Za-z0-9][A-Za-z0-9_.-]*|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"
)
_DEFAULT_TYPES: dict[str, tuple[type, ...]] = {
    "double": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "category": (str,),
}


class FeatureDefinitionError(UserError, ValueError):
    """A feature or view is declared wrongly; the sentence names it and says what to do."""


def _check_owner(what: str, owner: str) -> None:
    if not _OWNER.fullmatch(owner):
        raise FeatureDefinitionError(
            f"{what} has owner {owner!r}; write team:<name> or an e-mail address"
        )


def _bound(value: float | None) -> str:
    return "anything" if value is None else f"{value:g}"


@dataclass(frozen=True)
class Feature:
    """One column of a view.

    Attributes:
        name: `<what>_<how>_<window>`, as in `email_open_count_30d`; unique in the catalogue.
        type: What values are: `double` (64-bit float), `integer`, `boolean`, or `category` (text).
        unit: What a number counts, as in `days`, `currency`, `share`; empty for categories.
        low: The least value a number may take; None when there is no bound.
        high: The greatest; None when there is no bound.
        default: The value of an entity about which nothing is known; None means missing.
        description: What the value means, in one sentence.
        dimension: The one dimension of the lead score that it belongs to.
        owner: Who answers for it, `team:<name>` or an e-mail; empty: the owner of its view.
        phrase: How predictions speak of it; None: by a phrase made of its name.
        relative: Whether a value tells something only beside those of its moment, as a share of a
            graph that grows does; drift compares it so (`monitoring/drift.py`).
    """

    name: str
    type: FeatureType
    unit: str
    low: float | None
    high: float | None
    default: Value
    description: str
    dimension: Dimension
    owner: str = ""
    phrase: Phrase | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be computed, explained or checked."""
        if not _NAME.fullmatch(self.name) or len(self.name) > 63:
            raise FeatureDefinitionError(
                f"feature name {self.name!r} must be lower-case words joined by _, "
                "at most 63 characters"
            )
        if self.name in _RESERVED_FEATURES:
            raise FeatureDefinitionError(
                f"a feature can't be named {self.name}: {', '.join(sorted(_RESERVED_FEATURES))} "
                "stand beside the features; choose another name"
            )
        if not self.description.strip():
            raise FeatureDefinitionError(f"feature {self.name} has no description; say what it is")
        if self.type not in get_args(FeatureType):
            raise FeatureDefinitionError(
                f"feature {self.name} has type {self.type!r}; use one of "
                f"{', '.join(get_args(FeatureType))}"
            )
        if self.dimension not in get_args(Dimension):
            raise FeatureDefinitionError(
                f"feature {self.name} has dimension {self.dimension!r}; use one of "
                f"{', '.join(get_args(Dimension))}"
            )
        self._check_default()
        if self.low is not None and self.high is not None and self.low > self.high:
            raise FeatureDefinitionError(
                f"feature {self.name} has low {self.low} above high {self.high}"
            )
        if not self.holds(self.default):
            raise FeatureDefinitionError(
                f"feature {self.name} has default {self.default}, which is not between "
                f"{_bound(self.low)} and {_bound(self.high)}"
            )
        if self.owner:
            _check_owner(f"feature {self.name}", self.owner)

    def _check_default(self) -> None:
        if self.default is None:
            return
        good = isinstance(self.default, _DEFAULT_TYPES[self.type])
        if self.type in ("double", "integer") and isinstance(self.default, bool):
            good = False
        if isinstance(self.default, float) and not math.isfinite(self.default):
            good = False
        if not good:
            raise FeatureDefinitionError(
                f"feature {self.name} is {self.type} but its default is {self.default!r}"
            )

    def holds(self, value: Value) -> bool:
        """Whether a value that is not missing lies in the declared range."""
        if value is None or isinstance(value, str | bool):
            return True
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity type that are computed together.

    Attributes:
        name: Unique in the catalogue; also the name of its common table expression.
        entity: Entity type, as in `lead`.
        description: What the features have in common.
        features: Its columns beside `entity_id` and `as_of`.
        reads: Names of the relations (`features/relations.py`) and views it is built on. A view
            never reads a table itself: a relation shows only what was known at `as_of`.
        build: Makes the DataFrame with columns `entity_id`, `as_of` and one per feature. It may
            leave out rows of the spine: those get the defaults.
        owner: Who answers for its features, `team:<name>` or an e-mail.
        freshness: Freshness target: values older than that are stale.
        ttl: Time to live: stored values older than that count as missing, offline and online
            alike; None for no limit.
    """

    name: str
    entity: str
    description: str
    features: tuple[Feature, ...]
    reads: tuple[str, ...]
    build: ViewBuilder
    owner: str = OWNER
    freshness: timedelta = FRESHNESS
    ttl: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse a view without name, meaning or content."""
        if not _NAME.fullmatch(self.name) or len(self.name) > 46:
            raise FeatureDefinitionError(
                f"view name {self.name!r} must be lower-case words joined by _, at most 46 "
                "characters"
            )
        if self.name in _RESERVED_VIEWS or self.name in RELATIONS or self.name in SOURCE_TABLES:
            raise FeatureDefinitionError(
                f"a view can't be named {self.name}: that is a word of SQL, or the name of a "
                "relation, a source table or something of LeadML's own; choose another name"
            )
        if not self.description.strip():
            raise FeatureDefinitionError(f"view {self.name} has no description; say what it holds")
        if not self.features:
            raise FeatureDefinitionError(f"view {self.name} has no features")
        _check_owner(f"view {self.name}", self.owner)
        for what, span in (("freshness", self.freshness), ("ttl", self.ttl)):
            if span is not None and span <= timedelta(0):
                raise FeatureDefinitionError(
                    f"view {self.name} has {what} {span}; it must be longer than nothing"
                )

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views it is built on."""
        return tuple(n for n in self.reads if n not in RELATIONS and n != "spine")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the source tables and views it is built on, each once."""
        names = (
            source
            for name in self.reads
            if name != "spine"
            for source in (RELATIONS[name].tables if name in RELATIONS else (name,))
        )
        return tuple(dict.fromkeys(names))


def feature_view(
    *,
    name: str,
    entity: str,
    description: str,
    features: tuple[Feature, ...],
    reads: tuple[str, ...],
    owner: str = OWNER,
    freshness: timedelta = FRESHNESS,
    ttl: timedelta | None = None,
) -> Callable[[ViewBuilder], FeatureView]:
    """Turn a function that builds a DataFrame into a `FeatureView`.

    The function is called when a statement is compiled, never at import, so that it may import
    the DataFrame API lazily.
    """

    def wrap(build: ViewBuilder) -> FeatureView:
        return FeatureView(name, entity, description, features, reads, build, owner, freshness, ttl)

    return wrap
