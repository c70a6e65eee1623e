"""Small real boosters that ask about numbers, words and missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost

NUMBERS, WORDS = 5, 3
TYPES = ["q"] * NUMBERS + ["c"] * WORDS


def rows(count: int, seed: int, *, codes: int = 9) -> np.ndarray:
    """Random numbers and codes, a tenth of them missing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, NUMBERS + WORDS))
    # Few distinct ones, so that some lie exactly on a split.
    values[:, :NUMBERS] = values[:, :NUMBERS].round(1)
    values[:, NUMBERS:] = random.integers(0, codes, (count, WORDS))
    values[random.random(values.shape) < 0.1] = np.nan
    return values


def matrix(values: np.ndarray, labels: np.ndarray | None = None) -> xgboost.DMatrix:
    return xgboost.DMatrix(values, labels, feature_types=TYPES, enable_categorical=True, nthread=1)


def boosted(seed: int, rounds: int = 20, **params: Any) -> xgboost.Booster:
    values = rows(800, seed)
    known = np.nan_to_num(values)
    raw = known[:, 0] * known[:, 1] + (known[:, NUMBERS] % 3) - np.isnan(values[:, 2])
    labels = (raw > np.median(raw)).astype(float)
    defaults = {"objective": "binary:logistic", "nthread": 1, "seed": seed, "max_cat_to_onehot": 3}
    return xgboost.train({**defaults, **params}, matrix(values, labels), rounds)
