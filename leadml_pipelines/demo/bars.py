"""Progress bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Report = Callable[[int, int | None, str], None]
"""Called with what is done, how much there is (None while unknown), and what it is."""


def bars(console: Console) -> Progress:
    """Progress bars in LeadML's one style."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def bar(progress: Progress, title: str) -> Iterator[Report]:
    """One bar that says what it is at while it moves, and stands full at the end."""
    task = progress.add_task(title, total=None)

    def report(done: int, total: int | None, label: str) -> None:
        progress.update(task, completed=done, total=total, description=f"{title}: {label}")

    yield report
    done = max(progress.tasks[task].completed, progress.tasks[task].total or 0, 1)
    progress.update(task, completed=done, total=done, description=title)
