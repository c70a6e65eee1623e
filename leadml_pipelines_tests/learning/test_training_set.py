from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.learning.spec import Companion
from leadml_pipelines.learning.training_set import (
    OtherDeclarationError,
    latest_training_set,
    list_training_sets,
    load_training_set,
    save_training_set,
)
from leadml_pipelines_tests.learning.frames import DAY, rows_frame, spec_for, toy_set


def test_a_saved_set_comes_back_as_it_was(tmp_path: Path) -> None:
    built = toy_set(spec_for())
    saved = save_training_set(built, tmp_path)
    loaded = load_training_set(saved.path)
    pd.testing.assert_frame_equal(loaded.frame, built.frame)
    assert loaded == replace(built, frame=loaded.frame, hash=saved.hash)


def test_what_was_saved_is_counted(tmp_path: Path) -> None:
    built = replace(toy_set(spec_for()), counts={"rows": 3, "positives": 2, "unknown_labels": 5})
    saved = save_training_set(built, tmp_path)
    assert (saved.rows, saved.positives, saved.unknown_labels) == (3, 2, 5)


def test_the_same_rows_saved_twice_are_one_file(tmp_path: Path) -> None:
    first = save_training_set(toy_set(spec_for()), tmp_path)
    written = (first.path / "rows.parquet").stat().st_mtime_ns
    again = save_training_set(toy_set(spec_for()), tmp_path)
    assert again == first
    assert (first.path / "rows.parquet").stat().st_mtime_ns == written
    assert list_training_sets(tmp_path, "toy") == [first]
    assert sorted(p.name for p in (tmp_path / "toy").iterdir()) == [first.hash[:16], "latest"]


def test_other_rows_or_another_spec_are_another_set(tmp_path: Path) -> None:
    frame = rows_frame()
    frame.loc[0, "noise"] = 99.0
    hashes = {
        save_training_set(toy_set(spec_for()), tmp_path).hash,
        save_training_set(toy_set(spec_for(), frame), tmp_path).hash,
        save_training_set(toy_set(spec_for(test_share=0.3)), tmp_path).hash,
    }
    assert len(hashes) == 3


def test_the_latest_is_the_one_saved_last_even_if_it_is_an_old_one(tmp_path: Path) -> None:
    first = save_training_set(toy_set(spec_for()), tmp_path)
    second = save_training_set(toy_set(spec_for(test_share=0.3)), tmp_path)
    assert latest_training_set(tmp_path, spec_for()).hash == second.hash
    save_training_set(toy_set(spec_for()), tmp_path)
    assert latest_training_set(tmp_path, spec_for()).hash == first.hash
    assert [saved.hash for saved in list_training_sets(tmp_path, "toy")] == [
        first.hash,
        second.hash,
    ]


def test_rows_changed_on_disk_are_refused(tmp_path: Path) -> None:
    saved = save_training_set(toy_set(spec_for()), tmp_path)
    rows_frame(20).to_parquet(saved.path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet was changed"):
        load_training_set(saved.path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"population": "not is_open"}, "population"),
        ({"label": "SELECT row_id, 1 AS label FROM moments"}, "label"),
        ({"horizon": 10 * DAY}, "horizon_seconds"),
        ({"every": None}, "every_seconds"),
        ({"ages": (DAY,)}, "ages_seconds"),
        ({"candidates": "customer"}, "candidates"),
        ({"exclude": ("noise",)}, "exclude"),
        ({"max_rows": 100}, "max_rows"),
        (
            {"companions": (Companion(name="when", label="x", answer="cross_sell"),)},
            "companions",
        ),
    ],
)
def test_rows_of_another_declaration_are_refused_and_what_changed_is_named(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    save_training_set(toy_set(spec_for()), tmp_path)
    with pytest.raises(OtherDeclarationError, match=rf"\({named}\); materialize toy_training_set"):
        latest_training_set(tmp_path, spec_for(**changes))


def test_another_search_another_gate_and_another_layout_of_the_label_ask_for_the_same_rows(
    tmp_path: Path,
) -> None:
    saved = save_training_set(toy_set(spec_for()), tmp_path)
    spec = spec_for(tuner="optuna", floor=0.6, label="SELECT row_id,\n    0 AS label\nFROM moments")
    assert latest_training_set(tmp_path, spec).hash == saved.hash


def test_a_set_from_before_declarations_were_kept_serves_the_spec_it_was_built_for(
    tmp_path: Path,
) -> None:
    built = toy_set(spec_for())
    kept = ("name", "spec", "features", "data_start", "data_end")
    save_training_set(
        replace(built, definition={key: built.definition[key] for key in kept}), tmp_path
    )
    assert latest_training_set(tmp_path, spec_for()).frame.equals(built.frame)
    with pytest.raises(OtherDeclarationError, match="ages_seconds"):
        latest_training_set(tmp_path, spec_for(floor=0.6))


def test_without_a_saved_set_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="materialize churn_training_set"):
        latest_training_set(tmp_path, spec_for(name="churn"))
