"""Where a feature is written down, and what is written there."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass

from leadml_pipelines.features.view import FeatureView


@dataclass(frozen=True)
class Definition:
    """A piece of source text.

    Attributes:
        module: Module of the view.
        line: Line of the view's function in it; 0 when the source is not at hand.
        text: What makes the feature there: its own expression where the function gives it one by
            name, else the whole function; empty when the source is not at hand.
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
    try:
        lines, line = inspect.getsourcelines(view.build)
    except (OSError, TypeError):
        # A view typed into an interpreter, or made by an object without source.
        return Definition(module, 0, "")
    source = textwrap.dedent("".join(lines))
    return Definition(module, line, _part(source, name) or source.rstrip())


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
