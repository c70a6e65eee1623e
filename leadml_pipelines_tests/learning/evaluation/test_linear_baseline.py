from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.encoding import Encoder
from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.evaluation.linear_baseline import linear_predictions
from leadml_pipelines_tests.learning.frames import FEATURES, rows_frame, spec_for


def _sides(objective: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = rows_frame(900, objective=objective)
    return frame.iloc[:1_800], frame.iloc[1_800:]


@pytest.mark.parametrize(
    ("objective", "metric", "least"),
    [("classification", "roc_auc", 0.75), ("regression", "spearman", 0.35)],
)
def test_it_learns_numbers_and_words(objective: str, metric: str, least: float) -> None:
    train, test = _sides(objective)
    spec, encoder = spec_for(objective), Encoder.fit(FEATURES, train)
    values = linear_predictions(spec, encoder, train, test, seed=1)
    labels = test["label"].to_numpy(float)
    assert evaluate(spec, labels, values)[metric] > least
    assert values.mean() == pytest.approx(labels.mean(), rel=0.2)


def test_a_word_that_training_never_saw_and_missing_values_are_answered() -> None:
    train, test = _sides("classification")
    odd = test.head(5).assign(source="unheard of", quality_score=np.nan)
    encoder = Encoder.fit(FEATURES, train)
    values = linear_predictions(spec_for(), encoder, train, odd, seed=1)
    assert ((values > 0) & (values < 1)).all()


def test_a_number_far_out_does_not_make_a_value_without_bounds() -> None:
    train, test = _sides("regression")
    far = test.assign(inbound_count_30d=10_000)
    values = linear_predictions(
        spec_for("regression"), Encoder.fit(FEATURES, train), train, far, seed=1
    )
    assert values.max() <= train["label"].max()


def test_a_feature_that_is_always_missing_is_no_obstacle() -> None:
    train, test = (side.assign(noise=np.nan) for side in _sides("classification"))
    values = linear_predictions(spec_for(), Encoder.fit(FEATURES, train), train, test, seed=1)
    assert np.isfinite(values).all()
