"""One demonstration, run once, that several tests look at."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines_tests.end_to_end.commands import leadml

LEADS = 1_500


@dataclass(frozen=True)
class Demo:
    """A demonstration that has ended.

    Attributes:
        home: Its home folder.
        returncode: Its exit code.
        output: What it printed.
        summary: What it wrote as JSON.
    """

    home: Path
    returncode: int
    output: str
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """`leadml demo` in a fresh home."""
    folder = Path(tempfile.mkdtemp(prefix="leadml-demo-"))
    home, summary = folder / "home", folder / "out.json"
    done = leadml("demo", "--home", home, "--leads", LEADS, "--json", summary)
    try:
        yield Demo(
            home,
            done.returncode,
            done.stdout + done.stderr,
            json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {},
        )
    finally:
        leadml("down", "--home", home)
        shutil.rmtree(folder, ignore_errors=True)
