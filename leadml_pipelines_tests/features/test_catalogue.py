"""The catalogue refuses what can't be right, and answers questions about what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError, catalogue
from leadml_pipelines.features.view import (
    Feature,
    FeatureDefinitionError,
    FeatureView,
    feature_view,
)

SIZE = Feature("size", "double", "m", 0, None, None, "Size.", "fit")


def view(name: str, *reads: str, features: tuple[Feature, ...] | None = None) -> FeatureView:
    own = features or (replace(SIZE, name=f"{name}_size"),)
    return FeatureView(name, "thing", "A view.", own, reads or ("spine",), lambda read: read)


def test_two_features_with_one_name_are_refused_by_that_name() -> None:
    with pytest.raises(FeatureDefinitionError, match="two features named size, in the views a and"):
        Catalogue([view("a", features=(SIZE,)), view("b", features=(SIZE,))])


def test_two_views_with_one_name_are_refused() -> None:
    with pytest.raises(FeatureDefinitionError, match="two views named a"):
        Catalogue([view("a"), view("a", features=(SIZE,))])


def test_views_in_a_circle_are_refused_with_the_way_round() -> None:
    with pytest.raises(FeatureDefinitionError, match="a -> b -> c -> a"):
        Catalogue([view("a", "b"), view("b", "c"), view("c", "a")])


def test_a_view_that_reads_nothing_known_is_refused_with_a_near_match() -> None:
    with pytest.raises(FeatureDefinitionError, match=r"known_event, which.*mean known_events"):
        Catalogue([view("a", "known_event")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"description": "  "}, "feature size has no description"),
        ({"type": "number"}, "feature size has type 'number'"),
        ({"dimension": "luck"}, "feature size has dimension 'luck'"),
        ({"default": "much"}, "feature size is double but its default is 'much'"),
        ({"default": True}, "feature size is double but its default is True"),
        ({"type": "integer", "default": 0.5}, "feature size is integer but its default is 0.5"),
        ({"low": 3, "high": 2}, "feature size has low 3 above high 2"),
        ({"default": -1.0}, "feature size has default -1.0, which is not between 0 and anything"),
        ({"high": 5, "default": 6}, "feature size has default 6, which is not between 0 and 5"),
        ({"owner": "Anna"}, "feature size has owner 'Anna'; write team:<name> or an e-mail"),
        ({"name": "Size"}, "feature name 'Size'"),
        ({"name": "as_of"}, "a feature can't be named as_of"),
        ({"name": "created_at"}, "a feature can't be named created_at"),
        ({"name": "position"}, "a feature can't be named position"),
    ],
)
def test_a_feature_that_is_declared_wrongly_is_refused_by_name(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(FeatureDefinitionError, match=re.escape(message)):
        replace(SIZE, **change)


@pytest.mark.parametrize("owner", ["", "team:", "data", "anna@nowhere", "team:a b"])
def test_a_view_whose_owner_cannot_be_asked_is_refused(owner: str) -> None:
    with pytest.raises(FeatureDefinitionError, match="view a has owner"):
        replace(view("a"), owner=owner)


@pytest.mark.parametrize("owner", ["team:growth-2", "anna.b+leads@mail.example.org"])
def test_a_team_or_an_address_is_an_owner(owner: str) -> None:
    assert replace(view("a"), owner=owner).owner == owner


@pytest.mark.parametrize("name", ["spine", "order", "online", "snapshots", "leads", "known_events"])
def test_a_view_is_not_named_like_something_else(name: str) -> None:
    with pytest.raises(FeatureDefinitionError, match=f"a view can't be named {name}"):
        view(name)


def test_unknown_features_are_all_named_with_near_matches() -> None:
    with pytest.raises(UnknownFeatureError) as error:
        catalogue().resolve(["quality_scor", "stage", "zzz"])
    assert str(error.value) == (
        "there is no feature named quality_scor; did you mean quality_score?; "
        "there is no feature named zzz"
    )


def test_resolving_names_gives_the_views_that_hold_them_in_order() -> None:
    views = catalogue().resolve(["quality_score", "age"])
    assert [v.name for v in views] == ["profile", "engineered"]


def test_views_come_after_those_they_are_built_on() -> None:
    found = Catalogue([view("c", "b"), view("b", "a"), view("a")])
    assert [v.name for v in found.views("thing")] == ["a", "b", "c"]
    assert [v.name for v in found.with_dependencies([found.view("b")])] == ["a", "b"]


def test_the_built_in_catalogue_has_what_the_rest_of_the_house_relies_on() -> None:
    types = {feature.name: feature.type for feature in catalogue().features("lead")}
    assert len(types) >= 60
    assert len(catalogue().features("agent")) >= 10
    promised = {
        "quality_score": "double",
        "engagement_score": "double",
        "email_open_rate": "double",
        "stage": "category",
        "is_open": "boolean",
        "active_policy_count": "integer",
        "inbound_count_30d": "integer",
        "source": "category",
        "state": "category",
        "product_interest": "category",
    }
    assert {name: types[name] for name in promised} == promised


def test_every_dimension_of_the_lead_score_has_features() -> None:
    assert {feature.dimension for feature in catalogue().features("lead")} == {
        "fit", "engagement", "intent", "value", "urgency", "relationship",
    }  # fmt: skip


def test_a_view_names_the_tables_and_views_it_needs() -> None:
    assert catalogue().view("lifecycle").inputs == (
        "leads", "policies", "closures", "lead_events",
    )  # fmt: skip
    assert catalogue().view("engineered").inputs == ("profile", "lifecycle", "engagement")
    assert "spine" not in catalogue().view("graph").inputs


def test_a_feature_knows_its_range() -> None:
    score = catalogue().feature("quality_score")
    assert [score.holds(v) for v in (0, 100.0, -0.1, 100.1, None)] == [
        True, True, False, False, True,
    ]  # fmt: skip


def test_the_decorator_makes_a_view_of_a_function() -> None:
    @feature_view(name="a", entity="thing", description="A.", features=(SIZE,), reads=("spine",))
    def a(read: Any) -> Any:
        return read["spine"]

    assert isinstance(a, FeatureView)
    assert a.build({"spine": 3}) == 3


def test_importing_the_catalogue_loads_nothing_heavy() -> None:
    code = (
        "import sys, leadml_pipelines.features.catalogue; "
        "print([m for m in ('sqlframe', 'sqlglot', 'duckdb', 'pandas', 'numpy', 'pyarrow', "
        "'psycopg') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
