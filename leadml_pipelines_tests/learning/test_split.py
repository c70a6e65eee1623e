from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import TooLittleDataError, TrainTest, folds, train_test
from leadml_pipelines_tests.learning.frames import DAY, START, rows_frame, spec_for

DAYS = 200


def _split(spec: ModelSpec, frame: pd.DataFrame, days: int = DAYS) -> TrainTest:
    return train_test(spec, frame, data_start=START, data_end=START + days * DAY)


@settings(max_examples=12, deadline=None)
@given(
    horizon=st.integers(1, 60),
    share=st.sampled_from([0.1, 0.2, 0.3]),
    by=st.sampled_from(["lead", "row"]),
)
def test_every_training_label_was_known_before_the_test_period(
    horizon: int, share: float, by: str
) -> None:
    spec = spec_for(horizon=horizon * DAY, test_share=share, split_by=by)
    frame = rows_frame()
    split = _split(spec, frame)
    until = frame["as_of"].iloc[split.train] + pd.Timedelta(spec.horizon)
    assert (until <= split.test_start).all()
    assert (frame["as_of"].iloc[split.test] >= split.test_start).all()
    assert len(split.train) + len(split.test) + split.gap_rows == len(frame)


def test_split_by_lead_tests_on_the_newest_fifth_of_the_leads() -> None:
    frame = rows_frame()
    split = _split(spec_for(), frame)
    tested = frame.iloc[split.test]
    others = frame[~frame["entity_id"].isin(tested["entity_id"])]
    assert tested["entity_id"].nunique() == pytest.approx(0.2 * 600, abs=2)
    assert others["created_at"].max() < tested["created_at"].min()


def test_split_by_lead_puts_no_lead_on_both_sides() -> None:
    frame = rows_frame()
    split = _split(spec_for(), frame)
    sides = [set(frame["entity_id"].iloc[rows]) for rows in (split.train, split.test)]
    assert not sides[0] & sides[1]


def test_split_by_row_tests_on_the_newest_fifth_of_the_rows() -> None:
    frame = rows_frame()
    split = _split(spec_for(split_by="row"), frame)
    assert len(split.test) == pytest.approx(0.2 * len(frame), abs=2)


@pytest.mark.parametrize("by", ["lead", "row"])
def test_folds_have_the_gap_and_share_no_lead(by: str) -> None:
    frame = rows_frame(1_500, days=400)
    spec = spec_for(split_by=by, folds=3)
    split = _split(spec, frame, 400)
    found = folds(spec, frame, split.train)
    assert len(found) == 3
    for fold in found:
        valid, fit = frame.iloc[fold.valid], frame.iloc[fold.train]
        start = (valid["created_at"] if by == "lead" else valid["as_of"]).min()
        assert (fit["as_of"] + pd.Timedelta(spec.horizon) <= start).all()
        assert not set(valid["entity_id"]) & set(fit["entity_id"])


def test_folds_stay_inside_the_training_part_and_go_forward_in_time() -> None:
    frame = rows_frame(1_500, days=400)
    spec = spec_for(folds=3)
    split = _split(spec, frame, 400)
    found = folds(spec, frame, split.train)
    for fold in found:
        assert np.isin(fold.train, split.train).all()
        assert np.isin(fold.valid, split.train).all()
    starts = [frame["created_at"].iloc[fold.valid].min() for fold in found]
    assert starts == sorted(starts)


def test_a_fold_too_short_for_the_gap_is_left_out() -> None:
    frame = rows_frame()
    spec = spec_for(horizon=60 * DAY, folds=2)
    split = _split(spec, frame)
    assert len(folds(spec, frame, split.train)) < 2


def test_data_too_short_for_the_horizon_is_refused_with_its_length_and_the_setting() -> None:
    frame = rows_frame(days=40)
    spec = spec_for(horizon=30 * DAY)
    with pytest.raises(TooLittleDataError) as error:
        _split(spec, frame, 40)
    message = str(error.value)
    assert "toy: the training part has" in message
    assert "40 days long (2024-01-01 to 2024-02-10)" in message
    assert "a horizon of 30d needs more than 68 days" in message
    assert '[models.toy] horizon = "13d"' in message


def test_the_horizon_that_the_message_suggests_works() -> None:
    frame = rows_frame(days=40)
    _split(spec_for(horizon=timedelta(days=13)), frame, 40)


def test_no_known_label_at_all_is_told_the_same_way() -> None:
    frame = rows_frame().iloc[:0]
    with pytest.raises(TooLittleDataError, match=r"no row has a known label.*models\.toy"):
        _split(spec_for(horizon=150 * DAY), frame)


def test_a_test_part_of_one_class_is_refused() -> None:
    frame = rows_frame()
    frame.loc[frame["created_at"] > START + 150 * DAY, "label"] = 0.0
    with pytest.raises(TooLittleDataError, match="test part has 0 positive labels"):
        _split(spec_for(), frame)


def test_a_regression_whose_labels_are_all_equal_is_refused() -> None:
    frame = rows_frame(objective="regression")
    frame["label"] = 0.0
    with pytest.raises(TooLittleDataError, match="labels are all 0"):
        _split(spec_for("regression"), frame)
