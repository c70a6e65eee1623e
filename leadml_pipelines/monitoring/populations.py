"""Whom a model learned from, and whom it would score today: the two sides of its drift."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.features.saved_sets import NoSavedSetError, find_set
from leadml_pipelines.features.snapshots.newest import NoSnapshotError
from leadml_pipelines.features.snapshots.reading import read_latest
from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import CALENDAR
from leadml_pipelines.learning.training_set import load_training_set
from leadml_pipelines.monitoring.enough import NotEnough

if TYPE_CHECKING:
    import pandas as pd

SCORE = "model_score"
"""The column of what the model answers: a chance, or an expected value."""


@dataclass(frozen=True)
class Populations:
    """The two sides, with the same columns.

    Attributes:
        model_id: The champion.
        reference: Rows of its training set.
        days: int64[reference rows], the day of each.
        current: The newest checked snapshot, as far as the model scores it.
        columns: The model's features, and `SCORE`.
        as_of: The snapshot's moment.
    """

    model_id: str
    reference: pd.DataFrame
    days: npt.NDArray[np.int64]
    current: pd.DataFrame
    columns: tuple[Column, ...]
    as_of: datetime


def read_populations(
    url: str, models: Registry, training_sets: Path, spec: ModelSpec, least: int
) -> Populations | NotEnough:
    """Read both sides for the champion of a model, and let it score them.

    A snapshot finds leads on any day of their lives. A training set has such rows, those of the
    calendar, and others at fixed ages after a lead's creation; so only the former are compared
    where there are enough of them.

    Args:
        url: PostgreSQL, migrated.
        models: The registry.
        training_sets: Folder of the saved training sets.
        spec: The model's declaration.
        least: Fewest rows on either side that are worth a comparison.

    Raises:
        IntegrityError: the champion's files were changed.
        SavedSetError: its training set was changed.
    """
    champion = models.champion(spec.name)
    if champion is None:
        return NotEnough(f"{spec.name} has no champion; train one and promote it")
    try:
        found = find_set(training_sets, spec.name, champion.training_set_hash)
    except NoSavedSetError:
        return NotEnough(
            f"the training set of {champion.model_id} is not under {training_sets}; "
            f"the next {spec.name} model brings its own"
        )
    try:
        snapshot = read_latest(url, spec.entity)
    except NoSnapshotError as error:
        return NotEnough(str(error))
    rows = snapshot.frame[spec.in_population(snapshot.frame)]
    if len(rows) < least:
        return NotEnough(
            f"{spec.name} would score {len(rows):,} of the {len(snapshot.frame):,} rows of the "
            f"snapshot of {snapshot.as_of:%Y-%m-%d %H:%M} UTC, and {least:,} are needed"
        )
    learned = load_training_set(found.path).frame
    calendar = learned[learned["moment"] == CALENDAR]
    reference = calendar if len(calendar) >= least else learned
    if len(reference) < least:
        return NotEnough(
            f"the training set of {champion.model_id} has {len(reference):,} rows, "
            f"and {least:,} are needed"
        )
    model = models.load(champion.model_id)
    return Populations(
        champion.model_id,
        _scored(model, reference),
        reference["as_of"].dt.floor("D").astype("int64").to_numpy(),
        _scored(model, rows),
        (*model.encoder.columns, Column(SCORE, "double")),
        snapshot.as_of,
    )


def _scored(model: LoadedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """The model's features of some rows, and its answers; a feature that is gone is missing."""
    frame = rows.reindex(columns=list(model.features)).reset_index(drop=True)
    return frame.assign(**{SCORE: model.predict(model.encoder.encode(frame)).values})
