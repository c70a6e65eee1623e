"""Which versions of a model were trained for another question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from leadml_pipelines.learning.questions import other_questions
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training_set import assemble, save_training_set
from leadml_pipelines_tests.learning.frames import DAY, FEATURES, START, rows_frame, spec_for

SPEC = spec_for()


@dataclass(frozen=True)
class Version:
    """What is asked of a registered version."""

    model_id: str
    horizon: timedelta
    spec_hash: str
    training_set_hash: str = ""


def version(model_id: str, spec: ModelSpec, training_sets: Path | None = None) -> Version:
    """A version of this declaration; with a saved training set, if a folder is given."""
    saved = ""
    if training_sets is not None:
        rows = rows_frame(20)
        made = assemble(spec, rows, FEATURES, data_start=START, data_end=START + 200 * DAY)
        saved = save_training_set(made, training_sets).hash
    return Version(model_id, spec.horizon, spec.hash, saved)


def test_a_version_of_another_horizon_answers_another_question(tmp_path: Path) -> None:
    versions = [version("same", SPEC), version("old", replace(SPEC, horizon=10 * DAY))]
    assert other_questions(SPEC, versions, tmp_path) == {"old": "its horizon is 10d, now it is 20d"}


def test_a_label_or_population_of_old_is_read_from_the_training_set(tmp_path: Path) -> None:
    other_label = replace(SPEC, label="SELECT row_id, 1 AS label FROM moments")
    versions = [
        version("label", other_label, tmp_path),
        version("population", replace(SPEC, population="not is_open"), tmp_path),
        version("same", replace(SPEC, rounds=70, label=SPEC.label.replace(" ", "\n ")), tmp_path),
    ]
    assert other_questions(SPEC, versions, tmp_path) == {
        "label": "its label was declared otherwise",
        "population": "its population was declared otherwise",
    }


def test_without_its_training_set_nothing_is_known_to_be_different(tmp_path: Path) -> None:
    versions = [version("unknown", replace(SPEC, label="SELECT row_id, 1 AS label FROM moments"))]
    assert other_questions(SPEC, versions, tmp_path) == {}
