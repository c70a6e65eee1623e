"""`leadml features ...`: what there is, training sets, the audit."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal

features = typer.Typer(help="Features: what there is, training sets, the audit.")


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
