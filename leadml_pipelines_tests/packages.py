"""Packages that a test lays where Python finds installed ones, and a Python that finds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def install(folder: Path, name: str, code: str, entries: str) -> None:
    """Lay a package of one module, and its metadata, into a folder.

    Args:
        folder: Where; `run_beside` puts it on Python's path.
        name: Of the package, as in `acme-features`; the module is `acme_features`.
        code: Of the module.
        entries: Content of its `entry_points.txt`.
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {name}\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")


def run_beside(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own that has the packages of a folder."""
    path = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", path + code, *arguments], capture_output=True, text=True, timeout=120
    )
