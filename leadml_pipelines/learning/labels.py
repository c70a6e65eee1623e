"""The labels of a model: that of its declaration and those of its companions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.features.labels import LabelError, SqlLabel, label_values, label_words
from leadml_pipelines.learning.spec import Companion, ModelSpec, SpecError
from leadml_pipelines.learning.spine import Engine

if TYPE_CHECKING:
    import pandas as pd


def label_rows(
    spec: ModelSpec, spine: pd.DataFrame, engine: Engine, data_end: datetime
) -> pd.Series:
    """The label of each row of a spine, as in `features.labels.label_values`.

    Args:
        spec: Declares the label and the horizon.
        spine: Has `entity_id` and `as_of`; any index.
        engine: Has the tables that the label reads.
        data_end: Up to when the data tells what happened.

    Raises:
        SpecError: the label's SQL does not answer with one value for each row.
        NaiveTimeError: a time has no time zone.
    """
    try:
        return label_values(SqlLabel(spec.name, spec.label, spec.horizon), spine, engine, data_end)
    except LabelError as error:
        raise SpecError(str(error)) from error


def companion_words(
    spec: ModelSpec,
    companion: Companion,
    spine: pd.DataFrame,
    engine: Engine,
    data_end: datetime,
) -> pd.Series:
    """Which word of a companion came true in each row, as in `features.labels.label_words`.

    Args:
        spec: Says how far the companion looks ahead.
        companion: One of its companions.
        spine: Has `entity_id` and `as_of`; any index.
        engine: Has the tables that the label reads.
        data_end: Up to when the data tells what happened.

    Raises:
        SpecError: the label's SQL does not answer with one value for each row.
        NaiveTimeError: a time has no time zone.
    """
    try:
        label = SqlLabel(companion.name, companion.label, spec.horizon)
        return label_words(label, spine, engine, data_end)
    except LabelError as error:
        raise SpecError(str(error)) from error
