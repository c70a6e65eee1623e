"""Which code trained a model: two versions look different, whether they were released or not."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import leadml_pipelines

_PACKAGE = Path(leadml_pipelines.__file__).parent
_PATIENCE = 10.0
"""Seconds that git may take."""


@cache
def code_version() -> str:
    """The version of the package and what tells its code apart, as in `0.1.0+g6a9d9e1a2b3c`.

    Behind the plus: the commit, where the package lies in a git checkout and is as committed;
    `files.` and a hash of its Python files else. Computed once in a process.
    """
    commit = commit_of(_PACKAGE)
    local = f"g{commit[:12]}" if commit else f"files.{hash_of(_PACKAGE)[:12]}"
    return f"{metadata.version('leadml')}+{local}"


def commit_of(package: Path) -> str | None:
    """The commit that a folder is at; None where git does not know it, or it has changes.

    Args:
        package: A folder of Python files.
    """
    changes = _git(package, "status", "--porcelain", "--", ".")
    # A folder that a repository around it ignores, such as a virtual environment, is not its code.
    known = _git(package, "ls-files", "--", "__init__.py")
    if changes is None or changes or not known:
        return None
    return _git(package, "rev-parse", "HEAD")


def hash_of(package: Path) -> str:
    """SHA-256 (hex) of the names and contents of all Python files below a folder.

    Args:
        package: A folder of Python files.
    """
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(package).as_posix()} {len(content)} ".encode())
        found.update(content)
    return found.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, or it does not know the folder."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - whichever git there is
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
