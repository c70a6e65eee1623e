from __future__ import annotations

import numpy as np

from leadml_pipelines.learning.evaluation.calibration_check import error_by_chance, reliability
from leadml_pipelines.learning.evaluation.weighted import Scored


def _sound(seed: int, leads: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Perfectly calibrated chances of leads whose rows all come true together."""
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.random(leads), each)
    labels = (np.repeat(rng.random(leads), each) < values).astype(float)
    return labels, values, np.repeat(np.arange(leads), each)


def test_sound_chances_stay_under_the_limit_about_as_often_as_it_says() -> None:
    under = 0
    for seed in range(60):
        labels, values, leads = _sound(seed, 200, 3)
        error = Scored("classification", labels, values, 0.5).plain()["ece"]
        under += error <= error_by_chance(labels, values, leads, seed=1)
    # Seeds are fixed, so this is one number; 95 of 100 were promised.
    assert 0.85 <= under / 60 <= 1


def test_chances_that_are_off_by_a_tenth_are_over_it() -> None:
    labels, values, leads = _sound(1, 2_000, 1)
    off = np.clip(values * 0.7, 0, 1)
    error = Scored("classification", labels, off, 0.5).plain()["ece"]
    assert error > 1.5 * error_by_chance(labels, off, leads, seed=1)


def test_fewer_leads_leave_more_to_chance() -> None:
    few, many = (error_by_chance(*_sound(2, leads, 1), seed=1) for leads in (100, 5_000))
    assert few > 3 * many


def test_rows_of_one_lead_are_not_taken_for_many() -> None:
    labels, values, leads = _sound(3, 150, 6)
    alone = error_by_chance(labels, values, np.arange(len(labels)), seed=1)
    assert error_by_chance(labels, values, leads, seed=1) > 1.5 * alone


def test_the_bins_of_the_picture_hold_all_rows_in_order_with_their_intervals() -> None:
    labels, values, leads = _sound(4, 1_000, 1)
    bins = reliability(labels, values, leads)
    assert sum(one["rows"] for one in bins) == 1_000
    assert [one["predicted"] for one in bins] == sorted(one["predicted"] for one in bins)
    inside = [one["low"] <= one["predicted"] <= one["high"] for one in bins]
    assert sum(inside) >= 8
