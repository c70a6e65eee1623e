"""`leadml models train`, as a user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training_set import assemble, save_training_set
from leadml_pipelines_tests.end_to_end.commands import environment, leadml, start
from leadml_pipelines_tests.learning.frames import DAY, FEATURES, START, rows_frame


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with rows of `conversion`, of which the label is easily learned."""
    home = tmp_path_factory.mktemp("home")
    span = {"data_start": START, "data_end": START + 200 * DAY}
    rows = assemble(SPECS["conversion"], rows_frame(), FEATURES, **span)
    save_training_set(rows, home / "training_sets")
    return home


STATES = """
import sys
from datetime import timedelta
from pathlib import Path
from leadml_pipelines.commands.common import postgres
from leadml_pipelines.monitoring.trainings import trainings
from leadml_pipelines.times import utc_now
with postgres(Path(sys.argv[1])) as url:
    print(*(one.state for one in trainings(url, utc_now(), timedelta(days=1))))
"""


def states(home: Path) -> list[str]:
    """How the trainings of a home ended, the oldest first."""
    command = [sys.executable, "-c", STATES, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return done.stdout.split()


def test_a_model_is_trained_registered_and_listed(home: Path) -> None:
    done = leadml("models", "train", "conversion", "--home", home)
    assert done.returncode == 0, done.stderr
    assert "conversion_20" in done.stdout
    assert "is better than the floor" in done.stdout
    listed = leadml("models", "list", "--home", home)
    assert listed.stdout.count("conversion_20") == 1
    assert states(home)[-1] in ("succeeded", "rejected")


def test_a_model_that_nobody_declared_is_named_with_those_there_are(home: Path) -> None:
    done = leadml("models", "train", "retention", "--home", home)
    assert done.returncode == 1
    assert "there is no model retention" in done.stderr
    assert "churn, conversion" in done.stderr


def test_without_rows_it_says_what_to_do(home: Path) -> None:
    done = leadml("models", "train", "churn", "--home", home)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert "extract" in done.stderr


def test_rows_of_another_declaration_are_not_learned_from(tmp_path: Path) -> None:
    other = replace(SPECS["conversion"], horizon=20 * DAY)
    span = {"data_start": START, "data_end": START + 200 * DAY}
    rows = assemble(other, rows_frame(100), FEATURES, **span)
    save_training_set(rows, tmp_path / "training_sets")
    done = leadml("models", "train", "conversion", "--home", tmp_path)
    assert "of another declaration; building them anew" in done.stdout
    # There is no extract to build them from.
    assert done.returncode == 1
    assert "extract" in done.stderr


def test_ctrl_c_ends_a_search_within_seconds_and_registers_nothing(home: Path) -> None:
    before = leadml("models", "list", "--home", home).stdout
    journal = home / "tuning" / "conversion"
    endless = ("--tuner", "optuna", "--trials", "100000")
    with start("models", "train", "conversion", *endless, "--home", home) as running:
        deadline = time.monotonic() + 60
        while not journal.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert journal.exists(), "the search did not begin"
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert "interrupted" in said
    assert leadml("models", "list", "--home", home).stdout == before
    assert states(home)[-1] == "cancelled"
