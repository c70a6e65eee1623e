"""`leadml features ...` as a user calls it, over the session's PostgreSQL."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leadml_pipelines.online.store import OnlineStore
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


@pytest.fixture
def invalidate(
    postgres_url: str, redis_url: str, home: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `leadml features invalidate`, with nothing in the outbox before."""
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.invalidations")

    def run(
        *options: str | Path, code: int = 0, redis: str = redis_url
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [LEADML, "features", "invalidate", *map(str, options), "--home", str(home)],
            env=environment()
            | {"LEADML_POSTGRES_URL": postgres_url, "LEADML_REDIS_URL": redis, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_invalidated_features_count_as_missing_from_then_on(
    invalidate: Callable[..., subprocess.CompletedProcess[str]], redis_url: str, tmp_path: Path
) -> None:
    more = tmp_path / "ids.txt"
    more.write_text("with a space\n\na\n", encoding="utf-8")
    done = invalidate("a", "b", "--file", more)
    assert "3 of type lead are computed anew" in done.stdout
    seen: dict[str, tuple[int, int]] = {}
    with OnlineStore(redis_url) as store:
        store.read_batch("lead", ["a", "b", "with a space", "c"], None, seen)
    assert set(seen) == {"a", "b", "with a space"}


def test_without_redis_the_invalidation_waits_and_the_command_says_so(
    invalidate: Callable[..., subprocess.CompletedProcess[str]], postgres_url: str
) -> None:
    done = invalidate("a", redis="redis://127.0.0.1:1/0")
    assert "Redis can't be reached now" in done.stdout
    with connect(postgres_url) as connection:
        waiting = connection.execute(
            "SELECT entity_id FROM leadml.invalidations WHERE delivered_at IS NULL"
        ).fetchall()
    assert waiting == [("a",)]


@pytest.mark.parametrize(
    ("options", "part"),
    [((), "at least one id"), (("a", "--entity", "house"), "no entity type house")],
)
def test_an_invalidation_of_nobody_is_refused_with_the_reason(
    invalidate: Callable[..., subprocess.CompletedProcess[str]],
    options: tuple[str, ...],
    part: str,
) -> None:
    assert part in invalidate(*options, code=2).stderr
