"""Features that nobody declared yet: feature functions, computed now for a few entities."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.functions import (
    FUNCTIONS,
    FeatureFunction,
    FunctionSpecError,
    WeightedScore,
    from_spec,
    function_view,
)
from leadml_pipelines.features.present import Clock, present_sql
from leadml_pipelines.features.view import FeatureView, Value
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import psycopg

VIEW = "ad_hoc"
"""Name of the view that the functions make; also in the text to paste."""

MAX_FUNCTIONS = 50
"""Most functions at once: more make a statement that takes long to compile."""

MAX_WORDS = 50
"""Most entries of a list in a spec."""

GREATEST = 1e12
"""Greatest number in a spec."""

Rows = dict[str, tuple[Value, ...]]
"""Entity -> values in the order of the features."""

_FUNCTIONS = function_view.__module__.rpartition(".")[0]
"""Where whatever `function_view` and the built-in functions need is imported from."""

_WORD = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{0,200}")
"""Text that can stand in a statement: no control characters, no half characters."""


@dataclass(frozen=True)
class AdHoc:
    """Functions as a view of their own.

    Attributes:
        functions: In the order of their specs.
        view: Their view.
        catalogue: The view, and those that its scores are built on.
    """

    functions: tuple[FeatureFunction, ...]
    view: FeatureView
    catalogue: Catalogue

    @property
    def text(self) -> str:
        """Python text that makes the view, to paste into a module of views."""
        lines = "".join(f"        {function.definition()},\n" for function in self.functions)
        return (
            f"{_imports(self.functions)}\n"
            f'my_view = function_view(\n    "my_view",\n    "{self.view.entity}",\n    [\n'
            f"{lines}    ],\n"
            '    description="Say what they have in common.",\n)\n'
        )


def ad_hoc(specs: Sequence[Mapping[str, Any]], entity: str) -> AdHoc:
    """Read functions from JSON and make a view of them.

    Args:
        specs: As in `{"function": "count", "event_type": "email_open", "window": "14d"}`. A
            weighted score finds the views of its features by itself.
        entity: Entity type.

    Raises:
        FunctionSpecError: a spec means nothing, two make one feature, or there are too many; the
            sentence says which spec, and offers near matches.
        UnknownEntityTypeError: there is no such entity type.
        UnknownFeatureError: a score is made of a feature that the catalogue does not have.
        FeatureDefinitionError: the entity type has no events, or not that far back.
    """
    entity_type(entity)
    if not 0 < len(specs) <= MAX_FUNCTIONS:
        raise FunctionSpecError(
            f"there are {len(specs)} functions; ask for 1 to {MAX_FUNCTIONS} at a time"
        )
    functions: dict[str, FeatureFunction] = {}
    for number, spec in enumerate(specs):
        try:
            _check_shape(spec)
            function = _with_views(from_spec(spec))
        except FunctionSpecError as error:
            raise FunctionSpecError(f"functions.{number}: {error}") from error
        name = function.feature.name
        if name in functions:
            raise FunctionSpecError(
                f"functions.{number}: there is a function named {name} before; "
                "give one of them a name of its own"
            )
        functions[name] = function
    return view_of(tuple(functions.values()), entity)


def view_of(functions: Sequence[FeatureFunction], entity: str) -> AdHoc:
    """Functions with names of their own as a view.

    Raises:
        FeatureDefinitionError: the entity type has no events, or not that far back; or a function
            has the name of a feature that a score is made of.
    """
    view = function_view(VIEW, entity, functions)
    needed = catalogue().with_dependencies([catalogue().view(name) for name in view.views])
    return AdHoc(tuple(functions), view, Catalogue([*needed, view]))


def compute_now(
    run: Callable[[Callable[[psycopg.Connection[Any]], Rows]], Rows],
    made: AdHoc,
    entity_ids: Sequence[str],
    as_of: datetime,
    *,
    schema: str = "crm",
    deadline: float = math.inf,
) -> dict[str, dict[str, Value]]:
    """Compute a view for entities where the rows are.

    Args:
        run: Does some work over a connection with the settings of `postgres_engine.SESSION`, once
            the view is compiled.
        made: The view.
        entity_ids: An id that nobody knows gets the defaults (`unknown_entities` tells which).
        as_of: Timezone-aware.
        schema: Schema of the source tables.
        deadline: By `time.monotonic`: no statement begins after it.

    Returns:
        Entity -> feature -> value.

    Raises:
        TimeoutError: the deadline came before all were computed.
        psycopg.ProgrammingError, psycopg.DataError: a score takes a feature for another type; or
            what `run` makes of it.
    """
    from leadml_pipelines.features.postgres_engine import MomentQuery

    query = MomentQuery([made.view], schema, catalogue=made.catalogue)

    def compute(connection: psycopg.Connection[Any]) -> Rows:
        # Hardly anybody asks for the same functions again: PostgreSQL need not keep their plan.
        connection.prepared_max = 1
        return query.rows(connection, entity_ids, as_of, deadline)

    names = [feature.name for feature in made.view.features]
    rows = run(compute)
    return {entity: dict(zip(names, values, strict=True)) for entity, values in rows.items()}


def present(connection: psycopg.Connection[Any], entity: str, clock: Clock) -> datetime:
    """The moment as of which features are computed now, by the clock of the settings."""
    query = f"SELECT COALESCE({present_sql(clock, entity)}, now())"
    ((moment,),) = connection.execute(query.encode()).fetchall()
    return require_utc(moment, "present")


def unknown_entities(
    connection: psycopg.Connection[Any],
    entity: str,
    entity_ids: Sequence[str],
    *,
    schema: str = "crm",
) -> list[str]:
    """Which of these ids are not in the source table of their entity type, in their order."""
    from psycopg import sql

    kind = entity_type(entity)
    query = sql.SQL("SELECT {key} FROM {table} WHERE {key} = ANY(%s)").format(
        key=sql.Identifier(kind.key), table=sql.Identifier(schema, kind.table)
    )
    known = {row[0] for row in connection.execute(query, (list(entity_ids),))}
    return [one for one in dict.fromkeys(entity_ids) if one not in known]


def _imports(functions: Sequence[FeatureFunction]) -> str:
    """The lines that import what the definitions of functions name, a module each."""
    names: dict[str, set[str]] = {_FUNCTIONS: {"function_view"}}
    for cls in _classes(functions):
        built_in = cls.__module__.startswith(f"{_FUNCTIONS}.")
        names.setdefault(_FUNCTIONS if built_in else cls.__module__, set()).add(cls.__name__)
    return "".join(
        f"from {module} import {', '.join(sorted(names[module]))}\n" for module in sorted(names)
    )


def _classes(value: Any) -> Iterator[type]:
    """The dataclasses that the text of a value makes, such as parts within a score."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _classes(part)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in fields(value):
            yield from _classes(getattr(value, field.name))


def _with_views(function: FeatureFunction) -> FeatureFunction:
    """A score with the views that its features are in."""
    if not isinstance(function, WeightedScore):
        return function
    views = (catalogue().view_of(name).name for name in function.inputs)
    return replace(function, views=tuple(dict.fromkeys(views)))


def _check_shape(spec: Mapping[str, Any]) -> None:
    """Refuse what an argument can't be, before its function takes it for something else."""
    function = FUNCTIONS.get(str(spec.get("function")))
    types = {} if function is None else {field.name: str(field.type) for field in fields(function)}
    for name, value in spec.items():
        _check_size(value)
        if name == "parts":
            _check_parts(value)
        elif name in types and (wanted := _wanted(types[name], value)):
            raise FunctionSpecError(f"{name} is {value!r}; it must be {wanted}")


def _wanted(annotation: str, value: Any) -> str:
    """What an argument must be, if a value of JSON is not that; empty if it is.

    Args:
        annotation: The argument's type, as its class spells it. One of a kind that is not told
            apart here takes everything.
        value: What was given.
    """
    kinds = {part.strip() for part in annotation.split("|")}
    text = isinstance(value, str)
    texts = isinstance(value, list) and all(isinstance(part, str) for part in value)
    if "Events" in kinds:
        chosen = isinstance(value, Mapping) and not any(
            _wanted("Words", part) for part in value.values()
        )
        return "" if text or texts or chosen else "event types, or an object that chooses events"
    if kinds == {"Words"}:
        return "" if text or texts else "a text or a list of texts"
    if annotation.startswith("tuple[str"):
        return "" if texts else "a list of texts"
    if kinds <= {"str", "Dimension", "None"}:
        return "" if text or (value is None and "None" in kinds) else "text"
    if kinds <= {"float", "int"}:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if number else "a number"
    return ""


def _check_parts(parts: Any) -> None:
    """Refuse parts of a score that are not a list of objects."""
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise FunctionSpecError(f"parts is {parts!r}; it must be a list of objects")
    for part in parts:
        worth = part.get("worth", {})
        if not isinstance(worth, Mapping):
            raise FunctionSpecError(f"worth is {worth!r}; it must be an object, category: number")
        if not isinstance(part.get("feature", ""), str):
            raise FunctionSpecError(f"feature is {part['feature']!r}; it must be text")


def _check_size(value: Any) -> None:
    """Refuse what would make a statement too long, or one that PostgreSQL can't read."""
    if isinstance(value, str) and not _WORD.fullmatch(value):
        raise FunctionSpecError(
            f"{value[:20]!r} is too long or holds control characters; use at most 200 plain ones"
        )
    if isinstance(value, int | float) and not abs(value) <= GREATEST:
        raise FunctionSpecError(f"a number is beyond {GREATEST:g}")
    if isinstance(value, Mapping | list):
        if len(value) > MAX_WORDS:
            raise FunctionSpecError(f"a list has {len(value)} entries; {MAX_WORDS} is the limit")
        for part in (*value, *value.values()) if isinstance(value, Mapping) else value:
            _check_size(part)
