"""Views and functions of other packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from leadml_pipelines.features.entity_types import ENTITY_TYPES
from leadml_pipelines.features.view import FeatureDefinitionError, FeatureView

GROUP = "leadml.views"
"""The entry point group: each entry names a `FeatureView`, or several of them in a tuple or list.

Importing the module of an entry also registers the feature functions it declares."""


def installed_views() -> tuple[FeatureView, ...]:
    """The views of all installed packages that offer some, ordered by the names of the entries.

    Raises:
        FeatureDefinitionError: an entry can't be imported or is no view; the sentence names it.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    return tuple(view for point in points for view in _views_of(point))


def _views_of(point: EntryPoint) -> Iterable[FeatureView]:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise FeatureDefinitionError(
            f"the entry {point.name} = {point.value} of {GROUP} can't be imported ({error}); "
            "mend or uninstall the package that offers it"
        ) from error
    views = [loaded] if isinstance(loaded, FeatureView) else loaded
    if not isinstance(views, tuple | list) or not all(isinstance(v, FeatureView) for v in views):
        raise FeatureDefinitionError(
            f"the entry {point.name} = {point.value} of {GROUP} is a {type(loaded).__name__}; "
            "it must be a FeatureView, or a tuple or list of them"
        )
    for view in views:
        if view.entity not in ENTITY_TYPES:
            raise FeatureDefinitionError(
                f"the view {view.name} of {point.value} is about {view.entity!r}; there is "
                f"{', '.join(ENTITY_TYPES)}"
            )
    return views
