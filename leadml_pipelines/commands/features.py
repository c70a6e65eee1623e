"""`leadml features ...`: what there is, training sets, the audit."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
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


@features.command("invalidate")
def invalidate_features(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Whose rows were written past the app.")
    ] = None,
    home: Home = DEFAULT_HOME,
    entity: Annotated[str, typer.Option(help="What the ids are of.")] = "lead",
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="More ids, one a line.")
    ] = None,
) -> None:
    """Have the features of entities computed anew by the next read, after rows were imported."""
    from contextlib import closing

    from leadml_pipelines.features.entity_types import UnknownEntityTypeError
    from leadml_pipelines.online.keys import EntityIdError
    from leadml_pipelines.serving.online_features import OnlineFeatures
    from leadml_pipelines.settings import Settings

    lines = [] if file is None else file.read_text(encoding="utf-8").splitlines()
    wanted = list(dict.fromkeys([*(ids or ()), *(line for line in lines if line)]))
    if not wanted:
        raise typer.BadParameter("name at least one id, or a --file of ids")
    with postgres(home), closing(OnlineFeatures(Settings())) as online:
        try:
            told = online.invalidate(entity, wanted)
        except (UnknownEntityTypeError, EntityIdError) as error:
            raise typer.BadParameter(str(error)) from error
    later = "" if told else "; Redis can't be reached now, the app tells it when it is back"
    terminal().print(f"{len(wanted):,} of type {entity} are computed anew{later}", soft_wrap=True)


class TrainingSource(StrEnum):
    """Where a training set's values come from."""

    EVENTS = "events"
    SNAPSHOTS = "snapshots"


@features.command("training-set")
def build_training_set(
    spine: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="CSV or Parquet: ids, times, labels."),
    ],
    names: Annotated[str, typer.Option("--features", help="Names, separated by commas.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="CSV or Parquet to write.")],
    home: Home = DEFAULT_HOME,
    source: Annotated[
        TrainingSource, typer.Option(help="Raw events, or the stored snapshots of views.")
    ] = TrainingSource.EVENTS,
    label: Annotated[
        str | None, typer.Option(help="Column of the spine that is the label.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Where the ids of an entity type are, as in lead=entity_id."),
    ] = None,
    time: Annotated[str, typer.Option(help="Column of the times, with a zone.")] = "as_of",
    name: Annotated[str | None, typer.Option(help="Also save the set under this name.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Write over the output file.")] = False,
) -> None:
    """Add features to a spine, as they were known at each row's time."""
    from contextlib import nullcontext

    from leadml_pipelines.features.spine_files import read_spine, require_new, write_rows
    from leadml_pipelines.features.store import FeatureStore
    from leadml_pipelines.settings import Settings

    if any("=" not in pair for pair in key or ()):
        raise typer.BadParameter("--key is TYPE=COLUMN, as in lead=entity_id")
    keys = dict(pair.split("=", 1) for pair in key or ()) or None
    require_new(output, overwrite)
    rows = read_spine(spine, ids=tuple(keys.values()) if keys else ("entity_id",), time=time)
    wanted = [part.strip() for part in names.split(",") if part.strip()]
    started = postgres(home) if source is TrainingSource.SNAPSHOTS else nullcontext(None)
    with started as url, FeatureStore(Settings(home=home), postgres_url=url) as store:
        built = store.training_set(rows, wanted, label, source=source.value, keys=keys, time=time)
        write_rows(output, built.frame)
        saved = None if name is None else store.save(name, built)
    console = terminal()
    console.print(f"{len(rows):,} rows, {len(wanted)} features: {output}", soft_wrap=True)
    if saved is not None:
        console.print(f"saved as {saved.name}, {saved.hash[:16]}", soft_wrap=True)


@features.command("training-sets")
def list_training_sets(
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Only sets of this name.")] = None,
) -> None:
    """The saved training sets, of this command and of the models, oldest first."""
    from rich.table import Table

    from leadml_pipelines.features.saved_sets import list_sets
    from leadml_pipelines.features.store import FeatureStore
    from leadml_pipelines.settings import Settings

    settings = Settings(home=home)
    with FeatureStore(settings) as store:
        found = [*list_sets(settings.training_sets, name), *store.saved(name)]
    console = terminal()
    if not found:
        console.print("no training set was saved yet")
        return
    table = Table("name", "hash", "rows", "features", "from", "saved at (UTC)")
    for saved in sorted(found, key=lambda saved: saved.saved_at):
        table.add_row(
            saved.name,
            saved.hash[:16],
            f"{saved.rows:,}",
            str(len(saved.definition["features"])),
            str(saved.facts.get("origin", "")),
            f"{saved.saved_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
