from __future__ import annotations

import pytest

from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text
from leadml_pipelines.learning.evaluation.plots import words
from leadml_pipelines.learning.spec import HIGHER_IS_BETTER


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inbound_count_30d", "inbound count, 30 days"),
        ("email_open_count_1d", "email open count, 1 day"),
        ("product_interest", "product interest"),
    ],
)
def test_features_are_called_by_words(name: str, said: str) -> None:
    assert words(name) == said


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("roc_auc", 0.81234, "0.812"),
        ("roc_auc", -0.0001, "0.000"),
        ("accuracy", 0.8912, "89.1 %"),
        ("lift_10", 4.704, "4.70"),
        ("mae", 1234.5, "1,234"),
        ("mae", 342.44, "342.4"),
    ],
)
def test_figures_have_as_many_digits_as_they_deserve(metric: str, value: float, said: str) -> None:
    assert metric_text(metric, value) == said


def test_a_range_of_shares_says_percent_once() -> None:
    assert range_text("accuracy", 0.871, 0.9) == "87.1 to 90.0 %"


def test_every_metric_that_a_declaration_may_name_has_a_name() -> None:
    assert set(HIGHER_IS_BETTER) <= set(METRIC_NAMES)
