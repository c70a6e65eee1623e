from __future__ import annotations

import numpy as np
import pandas as pd

from leadml_pipelines.learning.evaluation.intervals import draw
from leadml_pipelines.learning.evaluation.slices import (
    LEAST_LEADS,
    Slice,
    measure_slices,
    slices_document,
)
from leadml_pipelines_tests.learning.frames import spec_for


def _frame(words: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"entity_id": [f"lead_{at}" for at in range(len(words))], "state": words})


def _slices(
    frame: pd.DataFrame, labels: np.ndarray, values: np.ndarray, rule: np.ndarray | None = None
) -> tuple[Slice, ...]:
    draws = draw(frame["entity_id"].to_numpy(), seed=1, resamples=100)
    constant = np.full(len(frame), 0.5)
    rule = constant if rule is None else rule
    return measure_slices(spec_for(), frame, labels, values, draws, threshold=0.5, rule=rule)


def test_the_slice_where_the_model_guesses_is_the_worst() -> None:
    rng = np.random.default_rng(1)
    frame = _frame(["TX"] * 300 + ["NY"] * 300)
    labels = (rng.random(600) < 0.5).astype(float)
    values = np.where(frame["state"] == "NY", labels + rng.normal(0, 0.5, 600), rng.random(600))
    found = _slices(frame, labels, values)
    assert [one.word for one in found] == ["TX", "NY"]
    assert found[0].low < 0.5 < found[0].high
    assert found[0].rows == 300
    assert found[0].positives == int(labels[:300].sum())


def test_a_slice_with_too_few_leads_of_a_class_is_not_measured() -> None:
    words = ["small"] * (2 * LEAST_LEADS - 1) + ["large"] * (2 * LEAST_LEADS)
    labels = np.arange(len(words)) % 2.0
    found = _slices(_frame(words), labels, np.linspace(0, 1, len(words)))
    assert [one.word for one in found] == ["large"]


def test_many_rows_of_few_leads_are_few() -> None:
    frame = _frame(["TX"] * 400).assign(entity_id=[f"lead_{at % 20}" for at in range(400)])
    labels = np.arange(400) % 2.0
    assert _slices(frame, labels, np.linspace(0, 1, 400)) == ()


def test_rows_without_a_word_and_columns_that_are_not_there_are_no_slice() -> None:
    frame = _frame([None] * 200)
    assert _slices(frame, np.arange(200) % 2.0, np.linspace(0, 1, 200)) == ()


def test_a_small_noisy_slice_is_not_the_worst() -> None:
    noisy = Slice("state", "AK", 60, 30, 0.60, 0.45, 0.75)
    surely = Slice("state", "TX", 900, 300, 0.62, 0.60, 0.64)
    assert surely.better_end(True) < noisy.better_end(True)


def test_a_slice_says_how_far_the_model_is_ahead_of_the_rule() -> None:
    rng = np.random.default_rng(1)
    frame = _frame(["TX"] * 300 + ["NY"] * 300)
    labels = (rng.random(600) < 0.5).astype(float)
    good, guess = labels + rng.normal(0, 0.5, 600), rng.random(600)
    in_texas = (frame["state"] == "TX").to_numpy()
    found = _slices(frame, labels, np.where(in_texas, guess, good), np.where(in_texas, good, guess))
    texas, new_york = sorted(found, key=lambda one: one.word, reverse=True)
    assert texas.ahead is not None
    assert texas.ahead["low"] < texas.ahead["value"] < texas.ahead["high"] < -0.2
    assert texas.surely_behind(True, looked_at=2)
    assert new_york.ahead is not None
    assert new_york.ahead["low"] > 0.2
    assert not new_york.surely_behind(True, looked_at=2)
    # Of a loss the greater one is the worse.
    assert new_york.surely_behind(False, looked_at=2)


def test_behind_the_rule_within_noise_is_not_surely_behind() -> None:
    ahead = {"value": -0.05, "low": -0.10, "high": -0.001}
    one = Slice("lead_age", "up to 6 hours", 900, 90, 0.6, 0.5, 0.7, ahead)
    assert one.surely_behind(True, looked_at=1)
    assert not one.surely_behind(True, looked_at=20)


def test_the_age_of_the_lead_is_a_slice_wherever_the_rows_tell_it() -> None:
    labels = np.arange(240) % 2.0
    frame = _frame([None] * 240).assign(created_at=pd.Timestamp("2026-03-01", tz="UTC"))
    assert _slices(frame, labels, labels) == ()
    hours = pd.to_timedelta([1] * 120 + [72] * 120, unit="h")
    found = _slices(frame.assign(as_of=frame["created_at"] + hours), labels, labels)
    assert {(one.column, one.word, one.rows) for one in found} == {
        ("lead_age", "up to 6 hours", 120),
        ("lead_age", "2 to 7 days", 120),
    }


def test_slices_are_written_by_column_and_word() -> None:
    one = Slice("state", "TX", 100, 40, 0.7, 0.6, 0.8)
    facts = {"rows": 100, "positives": 40, "value": 0.7, "low": 0.6, "high": 0.8, "ahead": None}
    assert slices_document((one,)) == {"state": {"TX": facts}}
