"""Finished sets on disk: case 34, what is saved is what comes back, and nothing is written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.features.saved_sets import (
    NoSavedSetError,
    SavedSetError,
    find_set,
    list_sets,
    read_rows,
    save_set,
    set_hash,
)
from leadml_pipelines_tests.features.world import NOW


def rows(**more: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "entity_id": ["a", None],
            "as_of": pd.Series([NOW, NOW], dtype="datetime64[us, UTC]"),
            "count": pd.array([2**53 + 1, None], dtype="Int64"),
            "share": [0.1 + 0.2, np.nan],
            "open": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["x", "y"]),
            **more,
        }
    )


DEFINITION = {"features": ["count"], "source": "events"}


@pytest.mark.parametrize("index", [None, [7, 3], ["x", "x"]])
def test_34_a_saved_set_comes_back_with_its_types_and_its_index(
    tmp_path: Path, index: list[Any] | None
) -> None:
    frame = rows() if index is None else rows().set_axis(pd.Index(index, name="row"), axis=0)
    saved = save_set(tmp_path, "mine", frame, DEFINITION)
    pd.testing.assert_frame_equal(read_rows(saved.path), frame, check_exact=True)


def test_34_a_saved_set_tells_definition_rows_facts_and_hash(tmp_path: Path) -> None:
    saved = save_set(tmp_path, "mine", rows(), DEFINITION, {"origin": "extract", "hash": "not me"})
    assert (saved.name, saved.rows, saved.definition) == ("mine", 2, DEFINITION)
    assert saved.facts == {"origin": "extract"}
    assert saved.hash == set_hash(rows(), DEFINITION)
    assert saved.path == tmp_path / "mine" / saved.hash[:16]


def test_34_another_content_is_another_set_and_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    first = save_set(tmp_path, "mine", rows(), DEFINITION)
    others = [
        save_set(tmp_path, "mine", rows(share=[0.3, np.nan]), DEFINITION),
        save_set(tmp_path, "mine", rows(), {**DEFINITION, "source": "snapshots"}),
    ]
    assert len({first.hash, *(other.hash for other in others)}) == 3
    pd.testing.assert_frame_equal(read_rows(first.path), rows())
    assert list_sets(tmp_path) == sorted(
        [first, *others], key=lambda saved: (saved.saved_at, saved.hash)
    )


def test_34_the_same_content_saved_again_changes_no_file_but_the_mark(tmp_path: Path) -> None:
    first = save_set(tmp_path, "mine", rows(), DEFINITION, {"origin": "one"})
    second = save_set(tmp_path, "mine", rows(share=[0.3, 1]), DEFINITION)
    assert find_set(tmp_path, "mine") == second
    before = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    assert save_set(tmp_path, "mine", rows(), DEFINITION, {"origin": "two"}) == first
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == before
    assert find_set(tmp_path, "mine") == first


def test_sets_are_found_by_name_and_by_the_beginning_of_their_hash(tmp_path: Path) -> None:
    one = save_set(tmp_path, "one", rows(), DEFINITION)
    two = save_set(tmp_path, "two", rows(), DEFINITION)
    assert list_sets(tmp_path, "one") == [one]
    assert find_set(tmp_path, "two", two.hash[:5]) == two
    with pytest.raises(NoSavedSetError, match="no training set of one with hash zz"):
        find_set(tmp_path, "one", "zz")
    with pytest.raises(NoSavedSetError, match="no training set of three"):
        find_set(tmp_path, "three")


def test_a_beginning_that_several_hashes_share_is_refused(tmp_path: Path) -> None:
    for share in range(40):
        save_set(tmp_path, "mine", rows(share=[share, 1]), DEFINITION)
    firsts = [saved.hash[0] for saved in list_sets(tmp_path, "mine")]
    common = max(firsts, key=firsts.count)
    with pytest.raises(SavedSetError, match=f"training sets of mine begin with {common}"):
        find_set(tmp_path, "mine", common)


def test_rows_that_were_changed_on_disk_are_refused(tmp_path: Path) -> None:
    saved = save_set(tmp_path, "mine", rows(), DEFINITION)
    rows(share=[1, 2]).to_parquet(saved.path / "rows.parquet")
    with pytest.raises(SavedSetError, match=r"rows\.parquet was changed"):
        read_rows(saved.path)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 64])
def test_a_name_that_is_no_folders_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SavedSetError, match="can't be named"):
        save_set(tmp_path, name, rows(), DEFINITION)


def test_a_column_that_parquet_has_no_type_for_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SavedSetError, match="odd"):
        save_set(tmp_path, "mine", rows(odd=[1, "x"]), DEFINITION)
    assert list_sets(tmp_path) == []


def test_a_set_that_was_half_saved_is_not_listed(tmp_path: Path) -> None:
    save_set(tmp_path, "mine", rows(), DEFINITION)
    (tmp_path / "mine" / ".saving.x").mkdir()
    (tmp_path / "mine" / ".saving.x" / "manifest.json").write_text(json.dumps({}))
    assert len(list_sets(tmp_path)) == 1
