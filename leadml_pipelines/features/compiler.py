"""From views to one SQL statement for an engine.

The statement reads the source tables under the names of the contract, `graph_metrics`, and
`spine(entity_id, as_of)`, whose rows must be distinct and without nulls. It has one common table
expression per relation and per view, views after the views they are built on, and returns one row
per row of the spine: `entity_id`, `as_of` and the features of the views that were asked for.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.relation_kinds import TEXT, TIME, Dialect
from leadml_pipelines.features.relations import RELATIONS, SOURCE_TABLES, columns_of
from leadml_pipelines.features.view import KEYS, Feature, FeatureView, Value

if TYPE_CHECKING:
    from leadml_pipelines.features.catalogue import Catalogue

_TYPES: dict[str, dict[str, str]] = {
    "duckdb": {"double": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "category": "TEXT"},
    "postgres": {
        "double": "DOUBLE PRECISION",
        "integer": "BIGINT",
        "boolean": "BOOLEAN",
        "category": "TEXT",
    },
    "spark": {"double": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "category": "STRING"},
}
_FRAME_TYPES = {"double": "double", "integer": "bigint", "boolean": "boolean", "category": TEXT}

_ViewColumns = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
"""Of each view that a view is built on: its columns with their types, hashable."""

_COMPILING = threading.Lock()
"""SQLFrame's session is one per process, and its catalogue is not made for threads."""


class CompileError(ValueError):
    """A view can't be compiled; the sentence names it."""


def compile_views(
    views: Sequence[FeatureView],
    dialect: Dialect,
    *,
    catalogue: Catalogue | None = None,
    tables: Mapping[str, str] | None = None,
    spine: str | None = None,
    deep: bool = False,
    numbered: bool = False,
) -> str:
    """Compile views, with whatever they are built on, to one statement.

    Args:
        views: The views whose features the statement returns, in this order.
        dialect: The engine.
        catalogue: Where views that these are built on are found; the built-in one by default.
        tables: Source table -> how to spell it in SQL, already quoted; its own name by default.
        spine: A SELECT that becomes the spine; by default the statement reads a table `spine`.
        deep: Whether the spine has many rows per entity (`features/relation_kinds.py`).
        numbered: The spine has a third column, `position`, which the statement returns instead of
            `entity_id` and `as_of`.

    Raises:
        CompileError: a view does not build what it declares.
        UnknownFeatureError: a view is built on one that the catalogue does not have.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    ordered = found.with_dependencies(views)
    spelled = tuple(sorted(({name: name for name in SOURCE_TABLES} | dict(tables or {})).items()))
    return _statement(tuple(views), tuple(ordered), dialect, spelled, spine, deep, numbered)


@lru_cache(maxsize=256)
def _statement(
    wanted: tuple[FeatureView, ...],
    ordered: tuple[FeatureView, ...],
    dialect: Dialect,
    tables: tuple[tuple[str, str], ...],
    spine: str | None,
    deep: bool,
    numbered: bool,
) -> str:
    names = dict(tables)
    if not wanted:
        raise CompileError("there are no views to compile; name at least one")
    columns = {view.name: _columns(view) for view in ordered}
    ctes: list[str] = []
    if spine is not None:
        ctes.append(f"spine AS {_materialized(dialect)}({spine})")
    for name in _relations(ordered):
        sql = RELATIONS[name].sql(dialect, names, deep=deep)
        # One pass over the source per view: an engine that kept the pairs of spine and events
        # would write each of them down first.
        ctes.append(f"{name} AS {_not_materialized(dialect)}({sql})")
    for view in ordered:
        body = _body(view, dialect, tuple((name, columns[name]) for name in view.views))
        more = ", s.position" if numbered and view.name == wanted[0].name else ""
        ctes.append(f"{view.name} AS ({_complete(view, body, dialect, more)})")
    first = wanted[0].name
    keys = f"{first}.position" if numbered else f"{first}.entity_id, {first}.as_of"
    features = "".join(f", {view.name}.{f.name}" for view in wanted for f in view.features)
    joins = "".join(
        f"\nJOIN {view.name} ON {view.name}.entity_id = {first}.entity_id "
        f"AND {view.name}.as_of = {first}.as_of"
        for view in wanted[1:]
    )
    joined = ",\n".join(ctes)
    return f"WITH {joined}\nSELECT {keys}{features}\nFROM {first}{joins}"


def _relations(views: Iterable[FeatureView]) -> list[str]:
    names = (name for view in views for name in view.reads if name in RELATIONS)
    return list(dict.fromkeys(names))


def _materialized(dialect: Dialect) -> str:
    return "" if dialect == "spark" else "MATERIALIZED "


def _not_materialized(dialect: Dialect) -> str:
    return "" if dialect == "spark" else "NOT MATERIALIZED "


def _columns(view: FeatureView) -> tuple[tuple[str, str], ...]:
    own = ((feature.name, _FRAME_TYPES[feature.type]) for feature in view.features)
    return (("entity_id", TEXT), ("as_of", TIME), *own)


def _complete(view: FeatureView, body: str, dialect: Dialect, more: str) -> str:
    """One row per row of the spine, in the declared types, with defaults where there is nothing."""
    features = "".join(f",\n  {_typed(feature, dialect)}" for feature in view.features)
    return (
        f"SELECT s.entity_id, s.as_of{more}{features}\nFROM spine AS s LEFT JOIN (\n{body}\n) AS v "
        "ON v.entity_id = s.entity_id AND v.as_of = s.as_of"
    )


def _typed(feature: Feature, dialect: Dialect) -> str:
    type_ = _TYPES[dialect][feature.type]
    value = f"CAST(v.{feature.name} AS {type_})"
    if feature.default is not None:
        value = f"COALESCE({value}, CAST({_literal(feature.default)} AS {type_}))"
    return f"{value} AS {feature.name}"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    text = repr(value) if isinstance(value, int | float) else str(value)
    return "'" + text.replace("'", "''") + "'"


@lru_cache(maxsize=1024)
def _body(view: FeatureView, dialect: Dialect, views: _ViewColumns) -> str:
    with _COMPILING, _without_collecting():
        # Not optimized: the optimizer drops casts of literals that keep a number a double.
        sql = _frame(view, views).sql(dialect=dialect, optimize=False, pretty=False)
        return _engine_functions(sql, dialect)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Do without the collection of garbage meanwhile; requires `_COMPILING`.

    SQLGlot makes a million objects that live until a view is compiled. To walk through them again
    and again takes nearly as long as everything else together.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@lru_cache(maxsize=1024)
def _frame(view: FeatureView, views: _ViewColumns) -> Any:
    from sqlframe.standalone import StandaloneSession

    known = {name: dict(columns) for name, columns in views}
    session = StandaloneSession.builder.getOrCreate()
    frame = view.build({name: _table(session, name, known) for name in view.reads})
    built = set(frame.columns)
    missing = [name for name in (*KEYS, *(f.name for f in view.features)) if name not in built]
    if missing:
        raise CompileError(
            f"view {view.name} does not build {', '.join(missing)}; "
            "it must return entity_id, as_of and the features it declares"
        )
    return frame.select(*KEYS, *(f.name for f in view.features))


def _table(session: Any, name: str, views: Mapping[str, Mapping[str, str]]) -> Any:
    if name == "spine":
        columns: Mapping[str, str] = {"entity_id": TEXT, "as_of": TIME}
    elif name in RELATIONS:
        columns = columns_of(RELATIONS[name])
    else:
        columns = views[name]
    # The session keeps the first definition of a name, so it gets one name per definition: the
    # same in every process, for the names that SQLFrame makes up follow from it.
    digest = hashlib.blake2s(repr(tuple(columns.items())).encode(), digest_size=8).hexdigest()
    alias = f"{name}__{digest}"
    session.catalog.add_table(alias, dict(columns))
    return session.table(alias)


def _engine_functions(sql: str, dialect: Dialect) -> str:
    """Replace the LEADML_* functions of the primitives, and the names made up for tables."""
    import sqlglot
    from sqlglot import exp

    def own(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Table) and "__" in node.name:
            return exp.to_table(node.name.rsplit("__", 1)[0])
        if isinstance(node, exp.Anonymous):
            arguments = [argument.sql(dialect=dialect) for argument in node.expressions]
            replacement = _engine_function(node.name.upper(), arguments, dialect)
            if replacement is not None:
                return sqlglot.parse_one(replacement, read=dialect)
        return node

    tree = sqlglot.parse_one(sql, read=dialect)
    return tree.transform(own, copy=False).sql(dialect=dialect)


def _engine_function(name: str, arguments: list[str], dialect: Dialect) -> str | None:
    if name == "LEADML_MICROS":
        return {
            "duckdb": f"EPOCH_US({arguments[0]})",
            # EXTRACT gives numeric, exact to the microsecond.
            "postgres": f"CAST(EXTRACT(EPOCH FROM {arguments[0]}) * 1000000 AS BIGINT)",
            "spark": f"UNIX_MICROS({arguments[0]})",
        }[dialect]
    if name == "LEADML_JSON_TEXT":
        key = arguments[1].strip("'")
        return {
            "duckdb": f"JSON_EXTRACT_STRING({arguments[0]}, '$.{key}')",
            "postgres": f"JSONB_EXTRACT_PATH_TEXT({arguments[0]}, '{key}')",
            "spark": f"GET_JSON_OBJECT({arguments[0]}, '$.{key}')",
        }[dialect]
    return None
