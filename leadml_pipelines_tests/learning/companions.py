"""Companions of a toy model: one that can be told from a row, and one that falls by lot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from leadml_pipelines.learning.spec import Companion
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.learning.training_set import companion_column
from leadml_pipelines_tests.learning.frames import spec_for, toy_set

COLOUR = Companion(name="colour", label="unused", answer="cross_sell")
WHEN = Companion(
    name="when", label="unused", answer="urgency", words=("soon", "late", "at the end")
)


def train_with(
    frame: pd.DataFrame, words: Mapping[Companion, pd.Series], objective: str = "regression"
) -> TrainedModel:
    """A model with these companions.

    Args:
        frame: Rows of `rows_frame`.
        words: The word of each row, by companion.
        objective: `classification` or `regression`.
    """
    spec = spec_for(objective, companions=tuple(words))
    columns = {companion_column(companion): of for companion, of in words.items()}
    return train(spec, toy_set(spec, frame.assign(**columns)), seed=7, threads=1)


def coloured(frame: pd.DataFrame) -> pd.Series:
    """What occurs is red for partners, else blue or, one in four, nothing that has a name."""
    words = pd.Series("blue", index=frame.index, dtype="str")
    words[np.arange(len(frame)) % 4 == 0] = ""
    words[frame["source"] == "partner"] = "red"
    return words.mask(frame["label"] == 0, "")


def by_lot(frame: pd.DataFrame) -> pd.Series:
    """What occurs does so soon, late or at the end, whatever the row says."""
    lots = np.random.default_rng(1).choice(WHEN.words, len(frame), p=[0.2, 0.3, 0.5])
    return pd.Series(lots, index=frame.index, dtype="str").mask(frame["label"] == 0, "")
