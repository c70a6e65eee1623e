"""Case 31: features that are computed from request data."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.request_features import (
    RequestDataError,
    RequestFeature,
    request_values,
)
from leadml_pipelines.features.view import FeatureDefinitionError


def feature(**more: Any) -> RequestFeature:
    return RequestFeature(
        **{
            "name": "amount_per_member",
            "type": "double",
            "inputs": ("amount", "members"),
            "function": lambda amount, members: amount / members,
            "description": "Requested amount for each member of the household.",
            **more,
        }
    )


DATA = pd.DataFrame({"amount": [10, 9], "members": [4, 2]}, index=[5, 3])


def test_31_a_feature_is_computed_from_columns_of_the_spine_row_by_row() -> None:
    values = request_values(feature(), DATA)
    pd.testing.assert_series_equal(
        values, pd.Series([2.5, 4.5], index=[5, 3], name="amount_per_member")
    )


def test_31_missing_request_data_are_an_error_that_names_feature_column_and_rows() -> None:
    data = DATA.assign(members=pd.array([4, None], dtype="Int64"))
    sentence = "amount_per_member is computed from members, which is missing in 1 of 2 rows"
    with pytest.raises(RequestDataError, match=sentence):
        request_values(feature(), data)


def test_31_a_spine_without_the_column_is_an_error_that_names_it() -> None:
    with pytest.raises(SpineError, match="computed from members, which is no column of the spine"):
        request_values(feature(), DATA[["amount"]])


@pytest.mark.parametrize(
    ("type_", "result", "values", "dtype"),
    [
        ("integer", [1, None], [1, pd.NA], "Int64"),
        ("boolean", [True, None], [True, pd.NA], "boolean"),
        ("category", ["x", None], ["x", None], "object"),
        ("double", 3, [3.0, 3.0], "float64"),
    ],
)
def test_values_take_the_declared_type(
    type_: str, result: Any, values: list[Any], dtype: str
) -> None:
    given = request_values(feature(type=type_, function=lambda amount, members: result), DATA)
    assert (given.tolist(), str(given.dtype)) == (values, dtype)


@pytest.mark.parametrize("result", [["a", "b"], [1.5, 2.5]])
def test_values_that_can_t_take_the_declared_type_are_refused(result: list[Any]) -> None:
    with pytest.raises(RequestDataError, match="amount_per_member is declared integer"):
        request_values(feature(type="integer", function=lambda amount, members: result), DATA)


def test_a_function_must_give_one_value_for_each_row() -> None:
    with pytest.raises(RequestDataError, match="amount_per_member gave 3 values for 2 rows"):
        request_values(feature(function=lambda amount, members: [1, 2, 3]), DATA)


@pytest.mark.parametrize(
    "wrong", [{"name": "No"}, {"type": "text"}, {"inputs": ()}, {"description": " "}]
)
def test_a_declaration_without_name_type_inputs_or_meaning_is_refused(wrong: Any) -> None:
    with pytest.raises(FeatureDefinitionError):
        feature(**wrong)
