from __future__ import annotations

import numpy as np
import pytest

from leadml_pipelines.learning.evaluation.intervals import draw
from leadml_pipelines.learning.evaluation.totals import total_said


def _rare(leads: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Chances of a rare event, and what came of them."""
    rng = np.random.default_rng(0)
    chances = rng.beta(1, 32, leads)
    return (rng.random(leads) < chances).astype(float), chances


def test_chances_that_are_all_too_high_are_found_where_ten_bins_hide_it() -> None:
    labels, chances = _rare()
    draws = draw(np.arange(len(labels)), seed=1, resamples=200)
    sound, high = (total_said(labels, of, draws) for of in (chances, chances * 1.67))
    assert sound is not None
    assert high is not None
    assert sound["value"] == pytest.approx(1, abs=0.15)
    assert high["low"] > 1.25
    assert high["value"] == pytest.approx(high["said"] / high["came"])
    assert high["came"] == labels.sum()


def test_where_nearly_all_come_true_the_others_are_counted() -> None:
    labels, chances = _rare(2_000)
    draws = draw(np.arange(2_000), seed=1, resamples=50)
    rare, common = total_said(labels, chances, draws), total_said(1 - labels, 1 - chances, draws)
    assert rare is not None
    assert common is not None
    assert (rare["positive"], common["positive"]) == (True, False)
    assert common["value"] == pytest.approx(rare["value"])


def test_rows_of_few_leads_are_less_sure() -> None:
    labels, chances = _rare(400)
    rows = np.repeat(np.arange(400), 25)
    alone = total_said(labels, chances, draw(np.arange(400), seed=1, resamples=200))
    many = total_said(labels[rows], chances[rows], draw(rows, seed=1, resamples=200))
    assert alone is not None
    assert many is not None
    assert many["high"] - many["low"] == pytest.approx(alone["high"] - alone["low"])


@pytest.mark.parametrize("labels", [np.zeros(50), np.ones(50), np.empty(0)])
def test_of_one_class_there_is_nothing_to_say(labels: np.ndarray) -> None:
    draws = draw(np.arange(len(labels)), seed=1, resamples=10)
    assert total_said(labels, np.full(len(labels), 0.5), draws) is None
