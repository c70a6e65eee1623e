"""`leadml models ...`: what was trained, what answers now, who said so."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal

models = typer.Typer(help="Models: what was trained, what answers now, promote and roll back.")


@models.command("list")
def list_models(
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Only models of this name.")] = None,
) -> None:
    """Every registered model, the newest first."""
    from leadml_pipelines.learning.registry import Registry
    from leadml_pipelines.settings import Settings

    with postgres(home) as url:
        found = Registry(url, Settings().artifacts).models(name)
    table = Table("model", "status", "trained (UTC)")
    for record in found:
        table.add_row(record.model_id, record.status, f"{record.trained_at:%Y-%m-%d %H:%M}")
    terminal().print(table)
