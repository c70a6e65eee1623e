from __future__ import annotations

import numpy as np
import pytest

from leadml_pipelines.learning.evaluation.intervals import Measured, draw, interval, measure, ratio
from leadml_pipelines.learning.evaluation.weighted import Scored


def _scored(seed: int, leads: int, each: int) -> tuple[Scored, np.ndarray]:
    """Rows of leads that come true together: `each` copies of one label and nearly one value."""
    rng = np.random.default_rng(seed)
    labels = np.repeat((rng.random(leads) < 0.5).astype(float), each)
    values = np.repeat(rng.normal(labels[::each], 1.0), each) + rng.normal(0, 0.01, leads * each)
    return Scored("regression", labels, values, 0.5), np.repeat(np.arange(leads), each)


def test_a_resample_draws_leads_with_all_of_their_rows() -> None:
    draws = draw(["a", "a", "b", "c", "a"], seed=1, resamples=20)
    for weights in draws.blocks():
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 0] == weights[:, 4]).all()
        assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()


def test_one_seed_gives_the_same_interval_and_another_one_nearly_the_same() -> None:
    scored, leads = _scored(3, 200, 1)
    first, again, other = (
        measure(scored, draw(leads, seed=seed, resamples=200), ["mae"]).intervals()["mae"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first["low"] == pytest.approx(other["low"], abs=0.1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth, held = 1.0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = rng.exponential(truth, 150)
        scored = Scored("regression", labels, np.zeros(150), 0.5)
        found = measure(scored, draw(range(150), seed=seed, resamples=200), ["mae"]).intervals()
        held += found["mae"]["low"] <= truth <= found["mae"]["high"]
    # Seeds are fixed, so this is one number: near 95 %, a little below for a skewed mean.
    assert 0.89 <= held / 200 <= 0.98


def test_more_rows_of_the_same_leads_do_not_make_an_interval_narrower() -> None:
    widths = []
    for each in (1, 8):
        scored, leads = _scored(5, 150, each)
        draws = draw([f"lead_{lead}" for lead in leads], seed=1, resamples=300)
        found = measure(scored, draws, ["spearman"]).intervals()["spearman"]
        widths.append(found["high"] - found["low"])
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_a_difference_on_the_same_resamples_is_much_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(8)
    labels = rng.exponential(1, 400)
    draws = draw(range(400), seed=1, resamples=300)
    near, far = (
        measure(Scored("regression", labels, np.full(400, value), 0.5), draws, ["mae"])
        for value in (0.7, 1.2)
    )
    gap = near.minus(far)["mae"]
    alone = near.intervals()["mae"]
    assert gap["value"] == pytest.approx(near.point["mae"] - far.point["mae"])
    assert gap["high"] < 0
    assert gap["high"] - gap["low"] < alone["high"] - alone["low"]


def test_a_model_against_itself_differs_by_nothing() -> None:
    scored, leads = _scored(1, 60, 2)
    found = measure(scored, draw(leads, seed=1, resamples=50))
    for gap in found.minus(found).values():
        assert gap == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_metric_that_most_resamples_leave_undefined_has_no_interval() -> None:
    assert interval("roc_auc", 0.7, np.array([0.7, np.nan, np.nan])) is None
    found = Measured({"roc_auc": 0.7}, {"roc_auc": np.full(9, np.nan)})
    assert found.intervals() == {}


def test_the_interval_of_a_calibration_error_is_around_its_figure() -> None:
    rng = np.random.default_rng(4)
    values = rng.random(2_000)
    labels = (rng.random(2_000) < values).astype(float)
    scored = Scored("classification", labels, values, 0.5)
    found = measure(scored, draw(range(2_000), seed=1, resamples=200), ["ece"]).intervals()["ece"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["low"] >= 0


def test_draws_within_some_rows_are_the_same_draws() -> None:
    draws = draw(["a", "b", "a", "c"], seed=1, resamples=10)
    chosen = np.array([True, False, True, True])
    whole = np.concatenate(list(draws.blocks()))
    part = np.concatenate(list(draws.within(chosen).blocks()))
    assert (part == whole[:, chosen]).all()


def test_a_ratio_is_that_of_the_same_leads_above_and_below() -> None:
    rng = np.random.default_rng(4)
    leads = rng.integers(0, 80, 400)
    below = rng.exponential(1.0, 400)
    draws = draw(leads, seed=1, resamples=100)
    found = ratio(3 * below, below, draws)
    assert found == {"value": pytest.approx(3), "low": pytest.approx(3), "high": pytest.approx(3)}
    mean = ratio(below, np.ones(400), draws)
    scored = Scored("regression", below, np.zeros(400), 0.5)
    assert mean == pytest.approx(measure(scored, draws, ["mae"]).intervals()["mae"])
    assert ratio(below, np.zeros(400), draws) is None
