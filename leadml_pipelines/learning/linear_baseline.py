"""The linear model that the trees have to be worth more than."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY, Encoder
from leadml_pipelines.learning.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

_FEWEST = 20
"""Words of a category with fewer training rows share one column."""


def linear_predictions(
    spec: ModelSpec, encoder: Encoder, train: pd.DataFrame, test: pd.DataFrame, *, seed: int
) -> Values:
    """What a linear model of the same features says of the test rows.

    Numbers are standardised, missing ones get the median and a column that says so, categories a
    column per word. Chances: a logistic regression. Values: a ridge regression of log(1 + value),
    brought back to the label's units by the best line that the training rows allow, as the
    heuristics are; a ridge regression of the bare value ranks premiums worse, because a few large
    ones decide it.

    Args:
        spec: Says whether it is a chance or a value.
        encoder: The features.
        train: Training rows with labels.
        test: Test rows.
        seed: For scikit-learn.

    Returns:
        float64[test rows].
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    labels = train["label"].to_numpy(np.float64)
    known, asked = encoder.encode(train), encoder.encode(test)
    if spec.objective == "classification":
        # Newton's method: exact in a few steps where rows are many and columns are few.
        model = _pipeline(
            encoder, LogisticRegression(solver="newton-cholesky", max_iter=200, random_state=seed)
        )
        model.fit(known, labels)
        return np.asarray(model.predict_proba(asked)[:, 1], np.float64)
    model = _pipeline(encoder, Ridge(alpha=10.0, random_state=seed))
    model.fit(known, np.log1p(np.maximum(labels, 0)))
    fitted = model.predict(known)
    if np.ptp(fitted) == 0:
        return np.full(len(test), labels.mean())
    slope, level = np.polyfit(fitted, labels, 1)
    return np.asarray(level + slope * model.predict(asked), np.float64)


def _pipeline(encoder: Encoder, estimator: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = [at for at, column in enumerate(encoder.columns) if column.type == CATEGORY]
    numbers = [at for at, column in enumerate(encoder.columns) if column.type != CATEGORY]
    missing = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=_FEWEST, sparse_output=False
    )
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(missing, StandardScaler()), numbers),
                ("words", one_hot, words),
            ]
        ),
        estimator,
    )
