"""The example's views of the loan funnel: they fit beside the built-in ones and its mapping."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.views import BUILT_IN
from leadml_pipelines.sources.contract import EVENT_TYPES
from leadml_pipelines.sources.mapping import load_mapping
from leadml_pipelines_tests.features.world import NOW, World, spine

EXAMPLE = Path(__file__).parents[2] / "examples" / "bpi2012"


@pytest.fixture(scope="module")
def example() -> Any:
    found = importlib.util.spec_from_file_location("loan_features", EXAMPLE / "loan_features.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_views_of_the_example_ask_only_for_event_types_that_its_mapping_makes(
    example: Any,
) -> None:
    (load,) = load_mapping(EXAMPLE / "mapping.toml").lead_events
    made = {rule.event_type for rule in load.rules}
    asked = {*example.STEPS, *example.REPEATED, *example.LAST}
    assert asked - made == set()
    assert made - set(EVENT_TYPES) >= {"application_preaccepted", "lead_work_planned"}


def test_the_views_of_the_example_tell_where_an_application_stands(
    example: Any, tmp_path: Path
) -> None:
    catalogue = Catalogue((*BUILT_IN, *example.VIEWS))
    world = World().lead("a", NOW)
    for kind in ("form_submit", "application_preaccepted", "application_work_planned"):
        world.event("a", NOW, event_type=kind)
    with DuckDBEngine(world.parquet(tmp_path), catalogue=catalogue) as engine:
        row = engine.compute([catalogue.view("loan_steps")], spine(("a", NOW))).iloc[0]
    assert row["last_step"] == "application_preaccepted"
    assert row["application_work_planned_delay_hours"] == 0
    assert row["quote_sent_count"] == 0
