"""Running the installed `leadml` command as a user does, and looking at what it left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

LEADML = shutil.which("leadml", path=str(Path(sys.executable).parent)) or "leadml"


def environment() -> dict[str, str]:
    """The environment of a newcomer: no LeadML or Dagster setting of this shell."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LEADML_", "DAGSTER_"))
    }


def leadml(*arguments: str | Path | int, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed."""
    return subprocess.run(
        [LEADML, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command without waiting for it."""
    return subprocess.Popen(
        [LEADML, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_of(home: Path) -> list[str]:
    """Command lines of all processes that work for a home folder.

    They are known by their arguments, their working directory or their environment; PostgreSQL's
    data may lie elsewhere, where the home's link points to.
    """
    places = {str(home), str((home / "postgres").resolve())}
    found = []
    for process in psutil.process_iter():
        try:
            signs = [*process.cmdline(), process.cwd(), process.environ().get("LEADML_HOME", "")]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(place in sign for place in places for sign in signs):
            found.append(" ".join(process.cmdline()))
    return found
