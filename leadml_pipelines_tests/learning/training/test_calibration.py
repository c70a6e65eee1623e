from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.learning.training.calibration import (
    Calibration,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    log_loss,
    sigmoid,
)

Vector = np.ndarray


def drawn(n: int, slope: float, level: float, seed: int = 0) -> tuple[Vector, Vector]:
    """Raw scores whose true chance is sigmoid(slope * raw + level), and what happened."""
    random = np.random.default_rng(seed)
    raw = random.normal(0, 2, n)
    return raw, (random.random(n) < sigmoid(slope * raw + level)).astype(float)


def test_platt_finds_the_curve_that_made_the_labels() -> None:
    curve = fit_platt(*drawn(50_000, 0.6, -1.5))
    assert curve.slope == pytest.approx(0.6, abs=0.03)
    assert curve.level == pytest.approx(-1.5, abs=0.05)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_of_those_given_a_chance_that_share_comes_true(kind: str) -> None:
    raw, labels = drawn(40_000, 1.4, 0.7)
    curve, _ = fit_calibration(kind, raw, labels, np.arange(len(raw)))
    fresh, happened = drawn(40_000, 1.4, 0.7, seed=1)
    chances = curve(fresh)
    for low in np.arange(0.0, 1.0, 0.1):
        near = (chances >= low) & (chances < low + 0.1)
        assert happened[near].mean() == pytest.approx(chances[near].mean(), abs=0.03)


def test_isotonic_is_better_where_the_curve_is_no_logistic_one() -> None:
    random = np.random.default_rng(3)
    raw = random.uniform(-3, 3, 20_000)
    labels = (random.random(20_000) < np.where(np.abs(raw) < 1, 0.5, 0.02 + 0.9 * (raw > 0))) * 1.0
    _, seen = fit_calibration("best", raw, labels, np.arange(20_000))
    assert seen["kind"] == "isotonic"
    assert seen["log_loss"]["isotonic"] < seen["log_loss"]["platt"]


def test_platt_is_taken_where_there_is_too_little_for_an_isotonic_curve() -> None:
    raw, labels = drawn(300, 1.0, 0.0)
    _, seen = fit_calibration("best", raw, labels, np.arange(300))
    assert seen["kind"] == "platt"
    assert "300 rows" in seen["reason"]


def test_a_score_that_ranks_the_wrong_way_round_tells_nothing() -> None:
    raw, labels = drawn(5_000, 1.0, -1.0)
    chances = fit_platt(-raw, labels)(raw)
    assert np.ptp(chances) == 0
    assert chances[0] == pytest.approx(labels.mean())


@given(
    st.lists(
        st.tuples(st.floats(-30, 30, width=32), st.booleans()), min_size=2, max_size=80
    ).filter(lambda rows: len({label for _, label in rows}) == 2)
)
def test_a_curve_never_falls_and_stays_strictly_between_0_and_1(
    rows: list[tuple[float, bool]],
) -> None:
    raw = np.array([score for score, _ in rows])
    labels = np.array([float(label) for _, label in rows])
    asked = np.linspace(-40, 40, 201)
    for curve in (fit_platt(raw, labels), fit_isotonic(raw, labels)):
        chances = curve(asked)
        assert (np.diff(chances) >= 0).all()
        assert (chances >= 0).all()
        assert (chances <= 1).all()
        assert np.isfinite(log_loss(labels, curve(raw)))


def test_a_curve_survives_its_arrays() -> None:
    raw, labels = drawn(2_000, 1.0, 0.0)
    for curve in (fit_platt(raw, labels), fit_isotonic(raw, labels), Calibration("none")):
        np.testing.assert_array_equal(Calibration.from_arrays(curve.to_arrays())(raw), curve(raw))
