"""`leadml features ...`: what there is, training sets, the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal

features = typer.Typer(help="Features: what there is, training sets, the audit.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

SHOWN = 50
"""Mismatches printed; `--json` writes all of them."""


@features.command("list")
def list_features(
    entity: Annotated[str | None, typer.Option(help="Only of this entity type.")] = None,
    view: Annotated[str | None, typer.Option(help="Only of this view.")] = None,
    dimension: Annotated[str | None, typer.Option(help="Only of this dimension.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every feature by view: type, unit, range, dimension, meaning."""
    from leadml_pipelines.commands.catalogue_tables import print_entries
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.features.entries import entries, record

    found = entries(entity=entity, view=view, dimension=dimension)
    if as_json:
        _print_json([record(one) for one in found])
    else:
        print_entries(terminal(), found, catalogue())


@features.command("show")
def show_feature(
    name: Annotated[str, typer.Argument(help="Name of a feature.")], as_json: AsJson = False
) -> None:
    """All about one feature: meaning, owner, range, source columns, definition."""
    from leadml_pipelines.commands.catalogue_tables import print_entry
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.features.definition import definition
    from leadml_pipelines.features.entries import entry, record
    from leadml_pipelines.features.lineage import expression, lineage

    found, view = entry(name), catalogue().view_of(name)
    text, traced, sql = definition(view, name), lineage(name), expression(name)
    if as_json:
        defined = {"place": text.place, "text": text.text, "sql": sql}
        _print_json({**record(found, traced), "definition": defined})
    else:
        print_entry(terminal(), found, traced, text, sql)


@features.command("search")
def search_features(
    text: Annotated[list[str], typer.Argument(help="Words, or a source column.")],
    as_json: AsJson = False,
) -> None:
    """Find features by name, meaning or source column, the best first."""
    from leadml_pipelines.commands.catalogue_tables import print_found
    from leadml_pipelines.features.entries import entries, record
    from leadml_pipelines.features.lineage import lineage_of_all
    from leadml_pipelines.features.search import near_names, search

    every, lineages = entries(), lineage_of_all()
    found = search(" ".join(text), every, lineages)
    if as_json:
        _print_json([record(one, lineages[one.name]) for one in found])
        return
    near = [] if found else near_names(" ".join(text), (one.name for one in every))
    print_found(terminal(), " ".join(text), found, near)


@features.command("audit")
def audit_served(
    home: Home = DEFAULT_HOME,
    sample: Annotated[
        int, typer.Option(min=1, help="Served vectors of each entity type to compute again.")
    ] = 1_000,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report to this file.")
    ] = None,
) -> None:
    """Compute served vectors again from the newest extract; exit with 1 if any differs."""
    from leadml_pipelines.features.audit import audit
    from leadml_pipelines.features.audit_report import print_report, write_report
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.extract import latest_extract

    with postgres(home) as url:
        settings = Settings()
        extract = latest_extract(settings.extracts)
        with bulk_engine(extract, settings) as engine:
            report = audit(url, engine, catalogue(), extract.as_of, sample=sample)
    print_report(report, terminal(), SHOWN)
    if json_file is not None:
        write_report(report, json_file)
    if report.mismatches:
        raise typer.Exit(1)


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
