"""The command line. Every command is thin: it reads options, calls a room, prints."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leadml_pipelines.commands import (
    models_backtest,  # noqa: F401 - registers its command
    models_experiment,  # noqa: F401 - registers its command
    models_train,  # noqa: F401 - registers its command
)
from leadml_pipelines.commands.alerts import alerts
from leadml_pipelines.commands.common import DEFAULT_HOME, Home, deployment, postgres, terminal
from leadml_pipelines.commands.features import features
from leadml_pipelines.commands.models import models
from leadml_pipelines.errors import UserError
from leadml_pipelines.signals import signals_interrupt

if TYPE_CHECKING:
    from leadml_pipelines.deployment import Deployment

app = typer.Typer(
    name="leadml",
    help="Features, models and millisecond predictions for insurance lead generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
quarantine = typer.Typer(help="Rows that broke the contract: see them, replay them after a fix.")
app.add_typer(quarantine, name="quarantine")
app.add_typer(features, name="features")
app.add_typer(models, name="models")
app.command()(alerts)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main() -> None:
    """Entry point: a known error becomes a sentence and exit code 1, Ctrl-C becomes 130."""
    errors = Console(stderr=True)
    try:
        with signals_interrupt():
            app()
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        errors.print("\ninterrupted")
        sys.exit(INTERRUPTED)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            sentence = escape(f"{error.title}: {place}: {problem['msg']}")
            errors.print(f"[red]error:[/] {sentence}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except UserError as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def demo(
    home: Home = DEFAULT_HOME,
    leads: Annotated[int, typer.Option(min=1_000, help="Leads of the synthetic funnel.")] = 5_000,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic funnel.")] = 7,
    mapping: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Mapping of real data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of real data.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the summary to this file.")
    ] = None,
) -> None:
    """Do the main job: raw leads to predictions that a service can read."""
    from leadml_pipelines.demo.dataset import Dataset, Files, Synthetic
    from leadml_pipelines.demo.report import print_summary
    from leadml_pipelines.demo.run import run_demo

    if (mapping is None) != (data is None):
        raise typer.BadParameter("--mapping and --data are given together, or neither is")
    dataset: Dataset = Synthetic(leads, seed)
    if mapping is not None and data is not None:
        dataset = Files(str(mapping.absolute()), str(data.absolute()))
    console = terminal()
    with deployment(home) as running:
        summary = run_demo(running, dataset, console)
        print_summary(summary, console)
        if json_file is not None:
            summary.write(json_file)
        if keep:
            running.keep()
            _print_status(running, console)


@app.command()
def up(
    home: Home = DEFAULT_HOME,
    port: Annotated[
        int | None, typer.Option(help="Port of the HTTP app; a free one if not given.")
    ] = None,
    dagster_port: Annotated[
        int | None, typer.Option(help="Port of Dagster's UI; a free one if not given.")
    ] = None,
) -> None:
    """Start the services, Dagster and the HTTP app, wired to each other."""
    console = terminal()
    with deployment(home) as running:
        with console.status("Starting PostgreSQL, Redis and the graph"):
            running.start_services()
        with console.status("Starting Dagster"):
            running.start_dagster(dagster_port)
        with console.status("Starting the HTTP app"):
            running.start_http(port)
        running.keep()
        _print_status(running, console)


@app.command()
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop exactly what `up` (or `demo --keep`) started in this home."""
    stopped = deployment(home).stack.stop_all()
    terminal().print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status(home: Home = DEFAULT_HOME) -> None:
    """Tell what runs, where, since when."""
    _print_status(deployment(home), terminal())


@app.command()
def env(home: Home = DEFAULT_HOME) -> None:
    """Print export lines, so that `dagster` and `dg` work in the same shell.

    Use it as: eval "$(leadml env)"
    """
    for name, value in sorted(deployment(home).stack.environment().items()):
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


@app.command("import")
def import_data(
    mapping: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Mapping (TOML).")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the files.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Bring CSV and Parquet files into the source tables."""
    from leadml_pipelines.demo.bars import bar, bars
    from leadml_pipelines.deployment import keep_settings
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.importer import import_files

    console = terminal()
    with postgres(home) as url, bars(console) as progress, bar(progress, "Importing") as tell:
        settings = Settings()
        keep_settings(mapping, settings.root)
        report = import_files(url, mapping, data, schema=settings.crm_schema, progress=tell)
    table = Table("table", "new", "unchanged", "quarantined", title="Imported")
    for name, admitted in report.tables.items():
        table.add_row(
            name,
            f"{admitted.accepted:,}",
            f"{admitted.unchanged:,}",
            f"{sum(admitted.quarantined.values()):,}",
        )
    console.print(table)


@quarantine.callback(invoke_without_command=True)
def count_quarantine(context: typer.Context, home: Home = DEFAULT_HOME) -> None:
    """Count the rows that wait, by table and reason."""
    from leadml_pipelines.sources.quarantine import count_by_reason

    context.obj = home
    if context.invoked_subcommand is not None:
        return
    with postgres(home) as url:
        counts = count_by_reason(url)
    console = terminal()
    if not counts:
        console.print("the quarantine is empty")
        return
    table = Table("table", "reason", "rows")
    for name, reasons in counts.items():
        for reason, count in reasons.items():
            table.add_row(name, reason, f"{count:,}")
    console.print(table)


@quarantine.command("list")
def list_quarantine(
    context: typer.Context,
    table: Annotated[str | None, typer.Option(help="Only rows of this table.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only rows with this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows shown.")] = 50,
) -> None:
    """Show the rows that wait: what exactly is wrong, and their raw content."""
    from leadml_pipelines.sources.quarantine import list_rows

    with postgres(context.obj) as url:
        rows = list_rows(url, table=table, reason=reason, limit=limit)
    shown = Table("id", "table", "reason", "what is wrong", "row")
    for row in rows:
        shown.add_row(
            str(row.id), row.table, row.reason, escape(row.message), escape(json.dumps(row.row))
        )
    terminal().print(shown)


@quarantine.command("replay")
def replay_quarantine(
    context: typer.Context,
    table: Annotated[str | None, typer.Option(help="Only rows of this table.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only rows with this reason.")] = None,
    fixes: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='JSON: {"<id>": {"<column>": corrected value, ...}, ...}',
        ),
    ] = None,
) -> None:
    """Bring rows through the door again, after the cause was mended or with corrected values."""
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.quarantine import replay

    corrected = {}
    if fixes is not None:
        given = json.loads(fixes.read_text(encoding="utf-8"))
        corrected = {int(number): values for number, values in given.items()}
    with postgres(context.obj) as url:
        replayed = replay(
            url, table=table, reason=reason, corrected=corrected, schema=Settings().crm_schema
        )
    console = terminal()
    console.print(f"{replayed.admitted:,} rows admitted, {len(replayed.refused):,} refused again")
    if replayed.imported_events:
        console.print(
            f"{replayed.imported_events:,} of them are events of imported files: import the files "
            "again, so that the policies, closures and assignments that follow from them come too",
            soft_wrap=True,
        )
    for number, fault in list(replayed.refused.items())[:20]:
        console.print(f"  {number}: {escape(fault.message)}", highlight=False)


def _print_status(running: Deployment, console: Console) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("name", "state", "address", "pid", "since (UTC)"):
        table.add_column(column, no_wrap=True)
    services = running.stack.status()
    for service in services:
        table.add_row(
            service.name,
            service.state,
            service.address,
            "" if service.pid is None else str(service.pid),
            "" if service.since is None else f"{service.since:%Y-%m-%d %H:%M}",
        )
    console.print(table)
    for service in services:
        if service.note:
            console.print(f"{service.name}: {service.note}", highlight=False, soft_wrap=True)
