"""Which columns of the source tables a feature comes from, read off the compiled statement.

Two kinds, because they answer two questions. **Values** are the columns that the value is computed
from: change one and the value changes. **Conditions** decide which rows count at all: the key that
joins them to the entity, the clocks that say what was known, filters, groups. A column may be both.
Both go through the views that a view is built on, down to the tables.

A left join adds the columns of its condition only to what is read from its right side: the rows of
the left side are there without it.

The statement is the one for DuckDB: the sources are the same for every engine. Nothing here is
loaded or computed before somebody asks.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from leadml_pipelines.features.relations import RELATIONS
from leadml_pipelines.features.view import KEYS, FeatureView
from leadml_pipelines.sources.contract import TABLES

if TYPE_CHECKING:
    from leadml_pipelines.features.catalogue import Catalogue

SPINE = "spine"

_TRACING = threading.Lock()

_MADE_UP = re.compile(r"[a-z]_[0-9a-f]{12}")
"""Names of aggregates that say nothing to a person (`features/functions/views.py`)."""

LONGEST_EXPRESSION = 600
"""Characters from which on an expression is shown in terms of its intermediate columns."""


class SourceColumn(NamedTuple):
    """A column of a source table, or of a view."""

    table: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


_Columns = frozenset[SourceColumn]
_NONE: _Columns = frozenset()


@dataclass(frozen=True)
class Lineage:
    """Where a feature comes from.

    Attributes:
        values: Columns of source tables that the value is computed from, sorted.
        conditions: Columns of source tables that decide which rows count, sorted.
        features: Features of other views that it is computed from, sorted.
        inputs: Both kinds, one step back: columns of the tables and features of the views that its
            own view reads, sorted.
    """

    values: tuple[SourceColumn, ...]
    conditions: tuple[SourceColumn, ...]
    features: tuple[str, ...]
    inputs: tuple[SourceColumn, ...]

    @property
    def sources(self) -> tuple[SourceColumn, ...]:
        """Values and conditions together, each column once, sorted."""
        return tuple(sorted({*self.values, *self.conditions}))


def lineage(name: str, catalogue: Catalogue | None = None) -> Lineage:
    """Where a feature comes from. The first question about a view compiles it; then it is known.

    Args:
        name: A feature.
        catalogue: Where to find it; the built-in one by default.

    Raises:
        UnknownFeatureError: there is none; the sentence offers near matches.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    return lineage_of_view(found.view_of(name), found)[name]


def lineage_of_view(view: FeatureView, catalogue: Catalogue | None = None) -> Mapping[str, Lineage]:
    """Where each feature of a view comes from.

    Raises:
        CompileError: the view, or one it is built on, does not build what it declares.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    return _traced(tuple(found.with_dependencies([view])))


def lineage_of_all(catalogue: Catalogue | None = None) -> Mapping[str, Lineage]:
    """Where each feature of a catalogue comes from; one statement per entity type is compiled."""
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    return {
        name: traced
        for entity in found.entities
        for name, traced in _traced(tuple(found.views(entity))).items()
    }


def expression(name: str, catalogue: Catalogue | None = None) -> str:
    """A feature in SQL, in terms of the relations and views that its view reads.

    Raises:
        UnknownFeatureError: there is none; the sentence offers near matches.
    """
    from leadml_pipelines.features.catalogue import catalogue as built_in

    found = built_in() if catalogue is None else catalogue
    view = found.view_of(name)
    with _TRACING:
        return _expression(tuple(found.with_dependencies([view])), view.name, name)


def _traced(views: tuple[FeatureView, ...]) -> Mapping[str, Lineage]:
    """Lineage of every feature of views that are complete and in their order."""
    # Whoever asks while it is being computed waits for it, instead of computing it too.
    with _TRACING:
        return _trace(views)


@lru_cache(maxsize=64)
def _trace(views: tuple[FeatureView, ...]) -> Mapping[str, Lineage]:
    root = _parsed(views)
    tracer = _Tracer(frozenset(view.name for view in views))
    traced: dict[str, Lineage] = {}
    for view in views:
        scope = root.cte_sources[view.name]
        for feature in view.features:
            traced[feature.name] = _composed(
                tracer.values(scope, feature.name),
                tracer.conditions(scope, feature.name),
                tracer.views,
                traced,
            )
    return traced


@lru_cache(maxsize=256)
def _expression(views: tuple[FeatureView, ...], view: str, name: str) -> str:
    scope = _parsed(views).cte_sources[view]
    return _Tracer(frozenset(view.name for view in views)).expression(scope, name)


@lru_cache(maxsize=1)
def _parsed(views: tuple[FeatureView, ...]) -> Any:
    """The root scope of the statement of views; the last one is kept, for the next question."""
    import sqlglot
    from sqlglot.optimizer.scope import build_scope

    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.compiler import compile_views

    statement = compile_views(views, "duckdb", catalogue=Catalogue(views))
    return build_scope(sqlglot.parse_one(statement, read="duckdb"))


def _composed(
    values: _Columns,
    conditions: _Columns,
    views: frozenset[str],
    known: Mapping[str, Lineage],
) -> Lineage:
    """A feature's own columns, with those of other views replaced by where these come from."""

    def behind(columns: Iterable[SourceColumn]) -> list[Lineage]:
        return [known[c.column] for c in columns if c.table in views and c.column not in KEYS]

    def tables(columns: Iterable[SourceColumn]) -> set[SourceColumn]:
        return {c for c in columns if c.table not in views}

    through = {c for one in behind(values) for c in one.conditions}
    through |= {c for one in behind(conditions) for c in one.sources}
    return Lineage(
        values=tuple(sorted(tables(values).union(*(one.values for one in behind(values))))),
        conditions=tuple(sorted(tables(conditions) | through)),
        features=tuple(sorted(c.column for c in values if c.table in views)),
        inputs=tuple(
            sorted(c for c in values | conditions if not (c.table in views and c.column in KEYS))
        ),
    )


class _Tracer:
    """Follows columns through the scopes of one statement; each scope's column once.

    Args:
        views: Names of the common table expressions at which to stop.
    """

    def __init__(self, views: frozenset[str]) -> None:
        self.views = views
        self._values: dict[tuple[int, str], _Columns] = {}
        self._conditions: dict[tuple[int, str], _Columns] = {}
        self._rows: dict[int, _Columns] = {}

    def values(self, scope: Any, name: str) -> _Columns:
        """The columns that a scope's column is computed from."""
        key = (id(scope), name)
        if key not in self._values:
            read = (self._read(part, node) for part, node in _outputs(scope, name))
            self._values[key] = _NONE.union(*(values for values, _ in read))
        return self._values[key]

    def conditions(self, scope: Any, name: str) -> _Columns:
        """The columns that decide which rows count for a scope's column."""
        key = (id(scope), name)
        if key not in self._conditions:
            outputs = _outputs(scope, name)
            read = [self._read(part, node)[1] for part, node in outputs]
            joined = [self._joined(part, node) for part, node in outputs]
            self._conditions[key] = self._rows_of(scope).union(*read, *joined)
        return self._conditions[key]

    def _read(self, scope: Any, node: Any) -> tuple[_Columns, _Columns]:
        """Values and conditions of an expression, its own scope's joins aside."""
        values: set[SourceColumn] = set()
        conditions: set[SourceColumn] = set()
        for column in _columns(node):
            _, _, table, source = _source(scope, column)
            if source is None or table == SPINE:
                continue
            if isinstance(source, str) or table in self.views:
                values.add(SourceColumn(table, column.name))
            else:
                values |= self.values(source, column.name)
                conditions |= self.conditions(source, column.name)
        for nested in _nested(scope, node):
            values |= self._rows_of(nested)
            for name in nested.expression.named_selects:
                values |= self.values(nested, name)
        return frozenset(values), frozenset(conditions)

    def _joined(self, scope: Any, node: Any) -> _Columns:
        """The columns in the conditions of the outer joins that an expression reads through."""
        found: set[SourceColumn] = set()
        for column in _columns(node):
            inside, alias, _, _ = _source(scope, column)
            join = _joins(inside).get(alias)
            if join is not None and join.side:
                found |= self._all(inside, join.args.get("on"))
        return frozenset(found)

    def _all(self, scope: Any, node: Any) -> _Columns:
        return _NONE.union(*self._read(scope, node))

    def _rows_of(self, scope: Any) -> _Columns:
        """The columns that decide which rows a scope has."""
        key = id(scope)
        if key not in self._rows:
            parts = scope.set_operation_scopes
            self._rows[key] = (
                _NONE.union(*map(self._rows_of, parts)) if parts else self._own_rows(scope)
            )
        return self._rows[key]

    def _own_rows(self, scope: Any) -> _Columns:
        query = scope.expression
        clauses = ["where", "having", "qualify", "group"]
        if query.args.get("limit") is not None:
            clauses.append("order")
        found = set(_NONE.union(*(self._all(scope, query.args.get(name)) for name in clauses)))
        joins = _joins(scope)
        for alias, (_, source) in scope.selected_sources.items():
            join = joins.get(alias)
            if join is not None and join.side and join.kind not in ("SEMI", "ANTI"):
                continue
            if not _is_table(source) and _name(scope, alias) not in self.views:
                found |= self._rows_of(source)
            if join is not None:
                found |= self._all(scope, join.args.get("on"))
        return frozenset(found)

    def expression(self, scope: Any, name: str) -> str:
        """A view's column in SQL, in terms of the relations and views that it reads."""
        from sqlglot import exp

        # What a view builds is wrapped once, in a cast and its default.
        ((_, output),) = _outputs(scope, name)
        _, _, _, built = _source(scope, output.find(exp.Column))
        whole = self._inlined(built, name, everything=True)
        return whole if len(whole) <= LONGEST_EXPRESSION else self._inlined(built, name)

    def _inlined(self, scope: Any, name: str, *, everything: bool = False) -> str:
        """A column's expression, past those that only hand a column on; or down to the bottom."""
        from sqlglot import exp

        def expanded(scope: Any, node: Any) -> Any:
            deeper = everything or isinstance(node, exp.Column)
            return node.copy().transform(lambda part: replaced(scope, part, deeper), copy=False)

        def replaced(scope: Any, part: Any, deeper: bool) -> Any:
            if not isinstance(part, exp.Column):
                return part
            _, _, table, source = _source(scope, part)
            bottom = source is None or isinstance(source, str) or table in (SPINE, *self.views)
            deeper = deeper or bool(_MADE_UP.fullmatch(part.name))
            if not deeper or bottom or table in RELATIONS:
                return exp.column(part.name)
            outputs = _outputs(source, part.name)
            if len(outputs) != 1:
                return exp.column(part.name)
            inner = expanded(outputs[0][0], outputs[0][1].unalias())
            return inner if isinstance(inner, exp.Column) else exp.paren(inner, copy=False)

        (part, output), *_ = _outputs(scope, name)
        return _readable(expanded(part, output.unalias()))


def _readable(tree: Any) -> str:
    """SQL with constant doubles as numbers, and without parentheses that change nothing."""
    from sqlglot import exp

    tree = exp.paren(tree, copy=False)
    for cast in list(tree.find_all(exp.Cast)):
        constant = cast.this
        if isinstance(constant, exp.Literal) and constant.is_string and cast.to.is_type("double"):
            cast.replace(exp.Literal.number(f"{float(constant.name):.15g}"))
    for parens in list(tree.find_all(exp.Paren)):
        inner = parens.this
        plain = isinstance(inner, exp.Func) and not isinstance(inner, exp.Binary)
        if parens.parent is not None and (plain or isinstance(inner, exp.Paren)):
            parens.replace(inner)
    while isinstance(tree, exp.Paren):
        tree = tree.this
    return str(tree.sql(dialect="duckdb"))


def _outputs(scope: Any, name: str) -> list[tuple[Any, Any]]:
    """The expressions behind a scope's column, each with its scope: one per part of a union."""
    if scope.set_operation_scopes:
        position = scope.expression.named_selects.index(name)
        return [
            found
            for part in scope.set_operation_scopes
            for found in _outputs(part, part.expression.named_selects[position])
        ]
    query = scope.expression
    found = [part for part in query.selects if part.alias_or_name == name]
    if found or not query.is_star:
        return [(scope, part) for part in found[:1]]
    from sqlglot import exp

    return [(scope, exp.column(name))]


def _columns(node: Any) -> Iterator[Any]:
    """The columns of an expression, without those of queries inside it."""
    from sqlglot import exp

    if node is None:
        return
    for part in node.walk(prune=lambda part: isinstance(part, exp.Query) and part is not node):
        if isinstance(part, exp.Column):
            yield part


def _nested(scope: Any, node: Any) -> list[Any]:
    """The scopes of the queries inside an expression."""
    return [inner for inner in scope.subquery_scopes if _contains(node, inner.expression)]


def _contains(node: Any, inner: Any) -> bool:
    while inner is not None:
        if inner is node:
            return True
        inner = inner.parent
    return False


def _source(scope: Any, column: Any) -> tuple[Any, str, str, Any]:
    """Where a column is read from.

    Returns:
        The scope that has the source, the source's alias there, its name, and the source: a scope,
        the name of a table, or None when there is none.
    """
    inside = scope
    while inside is not None:
        alias = _alias(inside, column)
        if alias:
            name, source = _name(inside, alias), inside.selected_sources[alias][1]
            return inside, alias, name, name if _is_table(source) else source
        # Only a query in an expression sees what is around it.
        inside = inside.parent if inside.is_subquery else None
    return scope, "", "", None


def _alias(scope: Any, column: Any) -> str:
    """The alias of a scope's source that a column is read from; empty when there is none."""
    sources = scope.selected_sources
    if column.table:
        return str(column.table) if column.table in sources else ""
    if len(sources) == 1:
        return str(next(iter(sources)))
    owners = [alias for alias in sources if _owns(scope, alias, column.name)]
    return str(owners[0]) if owners else ""


def _owns(scope: Any, alias: str, name: str) -> bool:
    """Whether one of a scope's sources has a column."""
    source, table = scope.selected_sources[alias][1], _name(scope, alias)
    if not _is_table(source):
        return bool(_outputs(source, name))
    if table == SPINE:
        return name in KEYS
    return table not in TABLES or name in TABLES[table].names


def _name(scope: Any, alias: str) -> str:
    """The name of a table or common table expression; empty for a query in parentheses."""
    from sqlglot import exp

    node = scope.selected_sources[alias][0]
    return str(node.name) if isinstance(node, exp.Table) else ""


def _is_table(source: Any) -> bool:
    from sqlglot import exp

    return isinstance(source, exp.Table)


def _joins(scope: Any) -> dict[str, Any]:
    """The joins of a scope by the alias of what they join."""
    return {join.alias_or_name: join for join in scope.expression.args.get("joins") or ()}
