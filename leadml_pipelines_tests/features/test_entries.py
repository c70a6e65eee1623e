from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError, catalogue
from leadml_pipelines.features.entries import entries, entry, record
from leadml_pipelines.features.lineage import Lineage, SourceColumn
from leadml_pipelines.features.view import Feature, FeatureView

SIZE = Feature("size", "double", "m", 0, 10, None, "Size.", "fit")
VIEW = FeatureView(
    "v", "thing", "A.", (SIZE, replace(SIZE, name="other", owner="a@b.org", dimension="value")),
    ("spine",), lambda read: read, "team:x", timedelta(hours=2), timedelta(days=3),
)  # fmt: skip


def test_an_entry_has_what_its_view_says_unless_the_feature_says_otherwise() -> None:
    found = entries(Catalogue([VIEW]))
    assert [(e.name, e.owner, e.freshness, e.ttl) for e in found] == [
        ("size", "team:x", timedelta(hours=2), timedelta(days=3)),
        ("other", "a@b.org", timedelta(hours=2), timedelta(days=3)),
    ]


def test_every_feature_of_the_catalogue_has_an_entry() -> None:
    names = [f.name for entity in catalogue().entities for f in catalogue().features(entity)]
    assert [e.name for e in entries()] == names


def test_entries_are_narrowed_by_entity_type_view_and_dimension() -> None:
    assert entries(entity="lead", view="profile", dimension="value")
    for one in entries(entity="lead", view="profile", dimension="value"):
        assert (one.entity, one.view, one.dimension) == ("lead", "profile", "value")


@pytest.mark.parametrize(
    ("narrow", "sentence"),
    [
        ({"entity": "leed"}, "no entity type named leed; did you mean lead?"),
        ({"view": "engagemnt"}, "no feature view named engagemnt; did you mean engagement?"),
        ({"dimension": "luck"}, "no dimension named luck; there is fit, engagement, intent"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(narrow: dict[str, str], sentence: str) -> None:
    with pytest.raises(UnknownFeatureError, match=sentence.replace("?", r"\?")):
        entries(**narrow)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 10, "0 to 10"), (0, None, "0 or more"), (None, 1.5, "1.5 or less"), (None, None, "")],
)
def test_a_range_reads_as_a_person_says_it(
    low: float | None, high: float | None, text: str
) -> None:
    view = replace(VIEW, features=(replace(SIZE, low=low, high=high),))
    assert entries(Catalogue([view]))[0].range == text


def test_a_record_is_an_entry_as_json_has_it() -> None:
    one = entry("size", Catalogue([VIEW]))
    traced = Lineage((SourceColumn("t", "a"),), (SourceColumn("t", "b"),), ("f",), ())
    assert record(one, traced) == {
        "name": "size",
        "entity_type": "thing",
        "view": "v",
        "type": "double",
        "unit": "m",
        "low": 0,
        "high": 10,
        "default": None,
        "description": "Size.",
        "dimension": "fit",
        "owner": "team:x",
        "freshness_seconds": 7200.0,
        "ttl_seconds": 259200.0,
        "lineage": {"values": ["t.a"], "conditions": ["t.b"], "features": ["f"]},
    }
    assert "lineage" not in record(one)
