from __future__ import annotations

from pathlib import Path

import pytest

from leadml_pipelines_tests.end_to_end.commands import leadml


def test_status_of_an_unused_home_says_that_nothing_runs(tmp_path: Path) -> None:
    done = leadml("status", "--home", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped") == 3


def test_down_in_an_unused_home_is_no_error(tmp_path: Path) -> None:
    done = leadml("down", "--home", tmp_path / "home")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing was running")


def test_env_prints_lines_for_a_shell(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    done = leadml("env", "--home", home)
    assert done.returncode == 0, done.stderr
    assert f"export LEADML_HOME='{home}'" in done.stdout.splitlines()
    assert all(line.startswith("export ") for line in done.stdout.splitlines())


@pytest.mark.parametrize("option", ["--mapping", "--data"])
def test_a_mapping_and_its_data_are_given_together(tmp_path: Path, option: str) -> None:
    given = tmp_path / "mapping.toml"
    given.write_text("", encoding="utf-8")
    done = leadml("demo", option, given if option == "--mapping" else tmp_path)
    assert done.returncode == 2
    assert "given together" in done.stderr


def test_too_few_leads_to_learn_from_are_refused_at_once(tmp_path: Path) -> None:
    done = leadml("demo", "--home", tmp_path / "home", "--leads", 999)
    assert done.returncode == 2
    assert "1000" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_mapping_that_is_wrong_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.toml"
    mapping.write_text("[nonsense]\nx = 1\n", encoding="utf-8")
    done = leadml("import", "--home", tmp_path / "home", "--mapping", mapping, "--data", tmp_path)
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "leadml.toml").write_text('clock = "yesterday"\n', encoding="utf-8")
    done = leadml("quarantine", "--home", tmp_path, "replay")
    assert done.returncode == 1
    assert "clock" in done.stderr
    assert "Traceback" not in done.stderr
