"""Reports of such experiments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from leadml_pipelines.learning.experiments.comparison import compare
from leadml_pipelines.learning.experiments.report import Experiment
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines_tests.learning.frames import DAY, START

CHURN = replace(SPECS["churn"], metric="roc_auc")


def report(rows: pd.DataFrame, **changes: Any) -> Experiment:
    spec = replace(CHURN, **changes) if changes else CHURN
    return compare(spec, rows, {}, START + 100 * DAY, {})


def chance(rows: pd.DataFrame, **changes: Any) -> float:
    found = report(rows, **changes).chance_better
    assert found is not None
    return found
