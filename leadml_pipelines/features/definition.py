"""Where a feature is written down, and what is written there."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass

from leadml_pipelines.features.functions import FeatureFunction
from leadml_pipelines.features.view import FeatureView


@dataclass(frozen=True)
class Definition:
    """A piece of source text.

    Attributes:
        module: Module of the view.
        line: Line of the view's function in it; 0 when the source is not at hand.
        text: What makes the feature there: the feature function, if it is one; else the expression
            to which the view's function gives its name; else the whole of that function, or
            nothing when its source is not at hand.
    """

    module: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """Module and line, as in `leadml_pipelines.features.views.profile:62`."""
        return f"{self.module}:{self.line}" if self.line else self.module


def definition(view: FeatureView, name: str) -> Definition:
    """Where a view's feature is defined."""
    module = getattr(view.build, "__module__", "")
    made = _function(view, name)
    try:
        lines, line = inspect.getsourcelines(view.build)
    except (OSError, TypeError):
        # A view typed into an interpreter, or made by an object without source.
        return Definition(module, 0, made)
    source = textwrap.dedent("".join(lines))
    return Definition(module, line, made or _part(source, name) or source.rstrip())


def _function(view: FeatureView, name: str) -> str:
    """The feature function behind a feature, among those that the view's function mentions."""
    seen = inspect.getclosurevars(view.build) if inspect.isfunction(view.build) else None
    for value in (*seen.nonlocals.values(), *seen.globals.values()) if seen else ():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, FeatureFunction) and one.feature.name == name:
                return one.definition()
    return ""


def _part(source: str, name: str) -> str:
    """The expression to which a function gives a name: `name=...` or `(...).alias("name")`."""
    for node in ast.walk(ast.parse(source)):
        named = (isinstance(node, ast.keyword) and node.arg == name) or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "alias"
            and [ast.dump(a) for a in node.args] == [ast.dump(ast.Constant(name))]
        )
        if named:
            segment = ast.get_source_segment(source, node, padded=True) or ""
            return textwrap.dedent(segment)
    return ""
