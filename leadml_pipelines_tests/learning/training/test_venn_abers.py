from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from leadml_pipelines.learning.training.calibration import sigmoid
from leadml_pipelines.learning.training.venn_abers import GROUPS, VennAbers, fit_venn_abers


def by_definition(raw: np.ndarray, labels: np.ndarray, asked: float) -> tuple[float, float]:
    """Two isotonic regressions with the new row among the others, as the paper has it."""
    found = []
    for label in (0.0, 1.0):
        scores = np.append(raw, asked)
        order = np.argsort(scores, kind="stable")
        unique, start = np.unique(scores[order], return_index=True)
        rows = np.diff(np.append(start, len(scores))).astype(float)
        share = np.add.reduceat(np.append(labels, label)[order], start) / rows
        level = isotonic_regression(share, sample_weight=rows)
        found.append(float(level[np.searchsorted(unique, asked)]))
    return found[0], found[1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=3, max_size=60))
def test_at_the_scores_it_knows_it_is_the_definition(rows: list[tuple[int, bool]]) -> None:
    raw = np.array([float(score) for score, _ in rows])
    labels = np.array([float(label) for _, label in rows])
    table = fit_venn_abers(raw, labels, np.arange(len(rows)))
    for asked in np.unique(raw):
        low, high = table.interval(np.array([asked]))
        np.testing.assert_allclose((low[0], high[0]), by_definition(raw, labels, asked), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=2, max_size=200))
def test_the_lower_chance_is_never_above_the_upper_one(rows: list[tuple[float, bool]]) -> None:
    raw = np.array([score for score, _ in rows])
    table = fit_venn_abers(raw, np.array([float(label) for _, label in rows]), np.arange(len(rows)))
    confidence = table.confidence(np.linspace(-6, 6, 50))
    assert (confidence >= 0).all()
    assert (confidence <= 1).all()


def test_more_rows_leave_less_open() -> None:
    random = np.random.default_rng(2)
    widths = []
    for n in (200, 2_000, 20_000):
        raw = random.normal(0, 1.5, n)
        labels = (random.random(n) < sigmoid(raw)).astype(float)
        widths.append(1 - fit_venn_abers(raw, labels, np.arange(n)).confidence(raw).mean())
    assert widths[0] > 2 * widths[1] > 2 * widths[2]


def test_ten_rows_of_a_lead_that_are_alike_leave_as_much_open_as_one() -> None:
    random = np.random.default_rng(3)
    raw = random.normal(0, 1.5, 150)
    labels = (random.random(150) < sigmoid(raw)).astype(float)
    once = fit_venn_abers(raw, labels, np.arange(150))
    often = fit_venn_abers(raw.repeat(10), labels.repeat(10), np.arange(150).repeat(10))
    np.testing.assert_allclose(often.confidence(raw), once.confidence(raw), atol=1e-9)


def test_the_interval_lies_around_the_true_chance() -> None:
    random = np.random.default_rng(4)
    raw = random.normal(0, 1.5, 30_000)
    table = fit_venn_abers(
        raw, (random.random(30_000) < sigmoid(raw)).astype(float), np.arange(30_000)
    )
    asked = np.linspace(-2.5, 2.5, 40)
    low, high = table.interval(asked)
    np.testing.assert_allclose((low + high) / 2, sigmoid(asked), atol=0.05)


def test_the_table_is_small_and_survives_its_arrays() -> None:
    raw = np.random.default_rng(0).normal(size=50_000)
    table = fit_venn_abers(raw, (raw > 0).astype(float), np.arange(50_000))
    assert len(table.scores) <= GROUPS
    again = VennAbers.from_arrays(table.to_arrays())
    np.testing.assert_array_equal(again.confidence(raw[:50]), table.confidence(raw[:50]))
