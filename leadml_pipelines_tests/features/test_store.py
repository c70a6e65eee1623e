"""The feature store as a data scientist uses it.

The cases of a point-in-time join are in `test_point_in_time.py` (over histories) and
`test_training_set.py` (over raw events); here are those that lie with the store: which features,
from where, for whom. What comes from snapshots is in `test_store_snapshots.py`, what is saved in
`test_rebuild.py`. Case 32 is here for entity types.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.histories import HistoryError
from leadml_pipelines.features.labels import LabelError
from leadml_pipelines.features.request_features import RequestDataError
from leadml_pipelines.features.training_set import training_set
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.stores import ALL, BOUND, DAY, VIEWS, Told, lead, per_day
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, random_world, spine


def test_only_the_features_asked_for_come_out_in_the_order_asked_for(open_store: Any) -> None:
    built = open_store(lead(DAY)).training_set(spine(("a", NOW)), ["source", "inbound_count_7d"])
    assert list(built.frame.columns) == ["entity_id", "as_of", "source", "inbound_count_7d"]
    assert built.x.to_numpy().tolist() == [["web", 1]]


def test_values_from_events_are_those_of_all_views_computed_at_once(
    open_store: Any, bulk: Bulk
) -> None:
    world = random_world(3)
    frame = spine(
        *((f"lead_{k}", NOW - d * DAY) for k in range(6) for d in (0, 3)), ("nobody", NOW)
    )
    frame.index = pd.Index(range(len(frame)))[::-1]
    built = open_store(world).training_set(frame, ALL).frame
    pd.testing.assert_frame_equal(built, training_set(frame, VIEWS, bulk(world)))


def test_28_a_column_named_like_a_feature_is_an_error_only_if_that_feature_is_asked_for(
    open_store: Any,
) -> None:
    frame = spine(("a", NOW)).assign(source="mine")
    opened = open_store(lead())
    with pytest.raises(SpineError, match="column named source, as a feature is"):
        opened.training_set(frame, ["source"])
    assert opened.training_set(frame, ["age"]).frame["source"].tolist() == ["mine"]


def test_22_features_of_several_entity_types_are_joined_each_by_its_own_key(
    open_store: Any,
) -> None:
    world = lead(DAY).add("agents", agent_id="x", capacity=3)
    frame = spine(("a", NOW), ("a", NOW)).assign(agent_id=["x", "unknown"])
    opened = open_store(world)
    built = opened.training_set(
        frame, ["capacity", "inbound_count_7d"], keys={"lead": "entity_id", "agent": "agent_id"}
    )
    assert built.x.to_numpy().tolist() == [[3, 1], [pd.NA, 1]]
    with pytest.raises(SpineError, match=r"several entity types.*'agent'"):
        opened.training_set(frame, ["capacity", "inbound_count_7d"])
    with pytest.raises(SpineError, match="features of agent, and keys names no column"):
        opened.training_set(frame, ["capacity"], keys={"lead": "entity_id"})


def test_24_one_entity_type_in_two_roles_gets_the_values_of_each(open_store: Any) -> None:
    world = lead(DAY).lead("b", NOW - 9 * DAY)
    frame = pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"], "as_of": [NOW, NOW]})
    opened = open_store(world)
    for role in ("from", "to"):
        frame = opened.training_set(
            frame, ["inbound_count_7d"], keys={"lead": role}, prefix=f"{role}_"
        ).frame
    assert frame["from_inbound_count_7d"].tolist() == [1, 0]
    assert frame["to_inbound_count_7d"].tolist() == [0, 1]


def test_30_a_spine_of_sql_equals_the_same_spine_as_a_frame(open_store: Any) -> None:
    opened = open_store(random_world(4))
    sql = "SELECT lead_id AS entity_id, created_at + INTERVAL 1 DAY AS as_of FROM leads ORDER BY 1"
    names = ["inbound_count_7d", "source"]
    told = {"extract": Told(as_of=NOW + 999 * DAY)}
    opened = open_store(random_world(4), **told)
    frame = opened.engine.sql(sql)
    assert len(frame) > 3
    pd.testing.assert_frame_equal(
        opened.training_set(sql, names).frame, opened.training_set(frame, names).frame
    )


@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
def test_35_in_chunks_equals_at_once(open_store: Any, chunk_rows: int) -> None:
    opened = open_store(random_world(6))
    frame = spine(*((f"lead_{k}", NOW - k * DAY) for k in range(9)))
    names = [name for name in ALL if name in ("inbound_count_30d", "stage", "quality_score")]
    pd.testing.assert_frame_equal(
        opened.training_set(frame, names, chunk_rows=chunk_rows).frame,
        opened.training_set(frame, names).frame,
    )


@pytest.mark.parametrize("source", ["events", "snapshots"])
@pytest.mark.parametrize("chunk_rows", [0, -3])
def test_35_a_chunk_without_a_row_is_refused(open_store: Any, source: str, chunk_rows: int) -> None:
    with pytest.raises(SpineError, match=f"chunk_rows is {chunk_rows}; a chunk has at least one"):
        open_store(lead()).training_set(
            spine(("a", NOW)), ["source"], source=source, chunk_rows=chunk_rows
        )


def test_36_an_arrow_spine_gives_arrow_with_the_same_values_as_a_frame(open_store: Any) -> None:
    opened = open_store(random_world(6))
    frame = spine(*((f"lead_{k}", NOW) for k in range(5)), (None, NOW)).assign(label=1)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    built = opened.training_set(table, ALL).frame
    assert isinstance(built, pa.Table)
    expected = opened.training_set(frame, ALL).x
    for name in ALL:
        given = [None if pd.isna(v) else v for v in built[name].to_pylist()]
        assert given == [None if pd.isna(v) else v for v in expected[name]], name


def test_17_an_empty_spine_works(open_store: Any) -> None:
    empty = pd.DataFrame({"entity_id": [], "as_of": []})
    built = open_store(lead()).training_set(empty, ["source", "inbound_count_7d"]).frame
    assert (len(built), list(built.columns)[2:]) == (0, ["source", "inbound_count_7d"])


def test_18_a_naive_time_is_refused_by_name(open_store: Any) -> None:
    frame = pd.DataFrame({"entity_id": ["a"], "when": [datetime(2026, 1, 1)]})
    with pytest.raises(NaiveTimeError, match="when"):
        open_store(lead()).training_set(frame, ["source"], time="when")


def test_a_row_after_all_that_the_extract_tells_is_refused(open_store: Any) -> None:
    frame = spine(("a", NOW), ("a", NOW + MICROSECOND))
    with pytest.raises(SpineError, match="1 of 2 rows of the spine lie after 2026-04-12"):
        open_store(lead()).training_set(frame, ["source"])


def test_31_features_from_request_data_stand_beside_stored_ones(open_store: Any) -> None:
    frame = spine(("a", NOW)).assign(amount=[30])
    opened = open_store(lead(DAY), request_features=[per_day(10)])
    for wanted in ("amount_per_day", per_day(10)):
        built = opened.training_set(frame, [wanted, "source"])
        assert built.x.to_numpy().tolist() == [[3.0, "web"]]
    with pytest.raises(RequestDataError, match="amount_per_day is computed from amount, which is"):
        opened.training_set(frame.assign(amount=None), ["amount_per_day"])


def test_32_without_a_spine_all_entities_that_existed_at_each_moment_are_there(
    open_store: Any,
) -> None:
    world = lead().lead("b", NOW - DAY).lead("c", NOW + MICROSECOND)
    opened = open_store(world)
    pd.testing.assert_frame_equal(
        opened.entities_between(NOW - DAY, NOW), spine(("a", NOW), ("b", NOW))
    )
    twice = opened.entities_between(NOW - 3 * DAY, NOW, every=1.5 * DAY)
    pd.testing.assert_frame_equal(twice, spine(("a", NOW - 1.5 * DAY), ("a", NOW), ("b", NOW)))
    assert len(opened.training_set(twice, ["source"]).frame) == 3
    with pytest.raises(HistoryError, match="the end must come after the start"):
        opened.entities_between(NOW, NOW)


def test_a_label_is_a_column_of_the_spine_or_answered_by_sql(open_store: Any) -> None:
    world = lead().add("policies", lead_id="a", bound_at=NOW - 2 * DAY)
    opened = open_store(world)
    frame = spine(("a", NOW - 8 * DAY), ("a", NOW - 9.5 * DAY), ("a", NOW - 2 * DAY)).assign(
        mine=[1, 2, 3]
    )
    assert opened.training_set(frame, ["source"], "mine").y.tolist() == [1, 2, 3]
    answered = opened.training_set(frame, ["source"], BOUND)
    assert np.array_equal(answered.y, [1.0, 0.0, np.nan], equal_nan=True)
    with pytest.raises(SpineError, match="exactly one column yours"):
        opened.training_set(frame, ["source"], "yours")
    with pytest.raises(SpineError, match="has no label"):
        _ = opened.training_set(frame, ["source"]).y
    with pytest.raises(LabelError, match="bound_7d answered 0 rows for 2 moments"):
        opened.training_set(frame, ["source"], replace(BOUND, sql=BOUND.sql + " HAVING false"))
