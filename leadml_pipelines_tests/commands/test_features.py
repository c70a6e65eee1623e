"""`leadml features ...` as a user calls it, over the session's PostgreSQL."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines_tests.end_to_end.commands import LEADML, environment
from leadml_pipelines_tests.features.test_audit import serve, world_of
from leadml_pipelines_tests.features.world import NOW, empty_graph_metrics
from leadml_pipelines_tests.tables import empty_tables


@pytest.fixture
def home_of_two_leads(postgres_url: str, home: Path) -> Iterator[Path]:
    """A home with an extract."""
    world_of("a", "b").event("a", NOW).load(postgres_url)
    extract = extract_sources(postgres_url, home / "extracts", clock="data")
    assert extract.as_of == NOW
    shutil.copy(empty_graph_metrics(home / "no_graph"), extract.path)
    yield home
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.served_features", "leadml.served_schemas")


def audit(url: str, home: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `leadml features audit` in a home whose PostgreSQL the environment names."""
    return subprocess.run(
        [LEADML, "features", "audit", "--home", str(home), *map(str, options)],
        env=environment() | {"LEADML_POSTGRES_URL": url, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_audit_without_skew_ends_well_and_writes_its_report(
    postgres_url: str, home_of_two_leads: Path, tmp_path: Path
) -> None:
    serve(postgres_url, ["a", "b"], NOW)
    report = tmp_path / "report.json"
    done = audit(postgres_url, home_of_two_leads, "--json", report, "--sample", "1")
    assert done.returncode == 0, done.stderr
    assert "1 served vectors audited, 0 mismatches" in done.stdout
    assert json.loads(report.read_text(encoding="utf-8"))["audited"] == 1


def test_audit_with_skew_shows_it_and_ends_with_one(
    postgres_url: str, home_of_two_leads: Path
) -> None:
    def alter(vector, places) -> None:  # type: ignore[no-untyped-def]
        vector[places["is_open"]] = 0.0

    serve(postgres_url, ["a", "b"], NOW, alter=alter)
    done = audit(postgres_url, home_of_two_leads)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "2 served vectors audited, 1 mismatches" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "is_open" in line]
    assert [word in row for word in ("lead a", "False", "True")] == [True] * 3


def test_audit_without_an_extract_says_what_to_do(postgres_url: str, tmp_path: Path) -> None:
    done = audit(postgres_url, tmp_path / "home")
    assert done.returncode == 1
    assert "materialize the sources first" in done.stderr
    assert "Traceback" not in done.stderr
