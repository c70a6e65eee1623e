"""Who is in which group, and what each is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leadml_pipelines.learning.encoding import Column, Encoder
from leadml_pipelines.learning.groups import Groups, Measure

ENCODER = Encoder(
    (Column("age", "double"), Column("stage", "category")),
    {"stage": ("closed", "customer", "open")},
)
OLD: dict[str, Any] = {"threshold": 0.4, "risk_levels": [0.2, 0.5, 0.8]}
NEW: dict[str, Any] = {
    **OLD,
    "group_by": "stage",
    "groups": [{"word": "customer", "threshold": 0.1, "risk_levels": None}],
}
ROWS = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, np.nan], [1.0, 7.0]])


def test_each_row_has_the_measure_of_its_group_and_all_others_the_models() -> None:
    groups = Groups(NEW, ENCODER)
    codes = groups.codes(ROWS)
    assert [groups.measures[code].word for code in codes] == [None, "customer", None, None, None]
    assert groups.thresholds(codes).tolist() == [0.4, 0.1, 0.4, 0.4, 0.4]
    assert groups.measures[0] == Measure("customer", 0.1, None)
    assert groups.measures[-1] == Measure(None, 0.4, (0.2, 0.5, 0.8))


def test_a_manifest_from_before_there_were_groups_has_one_measure() -> None:
    groups = Groups(OLD, ENCODER)
    assert groups.thresholds(groups.codes(ROWS)).tolist() == [0.4] * 5
    assert len(groups.measures) == 1


def test_a_word_that_training_never_saw_is_in_nobodys_rows() -> None:
    manifest = {**NEW, "groups": [{"word": "lapsed", "threshold": 0.1, "risk_levels": None}]}
    assert Groups(manifest, ENCODER).codes(ROWS).tolist() == [-1] * 5


def test_groups_by_what_is_no_category_are_refused() -> None:
    with pytest.raises(ValueError, match="groups by age, which is no category"):
        Groups({**NEW, "group_by": "age"}, ENCODER)
