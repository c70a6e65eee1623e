"""The linear model that the trees have to be worth more than."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY, Encoder, Matrix
from leadml_pipelines.learning.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

_INVERSE_PENALTY = 0.02
_VALUE_PENALTY = 0.01
"""Strong, because neighbouring windows say nearly the same: on the synthetic funnel weaker ones
were worse on the test rows, and a baseline is to be as good as it can be."""
_FARTHEST = 5.0
"""Standard deviations beyond which a number counts as that far away: one outlier is not to rule,
and the exponential of a Poisson regression not to overflow."""
_FEWEST = 20
"""Words of a category with fewer training rows share one column."""


def linear_predictions(
    spec: ModelSpec, encoder: Encoder, train: pd.DataFrame, test: pd.DataFrame, *, seed: int
) -> Values:
    """What a linear model of the same features says of the test rows.

    Numbers are standardised, missing ones get the median and a column that says so, categories a
    column per word. Chances: a logistic regression. Values: a Poisson regression, whose mean is a
    product over the features. A ridge regression of the bare value, or of log(1 + value) brought
    back by the best line, would be less of a rival: on the synthetic funnel's premiums their
    Spearman correlations were 0.23 and 0.28, this one's 0.31, and only this one's R2 was over 0.01.

    Args:
        spec: Says whether it is a chance or a value.
        encoder: The features.
        train: Training rows with labels.
        test: Test rows.
        seed: For scikit-learn.

    Returns:
        float64[test rows].
    """
    from threadpoolctl import threadpool_limits

    labels = train["label"].to_numpy(np.float64)
    known, asked = encoder.encode(train), encoder.encode(test)
    # One thread: the same digits on every machine, and no quarrel with what else runs on it.
    with threadpool_limits(1):
        return _fitted(spec, encoder, known, labels, asked, seed)


def _fitted(
    spec: ModelSpec, encoder: Encoder, known: Matrix, labels: Values, asked: Matrix, seed: int
) -> Values:
    from sklearn.linear_model import LogisticRegression, PoissonRegressor

    # Newton's method: exact in a few steps where rows are many and columns are few.
    if spec.objective == "classification":
        model = _pipeline(
            encoder,
            LogisticRegression(
                C=_INVERSE_PENALTY, solver="newton-cholesky", max_iter=200, random_state=seed
            ),
        )
        model.fit(known, labels)
        return np.asarray(model.predict_proba(asked)[:, 1], np.float64)
    mean = labels.mean()
    poisson = PoissonRegressor(alpha=_VALUE_PENALTY, solver="newton-cholesky", max_iter=200)
    model = _pipeline(encoder, poisson)
    model.fit(known, labels / mean)
    # A product of features knows no bounds; no row gets more than any training row was worth.
    return np.minimum(np.asarray(model.predict(asked), np.float64) * mean, labels.max())


def _pipeline(encoder: Encoder, estimator: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    words = [at for at, column in enumerate(encoder.columns) if column.type == CATEGORY]
    numbers = [at for at, column in enumerate(encoder.columns) if column.type != CATEGORY]
    near = FunctionTransformer(np.clip, kw_args={"a_min": -_FARTHEST, "a_max": _FARTHEST})
    missing = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=_FEWEST, sparse_output=False
    )
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(missing, StandardScaler(), near), numbers),
                ("words", one_hot, words),
            ]
        ),
        estimator,
    )
