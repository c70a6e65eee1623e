"""The catalogue on a terminal, and the commands as a user runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from leadml_pipelines.commands.catalogue_tables import print_entries, print_entry, print_found
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.definition import definition
from leadml_pipelines.features.entries import entries, entry
from leadml_pipelines.features.lineage import expression, lineage
from leadml_pipelines_tests.end_to_end.commands import leadml


def console(width: int) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width, color_system=None), text


@pytest.mark.parametrize("width", [80, 120])
def test_every_name_and_dimension_is_whole_within_the_width(width: int) -> None:
    terminal, text = console(width)
    print_entries(terminal, entries(), catalogue())
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for one in entries():
        line = next(line for line in lines if line.split()[:1] == [one.name])
        assert one.type in line
        assert one.dimension in line
    assert "…" not in text.getvalue()


def test_a_wide_terminal_tells_the_meaning_too() -> None:
    terminal, text = console(120)
    print_entries(terminal, entries(view="graph"), catalogue())
    assert "PageRank of the lead." in text.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_one_feature_is_told_with_owner_sources_and_definition(width: int) -> None:
    terminal, text = console(width)
    name = "email_open_rate"
    found = definition(catalogue().view_of(name), name)
    print_entry(terminal, entry(name), lineage(name), found, expression(name))
    shown = text.getvalue()
    for part in (
        "team:data",
        "double, share",
        "0 to 1",
        "26h",
        "lead_events: event_type, occurred_at",
        "lead_events: ingested_at, lead_id, occurred_at",
        found.place,
        found.text,
    ):
        assert part in shown


def test_a_search_without_result_offers_what_is_alike() -> None:
    terminal, text = console(80)
    print_found(terminal, "opn", [], ["is_open"])
    assert text.getvalue().strip() == "nothing has 'opn' in it; did you mean is_open?"


def test_list_prints_json_without_a_database_or_a_home(tmp_path: Path) -> None:
    done = leadml("features", "list", "--view", "profile", "--json")
    assert done.returncode == 0, done.stderr
    names = [one["name"] for one in json.loads(done.stdout)]
    assert names == [feature.name for feature in catalogue().view("profile").features]


def test_show_prints_lineage_and_definition_as_json() -> None:
    done = leadml("features", "show", "policy_count", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["lineage"]["values"] == ["policies.bound_at"]
    assert shown["definition"]["place"].startswith("leadml_pipelines.features.views.lifecycle:")


def test_an_unknown_feature_is_a_sentence_with_its_like() -> None:
    done = leadml("features", "show", "quality_scor")
    assert done.returncode == 1
    assert "did you mean quality_score" in done.stderr
    assert "Traceback" not in done.stderr


def test_search_finds_by_source_column() -> None:
    done = leadml("features", "search", "graph_metrics.pagerank", "--json")
    assert done.returncode == 0, done.stderr
    assert {one["name"] for one in json.loads(done.stdout)} >= {"pagerank", "pagerank_relative"}
