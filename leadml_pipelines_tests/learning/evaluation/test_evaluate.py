from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.evaluation.baselines import HEURISTICS, heuristic_values
from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.spec import SpecError
from leadml_pipelines_tests.learning.frames import rows_frame, spec_for


def _array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_roc_auc_is_the_chance_that_a_positive_ranks_above_a_negative(
    pairs: list[tuple[bool, int]],
) -> None:
    labels = _array(*(float(happened) for happened, _ in pairs))
    values = _array(*(value / 5 for _, value in pairs))
    metrics = evaluate(spec_for(), labels, values)
    up, down = values[labels == 1], values[labels == 0]
    if len(up) == 0 or len(down) == 0:
        assert "roc_auc" not in metrics
    else:
        wins = np.mean((up[:, None] > down) + 0.5 * (up[:, None] == down))
        assert metrics["roc_auc"] == pytest.approx(wins)


def test_classification_metrics_of_a_known_case() -> None:
    metrics = evaluate(spec_for(), _array(1, 0, 1, 0), _array(0.9, 0.2, 0.4, 0.6))
    assert metrics["accuracy"] == 0.5
    assert metrics["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
    assert metrics["log_loss"] == pytest.approx(
        -(np.log(0.9) + np.log(0.8) + np.log(0.4) + np.log(0.4)) / 4
    )
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert (metrics["rows"], metrics["positives"], metrics["base_rate"]) == (4, 2, 0.5)


def test_accuracy_uses_the_threshold_that_is_given() -> None:
    labels, values = _array(1, 0), _array(0.4, 0.2)
    assert evaluate(spec_for(), labels, values, threshold=0.3)["accuracy"] == 1.0
    assert evaluate(spec_for(), labels, values, threshold=0.5)["accuracy"] == 0.5


def test_a_sure_and_wrong_prediction_has_a_finite_log_loss() -> None:
    assert np.isfinite(evaluate(spec_for(), _array(1, 0), _array(0, 1))["log_loss"])


def test_regression_metrics_of_a_known_case() -> None:
    metrics = evaluate(spec_for("regression"), _array(0, 0, 100, 300), _array(0, 10, 200, 300))
    total = 100**2 * 2 + 0 + 200**2
    assert metrics["r2"] == pytest.approx(1 - (100 + 10_000) / total)
    assert metrics["mae"] == pytest.approx(110 / 4)
    assert metrics["mean"] == 100
    assert metrics["positives"] == 2
    assert metrics["spearman"] == pytest.approx(0.9486833)


def test_predictions_that_are_all_equal_have_no_rank_correlation() -> None:
    assert evaluate(spec_for("regression"), _array(0, 1), _array(5, 5))["spearman"] == 0.0


def test_ages_are_measured_apart_and_the_calendar_is_not() -> None:
    moments = pd.Series(["1h", "1h", "calendar", "24h"])
    metrics = evaluate(spec_for(), _array(1, 0, 1, 1), _array(0.9, 0.1, 0.5, 0.5), moments)
    assert set(metrics["by_age"]) == {"1h", "24h"}
    assert metrics["by_age"]["1h"]["roc_auc"] == 1.0
    assert "roc_auc" not in metrics["by_age"]["24h"]


def test_the_old_conversion_rule_says_high_only_over_75() -> None:
    frame = pd.DataFrame({"quality_score": [75.0, 75.1, np.nan], "label": [0.0, 1.0, 0.0]})
    assert HEURISTICS["quality_threshold"](frame, frame, 0).tolist() == [0.3, 0.8, 0.3]


def test_the_old_churn_rule_is_random_but_the_same_for_a_seed() -> None:
    frame = rows_frame(3_000)
    spec = spec_for(heuristic="random")
    first, again, other = (heuristic_values(spec, frame, frame, seed=s) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    labels = frame["label"].to_numpy(float)
    assert evaluate(spec, labels, first)["roc_auc"] == pytest.approx(0.5, abs=0.03)


def test_the_old_lead_score_is_capped_and_gets_the_best_line_of_the_training_rows() -> None:
    train = pd.DataFrame({"quality_score": [0.0, 50.0, 100.0], "label": [10.0, 130.0, 210.0]})
    test = pd.DataFrame({"quality_score": [25.0, 90.0]})
    values = HEURISTICS["quality_rescaled"](train, test, 0)
    assert values.tolist() == pytest.approx([10 + 2 * 30, 10 + 2 * 100])


def test_an_unknown_heuristic_is_refused_by_name() -> None:
    frame = rows_frame(50)
    with pytest.raises(SpecError, match="'guess' is no heuristic"):
        heuristic_values(spec_for(heuristic="guess"), frame, frame, seed=1)
