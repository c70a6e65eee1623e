"""What became of those about whom something was predicted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.learning.labels import label_rows
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import Engine

if TYPE_CHECKING:
    import pandas as pd


def with_outcomes(
    predictions: pd.DataFrame, spec: ModelSpec, engine: Engine, data_end: datetime
) -> pd.DataFrame:
    """Predictions with what came true of each, as far as it is known by now.

    Args:
        predictions: Has `entity_id` and `predicted_at` (with a time zone), and whatever else; any
            index.
        spec: Declares what was predicted: the label, asked at the moment of the prediction.
        engine: Has the tables that the label reads.
        data_end: Up to when these tables tell what happened.

    Returns:
        The same rows, columns and index, and `label`: float64, NaN while the horizon after the
        prediction is not over.

    Raises:
        SpecError: the label's SQL does not answer with one value for each row.
        NaiveTimeError: a time has no time zone.
    """
    spine = predictions[["entity_id", "predicted_at"]].rename(columns={"predicted_at": "as_of"})
    return predictions.assign(label=label_rows(spec, spine, engine, data_end))
