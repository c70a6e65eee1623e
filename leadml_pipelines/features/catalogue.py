"""Every feature view there is, checked when this module is imported.

Importing it is cheap: it loads declarations, no DataFrame library and no database driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.plugins import installed_views
from leadml_pipelines.features.relations import RELATIONS
from leadml_pipelines.features.view import Feature, FeatureDefinitionError, FeatureView
from leadml_pipelines.features.views import BUILT_IN


class UnknownFeatureError(UserError, LookupError):
    """A feature, view or entity type that the catalogue does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class Catalogue:
    """Feature views that belong together, with unique names and without a cycle.

    Args:
        views: Any number of views of any entity types.

    Raises:
        FeatureDefinitionError: two views or features share a name, a view reads something that is
            not there, or views are built on each other in a circle.
    """

    def __init__(self, views: Iterable[FeatureView]) -> None:
        self._views: dict[str, FeatureView] = {}
        self._home: dict[str, FeatureView] = {}
        for view in views:
            if view.name in self._views:
                raise FeatureDefinitionError(f"there are two views named {view.name}")
            self._views[view.name] = view
            for feature in view.features:
                if feature.name in self._home:
                    raise FeatureDefinitionError(
                        f"there are two features named {feature.name}, in the views "
                        f"{self._home[feature.name].name} and {view.name}"
                    )
                self._home[feature.name] = view
        for view in self._views.values():
            self._check_reads(view)
        self._ordered = self._sort()

    def _check_reads(self, view: FeatureView) -> None:
        for name in view.reads:
            if name == "spine" or name in RELATIONS:
                continue
            if name not in self._views:
                raise FeatureDefinitionError(
                    f"view {view.name} reads {name}, which is neither a view nor a relation"
                    f"{_near(name, [*self._views, *RELATIONS])}"
                )
            if self._views[name].entity != view.entity:
                raise FeatureDefinitionError(
                    f"view {view.name} of {view.entity} reads view {name} of "
                    f"{self._views[name].entity}; a view builds on views of its own entity type"
                )

    def _sort(self) -> list[FeatureView]:
        done: dict[str, FeatureView] = {}

        def visit(view: FeatureView, path: tuple[str, ...]) -> None:
            if view.name in path:
                circle = " -> ".join((*path[path.index(view.name) :], view.name))
                raise FeatureDefinitionError(f"views are built on each other in a circle: {circle}")
            if view.name in done:
                return
            for name in view.views:
                visit(self._views[name], (*path, view.name))
            done[view.name] = view

        for view in self._views.values():
            visit(view, ())
        return list(done.values())

    def views(self, entity: str) -> list[FeatureView]:
        """The views of an entity type, each after those it is built on."""
        return [view for view in self._ordered if view.entity == entity]

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Every entity type that has a view."""
        return tuple(dict.fromkeys(view.entity for view in self._ordered))

    def view(self, name: str) -> FeatureView:
        """A view by name.

        Raises:
            UnknownFeatureError: there is none; the sentence offers near matches.
        """
        if name not in self._views:
            raise UnknownFeatureError(
                f"there is no feature view named {name}{_near(name, self._views)}"
            )
        return self._views[name]

    def features(self, entity: str) -> list[Feature]:
        """The features of an entity type, in the order of its views."""
        return [feature for view in self.views(entity) for feature in view.features]

    def feature(self, name: str) -> Feature:
        """A feature by name.

        Raises:
            UnknownFeatureError: there is none; the sentence offers near matches.
        """
        return next(f for f in self.view_of(name).features if f.name == name)

    def view_of(self, feature: str) -> FeatureView:
        """The view that a feature belongs to.

        Raises:
            UnknownFeatureError: there is none; the sentence offers near matches.
        """
        if feature not in self._home:
            raise UnknownFeatureError(_unknown([feature], self._home))
        return self._home[feature]

    def resolve(self, names: Iterable[str]) -> list[FeatureView]:
        """The views to compute so as to get these features, in the catalogue's order.

        Raises:
            UnknownFeatureError: some are unknown; the sentence names all of them, with near
                matches.
        """
        wanted = list(names)
        unknown = [name for name in wanted if name not in self._home]
        if unknown:
            raise UnknownFeatureError(_unknown(unknown, self._home))
        needed = {self._home[name].name for name in wanted}
        return [view for view in self._ordered if view.name in needed]

    def with_dependencies(self, views: Sequence[FeatureView]) -> list[FeatureView]:
        """These views and all that they are built on, each after those it is built on."""
        needed: dict[str, FeatureView] = {}

        def add(view: FeatureView) -> None:
            for name in view.views:
                if name not in needed:
                    add(self.view(name))
            needed.setdefault(view.name, view)

        for view in views:
            add(view)
        return list(needed.values())


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _unknown(names: list[str], known: Iterable[str]) -> str:
    candidates = list(known)
    return "; ".join(f"there is no feature named {n}{_near(n, candidates)}" for n in names)


_CATALOGUE = Catalogue((*BUILT_IN, *installed_views()))


def catalogue() -> Catalogue:
    """The catalogue: the built-in views, and those of installed packages."""
    return _CATALOGUE
