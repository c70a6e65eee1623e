"""A saved training set is built again to the same hash, or it is said what changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.saved_sets import NoSavedSetError, SavedSetError, save_set
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.features.store import RebuildError
from leadml_pipelines.times import to_micros
from leadml_pipelines_tests.features.stores import ALL, BOUND, DAY, VIEWS, Told, lead
from leadml_pipelines_tests.features.world import NOW, random_world, spine


def test_34_a_saved_set_is_listed_read_back_and_built_again_to_the_same_hash(
    open_store: Any,
) -> None:
    opened = open_store(random_world(8))
    frame = spine(*((f"lead_{k}", NOW - k * DAY) for k in range(8)), (None, NOW)).assign(
        mine=pd.array([1] * 8 + [None], dtype="Int64"), words=[["x"]] * 9
    )
    frame.index = pd.Index([*"abcdefgh", "a"])
    built = opened.training_set(frame, ALL, "mine")
    saved = opened.save("mine", built)
    assert opened.saved("mine") == [saved]
    assert (saved.rows, saved.facts["origin"]) == (9, "20260412")
    assert saved.facts["data_end"] == to_micros(NOW)
    back = opened.load("mine")
    pd.testing.assert_frame_equal(back[ALL], built.frame[ALL], check_dtype=False, check_exact=True)
    assert opened.save("mine", opened.rebuild(saved)).hash == saved.hash
    assert len(opened.saved()) == 1


def test_34_a_set_with_a_label_in_sql_is_built_again_too(open_store: Any) -> None:
    opened = open_store(lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY))
    saved = opened.save("sql", opened.training_set(spine(("a", NOW - 8 * DAY)), ["age"], BOUND))
    assert opened.save("sql", opened.rebuild(saved)).hash == saved.hash


@pytest.mark.parametrize("source", ["events", "snapshots"])
def test_34_a_label_that_was_unknown_stays_so_when_the_data_have_moved_on(
    open_store: Any, no_snapshots: str, source: str
) -> None:
    world = random_world(9)
    frame = spine(*((row["lead_id"], NOW) for row in world.tables["leads"]))
    for view in VIEWS:
        computed = open_store(world).engine.compute([view], frame)
        write_view_snapshot(no_snapshots, view, computed, NOW)
    assert check_snapshot(no_snapshots, catalogue(), "lead", NOW).sound
    then = open_store(world, postgres_url=no_snapshots)
    rows = spine(("lead_1", NOW - 8 * DAY), ("lead_1", NOW - 2 * DAY))
    built = then.training_set(rows, ["age"], BOUND, source=source)
    assert np.isnan(built.y).tolist() == [False, True]
    saved = then.save("moved", built)
    later = Told("20260421", NOW + 9 * DAY, NOW + 9 * DAY)
    now = open_store(world, extract=later, postgres_url=no_snapshots)
    assert now.training_set(rows, ["age"], BOUND, source=source).y.notna().all()
    again = now.rebuild(saved)
    assert now.save("moved", again).hash == saved.hash
    assert again.facts["data_end"] == saved.facts["data_end"] == to_micros(NOW)


def test_34_an_outcome_that_came_late_changes_a_label_in_sql_and_is_noticed(
    open_store: Any,
) -> None:
    first = open_store(lead())
    saved = first.save("late", first.training_set(spine(("a", NOW - 8 * DAY)), ["age"], BOUND))
    late = open_store(lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY))
    with pytest.raises(RebuildError, match=r"came out differently.*: in bound_7d$"):
        late.rebuild(saved)


ELSEWHERE = """
import sys
from pathlib import Path

from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.store import FeatureStore
from leadml_pipelines_tests.features.stores import ALL, Told
from leadml_pipelines_tests.features.world import NOW, spine

tables = {path.stem: path for path in Path(sys.argv[1]).glob("*.parquet")}
with (
    DuckDBEngine(tables, threads=1) as engine,
    FeatureStore(engine=engine, extract=Told(), root=Path(sys.argv[2])) as store,
):
    for saved in store.saved("mine"):
        store.rebuild(saved)
    print(store.save("mine", store.training_set(spine(("lead_1", NOW)), ALL)).hash)
"""


def test_34_a_set_is_built_again_to_the_same_hash_in_another_process(tmp_path: Path) -> None:
    """In each the hashes of texts, and so the order of sets, are other ones."""
    random_world(8).parquet(tmp_path / "world")
    hashes = {
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, tmp_path / "world", tmp_path / "sets"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_34_other_data_are_noticed_when_a_set_is_built_again(open_store: Any) -> None:
    frame = spine(("a", NOW))
    first = open_store(lead(DAY))
    saved = first.save("mine", first.training_set(frame, ["inbound_count_7d", "source"]))
    # What comes in late is not seen: the set stays what it was.
    late = open_store(lead(DAY).event("a", NOW - DAY, ingested_at=NOW + DAY))
    assert late.save("mine", late.rebuild(saved)).hash == saved.hash
    rewritten = open_store(lead(DAY, 2 * DAY))
    with pytest.raises(RebuildError, match=r"came out differently.*: in inbound_count_7d$"):
        rewritten.rebuild(saved)


def test_34_another_definition_of_a_view_is_noticed_when_a_set_is_built_again(
    open_store: Any,
) -> None:
    opened = open_store(lead(DAY))
    saved = opened.save("mine", opened.training_set(spine(("a", NOW)), ["source"]))
    # As if the view's SQL had been another when the set was saved.
    definition = {**saved.definition, "views": dict.fromkeys(saved.definition["views"], "other")}
    changed = save_set(opened.root, "mine", opened.load("mine"), definition)
    with pytest.raises(RebuildError, match="can't be built again: profile changed since"):
        opened.rebuild(changed)


def test_34_sets_that_are_not_the_stores_or_not_there_are_errors(
    open_store: Any, tmp_path: Path
) -> None:
    opened = open_store(lead())
    with pytest.raises(NoSavedSetError, match="no training set of nothing"):
        opened.load("nothing")
    foreign = save_set(tmp_path / "other", "model", spine(("a", NOW)), {"spec": "x"})
    with pytest.raises(SavedSetError, match="model was not saved by the feature store"):
        opened.rebuild(foreign)
