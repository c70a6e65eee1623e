"""What the commands share: the home option, a terminal, a PostgreSQL that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from leadml_pipelines.deployment import Deployment

Home = Annotated[
    Path,
    typer.Option("--home", envvar="LEADML_HOME", help="Folder of everything written on disk."),
]
DEFAULT_HOME = Path(".leadml")


def deployment(home: Path) -> Deployment:
    """The deployment of a home; imported here, so that Ctrl-C is heard from the first moment."""
    from leadml_pipelines.deployment import Deployment

    return Deployment(home)


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """URL of this home's PostgreSQL, started for the length of one command if it does not run."""
    with deployment(home) as running:
        running.start_services(only=("postgres",))
        yield os.environ["LEADML_POSTGRES_URL"]


def terminal() -> Console:
    """A console on standard output."""
    # Dagster redirects file descriptor 1 while a step runs; a copy keeps the bars on the terminal.
    return Console(file=os.fdopen(os.dup(1), "w", encoding="utf-8"))
