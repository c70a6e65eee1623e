from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.definition import definition
from leadml_pipelines.features.functions import Count, function_view
from leadml_pipelines.features.view import Feature, FeatureView

SIZE = Feature("size", "double", "m", None, None, None, "Size.", "fit")


def test_an_expression_with_the_name_of_the_feature_is_its_definition() -> None:
    found = definition(catalogue().view("lifecycle"), "days_since_last_inbound")
    assert found.text.startswith("days_since_last_inbound=")
    assert 'F.col("last_inbound_at")' in found.text


def test_an_alias_names_an_expression_too() -> None:
    def build(read: Any) -> Any:
        return read["spine"].select((read["x"] + 1).alias("size"))

    found = definition(FeatureView("v", "lead", "A.", (SIZE,), ("spine",), build), "size")
    assert found.text == '(read["x"] + 1).alias("size")'


def test_a_feature_function_is_its_own_definition() -> None:
    found = definition(catalogue().view("engagement"), "email_open_rate")
    assert found.text == (
        "Ratio(name='email_open_rate', window='90d', of='email_open', per='email_sent')"
    )
    made = function_view("v", "lead", [Count(event_type="email_open", window="14d")])
    text = "Count(event_type='email_open', window='14d')"
    assert definition(made, "email_open_count_14d").text == text


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
