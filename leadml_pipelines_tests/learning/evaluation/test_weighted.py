from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics

from leadml_pipelines.learning.evaluation.weighted import ECE_BINS, Scored, bins_of

Values = np.ndarray


def _rows(draw_from: list[tuple[int, int, int]]) -> tuple[Values, Values, Values]:
    labels, values, weights = np.array(draw_from, np.float64).T
    return labels, values / 7, weights


CLASSES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=40
).map(_rows)
"""Labels, predictions with many ties, and how often each row counts."""
AMOUNTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=40
).map(_rows)


def _plain(objective: str, labels: Values, values: Values) -> dict[str, float]:
    return Scored(objective, labels, values, 0.5).plain()


@settings(max_examples=60, deadline=None)
@given(CLASSES)
def test_chances_are_measured_as_scikit_learn_measures_them(
    rows: tuple[Values, Values, Values],
) -> None:
    labels, values, _ = rows
    found = _plain("classification", labels, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "log_loss": metrics.log_loss(labels, values.clip(1e-7, 1 - 1e-7), labels=[0, 1]),
            "brier": np.mean((labels - values) ** 2),
            "accuracy": metrics.accuracy_score(labels, values >= 0.5),
        }
        if (values >= 0.5).any():
            wanted["precision"] = metrics.precision_score(labels, values >= 0.5)
        if labels.any():
            wanted["recall"] = metrics.recall_score(labels, values >= 0.5)
            wanted["average_precision"] = metrics.average_precision_score(labels, values)
        if 0 < labels.sum() < len(labels):
            wanted["roc_auc"] = metrics.roc_auc_score(labels, values)
    for name in ("precision", "recall", "average_precision", "roc_auc"):
        assert (name in found) == (name in wanted)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(AMOUNTS)
def test_values_are_measured_as_scikit_learn_and_scipy_measure_them(
    rows: tuple[Values, Values, Values],
) -> None:
    labels, values, _ = rows
    found = _plain("regression", labels, values)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, values))
    if np.ptp(labels) == 0:
        assert "r2" not in found
        assert "spearman" not in found
        return
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, values))
    wanted = spearmanr(labels, values).statistic if np.ptp(values) else 0.0
    assert found["spearman"] == pytest.approx(wanted, abs=1e-9)
    assert found["total_ratio"] == pytest.approx(values.sum() / labels.sum())


@pytest.mark.parametrize(
    ("objective", "rows"), [("classification", CLASSES), ("regression", AMOUNTS)]
)
def test_a_row_that_counts_twice_is_two_rows(
    objective: str, rows: st.SearchStrategy[tuple[Values, Values, Values]]
) -> None:
    @settings(max_examples=60, deadline=None)
    @given(rows)
    def same(given_rows: tuple[Values, Values, Values]) -> None:
        labels, values, weights = given_rows
        if not weights.any():
            return
        weighed = Scored(objective, labels, values, 0.5).measure(weights[None, :])
        times = weights.astype(int)
        repeated = Scored(objective, np.repeat(labels, times), np.repeat(values, times), 0.5)
        wanted = repeated.measure(np.ones((1, repeated.rows)))
        # The bins of the calibration error stay those of the rows themselves.
        for name in set(wanted) - {"ece"}:
            np.testing.assert_allclose(weighed[name], wanted[name], atol=1e-9, err_msg=name)

    same()


def test_many_weightings_at_once_are_each_of_them_alone() -> None:
    rng = np.random.default_rng(1)
    labels, values = (rng.random(50) < 0.3).astype(float), rng.random(50).round(1)
    weights = rng.integers(0, 3, (7, 50)).astype(float)
    scored = Scored("classification", labels, values, 0.5)
    together = scored.measure(weights)
    for at in range(7):
        alone = scored.measure(weights[at : at + 1])
        assert {n: v[at] for n, v in together.items()} == pytest.approx(
            {n: v[0] for n, v in alone.items()}
        )


def test_the_best_fifth_holds_what_a_count_by_hand_finds() -> None:
    labels = np.array([1, 1, 0, 1, 0, 0, 0, 0, 1, 0], np.float64)
    values = np.linspace(0.95, 0.05, 10)
    found = _plain("classification", labels, values)
    assert found["captured_10"] == pytest.approx(1 / 4)
    assert found["captured_20"] == pytest.approx(2 / 4)
    assert found["lift_20"] == pytest.approx(2.5)


def test_a_tie_across_the_edge_of_the_best_fifth_counts_in_part() -> None:
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], np.float64)
    assert _plain("classification", labels, np.full(10, 0.4))["captured_20"] == pytest.approx(0.2)


def test_the_gini_index_is_twice_the_area_between_the_captured_curve_and_chance() -> None:
    labels = np.array([0, 100, 0, 0, 900, 0, 0, 0, 0, 0], np.float64)
    values = np.linspace(9, 0, 10)
    reached = np.arange(0, 11) / 10
    captured = np.concatenate([[0], np.cumsum(labels)]) / labels.sum()
    area = np.trapezoid(captured, reached)
    assert _plain("regression", labels, values)["gini"] == pytest.approx(2 * area - 1)
    assert _plain("regression", labels, -values)["gini"] == pytest.approx(1 - 2 * area)
    assert _plain("regression", labels, np.ones(10))["gini"] == pytest.approx(0)


def test_no_order_has_a_greater_gini_index_than_that_by_the_value_to_be_expected() -> None:
    rng = np.random.default_rng(3)
    chance, premium = rng.uniform(0.02, 0.2, 40_000), rng.choice([500.0, 4_000.0], 40_000)
    came = (rng.random(40_000) < chance) * premium
    gini, spearman = (
        [_plain("regression", came, by)[name] for by in (chance * premium, chance)]
        for name in ("gini", "spearman")
    )
    assert gini[0] > gini[1]
    # Why the lead score is not judged by Spearman's correlation: the truth itself loses by it.
    assert spearman[0] < spearman[1]


def test_captured_value_is_a_share_of_the_whole_value() -> None:
    labels = np.array([900, 0, 100, 0, 0, 0, 0, 0, 0, 0], np.float64)
    assert _plain("regression", labels, np.linspace(9, 0, 10))["captured_10"] == pytest.approx(0.9)


def test_the_calibration_error_is_the_mean_gap_of_ten_equally_full_bins() -> None:
    rng = np.random.default_rng(2)
    values = np.sort(rng.random(1_000))
    labels = (rng.random(1_000) < values**2).astype(float)
    gaps = [
        abs(labels[at : at + 100].mean() - values[at : at + 100].mean())
        for at in range(0, 1_000, 1_000 // ECE_BINS)
    ]
    assert _plain("classification", labels, values)["ece"] == pytest.approx(np.mean(gaps))


def test_equal_predictions_share_a_bin() -> None:
    bins = bins_of(np.array([0.1] * 7 + [0.2] * 3))
    assert len(set(bins[:7])) == 1
    assert bins[0] < bins[-1]


def test_no_rows_have_no_metrics() -> None:
    assert _plain("classification", np.empty(0), np.empty(0)) == {}
