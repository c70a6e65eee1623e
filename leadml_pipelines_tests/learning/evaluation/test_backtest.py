from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.evaluation.backtest import (
    BacktestError,
    backtest,
    backtest_document,
    known_at,
)
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines_tests.learning.frames import DAY, rows_frame, spec_for, toy_set

SPEC = spec_for(grid=({"max_depth": 3},), rounds=25, horizon=10 * DAY)


def _run(spec: ModelSpec = SPEC, frame: pd.DataFrame | None = None, **changes: object):
    options = {"cuts": 2, "every": 20 * DAY, "seed": 7, "threads": 1, "resamples": 30, **changes}
    return backtest(spec, toy_set(spec, frame), **options)


def test_each_cut_has_figures_with_intervals_beside_rule_and_linear_model() -> None:
    cuts = _run()
    assert [cut.until - cut.at for cut in cuts] == [20 * DAY] * 2
    assert cuts[0].until == cuts[1].at
    for cut in cuts:
        assert cut.model["roc_auc"]["low"] < cut.model["roc_auc"]["value"]
        assert cut.model["roc_auc"]["value"] > cut.heuristic["roc_auc"]["value"]
        assert "roc_auc" in cut.logistic
        assert cut.train_rows > 0
        assert cut.rows > 50


def test_only_labels_that_were_known_at_the_cut_are_learned_from() -> None:
    rows = toy_set(SPEC)
    at = rows.frame["as_of"].max().to_pydatetime() - 20 * DAY
    known = known_at(SPEC, rows, at)
    assert (known.frame["as_of"] + SPEC.horizon <= at).all()
    kept = (rows.frame["as_of"] + SPEC.horizon <= at).sum()
    assert len(known.frame) == kept == known.counts["rows"]
    assert known.data_end == at
    assert known.counts["unknown_labels"] > 0


def test_what_happens_after_a_cut_does_not_change_what_is_said_at_it() -> None:
    frame = rows_frame()
    first = _run(frame=frame, cuts=2)[0]
    changed = frame.copy()
    later = changed["as_of"] > first.until
    changed.loc[later, "label"] = 1 - changed.loc[later, "label"]
    unknown = (changed["as_of"] + SPEC.horizon > first.at) & (changed["as_of"] <= first.at)
    changed.loc[unknown, "label"] = 1 - changed.loc[unknown, "label"]
    assert _run(frame=changed, cuts=2)[0] == first


def test_a_cut_before_there_is_enough_is_skipped_and_said() -> None:
    cuts = _run(cuts=9, every=20 * DAY)
    assert cuts[0].model is None
    assert cuts[0].skipped
    assert cuts[-1].model is not None


def test_no_usable_cut_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(BacktestError, match="--every"):
        _run(cuts=1, every=timedelta(days=199))


def test_progress_goes_up_to_its_total_and_an_exception_in_it_ends_all() -> None:
    seen: list[tuple[int, int]] = []
    _run(progress=lambda done, total, text: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (200, 200)

    def interrupt(done: int, total: int, text: str) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(progress=interrupt)


def test_a_backtest_of_values_works_alike_and_is_plain_json() -> None:
    spec = spec_for("regression", grid=({"max_depth": 2},), rounds=25, horizon=10 * DAY)
    document = backtest_document(spec, _run(spec))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert np.isfinite(document["cuts"][0]["model"]["total_ratio"]["value"])
