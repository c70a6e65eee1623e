"""Models of different code are told apart."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from leadml_pipelines.learning.registry.code_version import code_version, commit_of, hash_of


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],  # noqa: S607 - whichever git there is
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a git checkout."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return package


def test_a_package_in_a_checkout_is_known_by_its_commit(package: Path) -> None:
    assert commit_of(package) == git(package, "rev-parse", "HEAD")


def test_a_change_that_is_not_committed_has_no_commit(package: Path) -> None:
    (package / "__init__.py").write_text("A = 2\n")
    assert commit_of(package) is None


def test_an_installed_package_is_not_known_by_the_repository_around_it(package: Path) -> None:
    (package.parent / ".gitignore").write_text("venv\n")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "second")
    installed = package.parent / "venv"
    installed.mkdir()
    (installed / "__init__.py").write_text("A = 1\n")
    assert commit_of(installed) is None


def test_the_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("A = 1\n")
    (tmp_path / "note.txt").write_text("of no matter")
    first = hash_of(tmp_path)
    (tmp_path / "note.txt").write_text("changed")
    assert hash_of(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = hash_of(tmp_path)
    (tmp_path / "b.py").write_text("A = 2\n")
    assert len({first, renamed, hash_of(tmp_path)}) == 3


def test_the_version_names_release_and_code() -> None:
    release, _, code = code_version().partition("+")
    assert release == metadata.version("leadml")
    assert code.startswith(("g", "files."))
    assert len(code.removeprefix("files.").removeprefix("g")) == 12
