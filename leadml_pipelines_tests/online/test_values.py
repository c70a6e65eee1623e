"""Numbers of plain rows are those of frames: what is computed alone is what the night publishes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.features.view import Feature
from leadml_pipelines.online.values import check, check_rows, schema_for, schema_for_rows

FEATURES = [
    Feature("rate", "double", "share", 0, 1, None, "A share.", "fit"),
    Feature("amount", "double", "", None, None, None, "A number.", "fit"),
    Feature("events", "integer", "events", 0, 50, None, "A count.", "fit"),
    Feature("known", "boolean", "", None, None, None, "A flag.", "fit"),
    Feature("word", "category", "", None, None, None, "A word.", "fit"),
]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**54).filter(lambda n: abs(n) != 2**53 + 1),
    st.floats(),
    st.floats(-1, 2),
    st.integers(-2, 60),
    st.sampled_from(["a", "b", "", "1"]),
    st.binary(max_size=2),
)
ROWS = st.lists(st.tuples(*[ANYTHING] * len(FEATURES)), min_size=1, max_size=6)


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            feature.name: pd.Series(list(column), dtype=object)
            for feature, column in zip(FEATURES, columns, strict=True)
        }
    )


@given(ROWS)
def test_rows_and_frames_give_the_same_numbers_and_hold_the_same_back(
    rows: list[tuple[Any, ...]],
) -> None:
    frame = _frame(rows)
    schema = schema_for("lead", FEATURES, frame)
    assert schema_for_rows("lead", FEATURES, rows) == schema
    wanted, got = check(schema, FEATURES, frame), check_rows(schema, FEATURES, rows)
    assert got.values.tobytes() == wanted.values.tobytes() or (
        np.array_equal(got.values, wanted.values, equal_nan=True)
        and np.array_equal(np.signbit(got.values), np.signbit(wanted.values))
    )
    assert got.held_back == wanted.held_back


def test_no_number_is_missing_whatever_the_type_of_the_feature() -> None:
    rows = [(math.nan, -math.nan, math.nan, math.nan, math.nan)]
    checked = check_rows(schema_for_rows("lead", FEATURES, rows), FEATURES, rows)
    assert checked.held_back == {}
    assert checked.values.tobytes() == np.full((1, 5), np.nan).tobytes()


def test_a_schema_that_knows_all_words_is_kept_as_it_is() -> None:
    first = schema_for_rows("lead", FEATURES, [(0.5, 1.0, 1, True, "b"), (0.5, 1.0, 1, True, "a")])
    assert schema_for_rows("lead", FEATURES, [(None, None, None, None, "a")], first) is first
    grown = schema_for_rows("lead", FEATURES, [(None, None, None, None, "0")], first)
    assert grown.fields[4].vocabulary == ("a", "b", "0")


def test_a_schema_of_other_features_is_not_kept() -> None:
    first = schema_for_rows("lead", FEATURES[:4], [])
    grown = schema_for_rows("lead", FEATURES, [(None, None, None, None, None)], first)
    assert grown.names == tuple(feature.name for feature in FEATURES)


def test_a_whole_number_too_large_for_a_float_is_out_of_range() -> None:
    schema = schema_for_rows("lead", FEATURES, [])
    checked = check_rows(schema, FEATURES, [(None, 10**400, None, None, None)])
    assert np.isnan(checked.values).all()
    assert checked.held_back == {("amount", "out of range"): 1}
