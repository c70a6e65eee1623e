from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.definition import definition
from leadml_pipelines.features.view import Feature, FeatureView

SIZE = Feature("size", "double", "m", None, None, None, "Size.", "fit")


def test_an_expression_with_the_name_of_the_feature_is_its_definition() -> None:
    view = catalogue().view("engineered")
    found = definition(view, "active_premium_mean")
    assert 'F.col("active_premium")' in found.text
    assert found.text.endswith('.alias("active_premium_mean")')


def test_the_place_is_the_line_of_the_views_function() -> None:
    found = definition(catalogue().view("engineered"), "quality_score")
    module = sys.modules["leadml_pipelines.features.views.engineered"]
    assert found.place == f"{module.__name__}:{found.line}"
    lines = Path(inspect.getfile(module)).read_text(encoding="utf-8").splitlines()
    assert lines[found.line - 1].startswith("@feature_view(")


def test_without_such_an_expression_the_whole_function_is_told() -> None:
    def build(read: Any) -> Any:
        return read["spine"]

    found = definition(FeatureView("v", "lead", "A.", (SIZE,), ("spine",), build), "size")
    assert found.text == 'def build(read: Any) -> Any:\n    return read["spine"]'


def test_a_view_without_source_has_a_module_and_no_text() -> None:
    view = FeatureView("v", "lead", "A.", (SIZE,), ("spine",), eval("lambda read: read"))  # noqa: S307
    found = definition(view, "size")
    assert (found.line, found.text, found.place) == (0, "", __name__)
