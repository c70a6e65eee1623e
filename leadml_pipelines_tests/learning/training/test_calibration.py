from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.training.calibration import (
    LINKS,
    Calibration,
    fit_calibration,
    fit_isotonic,
    fit_line,
    fit_platt,
    log_loss,
    shift_to_mean,
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
    raw, labels = drawn(40_000, 1.4, 0.0)
    curve = fit_calibration(kind, raw, labels, np.arange(len(raw)) % 2, np.arange(len(raw)))
    fresh, happened = drawn(40_000, 1.4, 0.0, seed=1)
    chances = curve.calibration(fresh)
    for low in np.arange(0.0, 1.0, 0.1):
        near = (chances >= low) & (chances < low + 0.1)
        assert happened[near].mean() == pytest.approx(chances[near].mean(), abs=0.03)


def test_isotonic_is_taken_where_the_curve_is_no_logistic_one() -> None:
    random = np.random.default_rng(3)
    raw = random.uniform(-3, 3, 20_000)
    labels = (random.random(20_000) < np.where(np.abs(raw) < 1, 0.5, 0.02 + 0.9 * (raw > 0))) * 1.0
    seen = fit_calibration("best", raw, labels, np.arange(20_000) % 2, np.arange(20_000)).record
    assert seen["kind"] == "isotonic"
    assert seen["loss"]["isotonic"] < min(seen["loss"]["platt"], seen["loss"]["none"])


def test_there_is_no_isotonic_curve_of_few_rows() -> None:
    raw, labels = drawn(300, 1.0, 0.0)
    seen = fit_calibration("best", raw, labels, np.arange(300) % 2, np.arange(300)).record
    assert seen["kind"] != "isotonic"
    assert "300 rows" in seen["reason"]


@pytest.mark.parametrize("kind", ["best", "platt", "isotonic", "none"])
def test_the_level_of_the_validation_months_is_not_taken_over(kind: str) -> None:
    raw, labels = drawn(20_000, 1.4, 1.2)
    assert labels.mean() > sigmoid(raw).mean() + 0.1
    found = fit_calibration(kind, raw, labels, np.arange(20_000) % 2, np.arange(20_000))
    assert found.calibration(raw).mean() == pytest.approx(sigmoid(raw).mean(), abs=2e-3)


def test_a_shape_that_holds_in_one_fold_alone_is_not_taken() -> None:
    steep, flat = drawn(10_000, 1.6, 0.0), drawn(10_000, 0.6, 0.0, seed=1)
    raw, labels = np.concatenate([steep[0], flat[0]]), np.concatenate([steep[1], flat[1]])
    folds, groups = np.repeat([0, 1], 10_000), np.arange(20_000)
    assert fit_calibration("best", raw, labels, folds, groups).record["kind"] == "none"
    # The same rows, with both in either fold.
    assert fit_calibration("best", raw, labels, groups % 2, groups).record["kind"] != "none"


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_row_has_no_part_in_its_crossed_chance_but_by_the_level_of_its_fold(kind: str) -> None:
    raw, labels = drawn(4_000, 1.4, 0.0)
    folds = np.arange(4_000) % 2
    other = labels.copy()
    other[folds == 0] = np.random.default_rng(1).permutation(labels[folds == 0])
    one, two = (
        fit_calibration(kind, raw, of, folds, np.arange(4_000)).crossed for of in (labels, other)
    )
    np.testing.assert_allclose(one[folds == 0], two[folds == 0], atol=1e-9)
    assert np.abs(one - two)[folds == 1].max() > 0.1
    assert one[folds == 0].mean() == pytest.approx(labels[folds == 0].mean(), abs=1e-6)


def test_one_fold_alone_is_halved_by_entity() -> None:
    raw, labels = drawn(4_000, 1.4, 0.0)
    groups = np.arange(4_000) // 4
    alone = fit_calibration("best", raw, labels, np.zeros(4_000), groups)
    halved = fit_calibration("best", raw, labels, groups % 2, groups)
    np.testing.assert_array_equal(alone.crossed, halved.crossed)


@pytest.mark.parametrize("kind", ["best", "platt", "isotonic"])
def test_values_come_true_from_the_lowest_tenth_to_the_highest(kind: str) -> None:
    random = np.random.default_rng(2)

    def premiums(n: int) -> tuple[Vector, Vector]:
        """Raw scores that are too much alike; one lead in ten buys, for more or less."""
        truth = random.normal(4, 1.5, n)
        came = (random.random(n) < 0.1) * np.exp(truth + random.normal(0, 0.5, n)) * 10
        return 0.5 * truth + 4.0, came / np.exp(0.125)

    raw, labels = premiums(60_000)
    raw = raw + np.log(labels.mean() / np.exp(raw).mean())
    groups = np.arange(60_000)
    found = fit_calibration(kind, raw, labels, groups % 2, groups, link="log")
    said = found.calibration(raw)
    lowest = np.argsort(raw)[:6_000]
    assert np.exp(raw)[lowest].mean() > 2 * labels[lowest].mean()
    assert said[lowest].mean() == pytest.approx(labels[lowest].mean(), rel=0.35)
    assert said.sum() == pytest.approx(labels.sum(), rel=0.02)


def test_a_single_large_value_makes_no_step_of_its_own() -> None:
    raw = np.linspace(0, 1, 2_000)
    labels = np.ones(2_000)
    labels[-1] = 1_000.0
    curve = fit_isotonic(raw, labels, "log")
    assert curve(raw).max() < 15


@given(
    st.sampled_from(["logit", "log", "identity"]),
    st.lists(st.floats(-20, 20), min_size=1, max_size=50),
    st.floats(0.01, 0.99),
)
def test_a_shift_brings_the_mean_answer_to_what_is_wanted(
    link: str, scores: list[float], mean: float
) -> None:
    raw = np.array(scores)
    moved = raw + shift_to_mean(link, raw, mean)
    found = moved.mean() if link == "identity" else LINKS[link](moved).mean()
    assert found == pytest.approx(mean, abs=1e-6)


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
    halves, rows_apart = np.arange(len(raw)) % 2, np.arange(len(raw))
    kept = [
        fit_calibration(kind, raw, labels, halves, rows_apart).calibration
        for kind in ("platt", "isotonic")
    ]
    for curve in (fit_platt(raw, labels), fit_isotonic(raw, labels), *kept):
        chances = curve(asked)
        assert (np.diff(chances) >= 0).all()
        assert (chances >= 0).all()
        assert (chances <= 1).all()
        assert np.isfinite(log_loss(labels, curve(raw)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-8, 8), st.floats(0, 1e4)), min_size=4, max_size=60).filter(
        lambda rows: sum(value for _, value in rows) > 1
    ),
    st.sampled_from(["log", "identity"]),
)
def test_a_curve_of_values_never_falls_and_is_never_less_than_nothing(
    rows: list[tuple[float, float]], link: str
) -> None:
    raw = np.array([score for score, _ in rows])
    labels = np.array([value for _, value in rows])
    halves = np.arange(len(raw)) % 2
    for kind in ("platt", "isotonic"):
        curve = fit_calibration(kind, raw, labels, halves, halves, link=link).calibration
        values = curve(np.linspace(-10, 10, 101))
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (np.diff(values) >= 0).all()


def test_a_curve_survives_its_arrays() -> None:
    raw, labels = drawn(2_000, 1.0, 0.0)
    curves = (fit_platt(raw, labels), fit_isotonic(raw, labels), Calibration("none"))
    for curve in (*curves, fit_line(raw, labels, "log"), fit_isotonic(raw, labels, "log")):
        np.testing.assert_array_equal(Calibration.from_arrays(curve.to_arrays())(raw), curve(raw))
