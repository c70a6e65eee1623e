"""Whom a model learned from, and whom it is asked about today: the two sides of its drift.

Three populations of today are compared, each where there is enough of it:

* `snapshot`: everybody whom the model would score, of the newest checked snapshot. That is whom the
  next training learns from.
* `served`: the feature vectors that answers of the last day were made of, as they were served. A
  fault between snapshot and answer is in these. They are a sample (`LEADML_AUDIT_SAMPLE`).
* `answers`: what the champions of the last day answered, from the log of predictions, all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

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
from leadml_pipelines.monitoring.patience import connect
from leadml_pipelines.monitoring.served_sample import read_served_sample
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

Population = Literal["snapshot", "served", "answers"]
"""Which rows of today."""
POPULATIONS: tuple[Population, ...] = get_args(Population)
SCORE = "model_score"
"""The column of what the model answers: a chance, or an expected value."""
DAY = timedelta(days=1)
"""How far back what was served and answered counts."""

_ANSWERS = """
SELECT DISTINCT ON (entity_id) model_id, value FROM leadml.predictions
WHERE model_name = %(name)s AND role = 'champion'
AND predicted_at > %(since)s AND predicted_at <= %(until)s
ORDER BY entity_id, predicted_at DESC
"""


@dataclass(frozen=True)
class Learned:
    """What a champion learned from.

    Attributes:
        model_id: The champion.
        model: It, in memory.
        frame: Rows of its training set: its features, and `SCORE`.
        days: int64[rows], the day of each.
    """

    model_id: str
    model: LoadedModel
    frame: pd.DataFrame
    days: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Populations:
    """The two sides, with the same columns.

    Attributes:
        model_id: The champion.
        reference: Rows of what was learned from.
        days: int64[reference rows], the day of each.
        current: The rows of today.
        columns: What is compared.
        as_of: Moment of the snapshot; of what was served or answered, the end of the day.
        population: Which rows of today they are.
    """

    model_id: str
    reference: pd.DataFrame
    days: npt.NDArray[np.int64]
    current: pd.DataFrame
    columns: tuple[Column, ...]
    as_of: datetime
    population: Population = "snapshot"

    @property
    def words(self) -> str:
        """The rows of today in words."""
        return f"the {len(self.current):,} {population_words(self.population, self.as_of)}"


def population_words(population: Population, as_of: datetime) -> str:
    """What follows the number of rows of a population, in words."""
    moment = f"{as_of:%Y-%m-%d %H:%M} UTC"
    return {
        "snapshot": f"of the snapshot of {moment}",
        "served": f"whose features were served in the day before {moment}",
        "answers": f"who were answered about in the day before {moment}",
    }[population]


def read_learned(
    models: Registry, training_sets: Path, name: str, model_id: str | None, least: int
) -> Learned | NotEnough:
    """Read what a model version learned from, and let it score that.

    The populations of today find leads on any day of their lives. A training set has such rows,
    those of the calendar, and others at fixed ages after a lead's creation; so only the former are
    compared where there are enough of them.

    Args:
        models: The registry.
        training_sets: Folder of the saved training sets.
        name: Name of the model.
        model_id: The version; the champion if None.
        least: Fewest rows that are worth a comparison.

    Raises:
        IntegrityError: the version's files were changed.
        SavedSetError: its training set was changed.
    """
    record = models.champion(name) if model_id is None else models.get(model_id)
    if record is None:
        return NotEnough(f"{name} has no champion; train one and promote it")
    try:
        found = find_set(training_sets, name, record.training_set_hash)
    except NoSavedSetError:
        return NotEnough(
            f"the training set of {record.model_id} is not under {training_sets}; "
            f"the next {name} model brings its own"
        )
    rows = load_training_set(found.path).frame
    calendar = rows[rows["moment"] == CALENDAR]
    reference = calendar if len(calendar) >= least else rows
    if len(reference) < least:
        return NotEnough(
            f"the training set of {record.model_id} has {len(reference):,} rows, "
            f"and {least:,} are needed"
        )
    model = models.load(record.model_id)
    days = reference["as_of"].dt.floor("D").astype("int64").to_numpy()
    return Learned(record.model_id, model, _scored(model, reference), days)


def snapshot_population(
    url: str, learned: Learned, spec: ModelSpec, least: int
) -> Populations | NotEnough:
    """Beside what was learned: everybody whom the model would score today.

    Args:
        url: PostgreSQL, migrated.
        learned: Of the champion.
        spec: The model's declaration.
        least: Fewest rows that are worth a comparison.
    """
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
    model = learned.model
    return Populations(
        learned.model_id,
        learned.frame,
        learned.days,
        _scored(model, rows),
        (*model.encoder.columns, Column(SCORE, "double")),
        snapshot.as_of,
    )


def served_population(
    url: str, learned: Learned, spec: ModelSpec, now: datetime, least: int, seed: int
) -> Populations | NotEnough:
    """Beside what was learned: the vectors that answers of the last day were made of.

    Args:
        url: PostgreSQL, migrated.
        learned: Of the champion.
        spec: The model's declaration.
        now: End of the day.
        least: Fewest vectors that are worth a comparison.
        seed: Of the thinning of entities that were asked about more often than others.
    """
    until = require_utc(now, "now")
    sample = read_served_sample(url, spec.name, spec.entity, until - DAY, until, seed)
    if len(sample) < least:
        return NotEnough(
            f"too few served: of the features that {spec.name} answered by in the day before "
            f"{until:%Y-%m-%d %H:%M} UTC {len(sample):,} vectors can be told (LEADML_AUDIT_SAMPLE "
            f"says what share is logged), and {least:,} are needed"
        )
    columns = learned.model.encoder.columns
    current = sample.reindex(columns=[column.name for column in columns])
    return Populations(
        learned.model_id, learned.frame, learned.days, current, columns, until, "served"
    )


def answers_population(
    url: str,
    learned: Learned,
    models: Registry,
    training_sets: Path,
    name: str,
    now: datetime,
    least: int,
    seed: int,
) -> Populations | NotEnough:
    """What the champions of the last day answered, beside what they say of what they learned from.

    A champion may be hours old, so all versions of the day count: of what each learned from so many
    rows are taken as it has a share in the answers. Of each entity the last answer counts.

    Args:
        url: PostgreSQL, migrated.
        learned: Of the champion of now.
        models: The registry.
        training_sets: Folder of the saved training sets.
        name: Name of the model.
        now: End of the day.
        least: Fewest answers that are worth a comparison.
        seed: Of the choice of rows.
    """
    import pandas as pd

    until = require_utc(now, "now")
    with connect(url) as connection:
        rows = connection.execute(
            _ANSWERS, {"name": name, "since": until - DAY, "until": until}
        ).fetchall()
    logged = pd.DataFrame(rows, columns=["model_id", SCORE]).astype({SCORE: "float64"})
    sides = {learned.model_id: learned}
    gone = []
    for version in sorted(set(logged["model_id"]) - {learned.model_id}):
        one = read_learned(models, training_sets, name, version, least)
        if isinstance(one, NotEnough):
            gone.append(version)
        else:
            sides[version] = one
    counted = logged[logged["model_id"].isin(list(sides))]
    if len(counted) < least:
        left_out = f", without those of {', '.join(gone)}, whose rows are gone" if gone else ""
        return NotEnough(
            f"champions of {name} answered about {len(counted):,} entities in the day before "
            f"{until:%Y-%m-%d %H:%M} UTC{left_out}, and {least:,} are needed"
        )
    shares = counted["model_id"].value_counts(normalize=True)
    reference, days = _mixed([(sides[str(one)], share) for one, share in shares.items()], seed)
    return Populations(
        learned.model_id,
        reference,
        days,
        counted[[SCORE]].reset_index(drop=True),
        (Column(SCORE, "double"),),
        until,
        "answers",
    )


def _mixed(
    sides: Sequence[tuple[Learned, float]], seed: int
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Scores and days of what several versions learned from, as many of each as is its share."""
    import pandas as pd

    random = np.random.default_rng(seed)
    whole = min(len(one.frame) / share for one, share in sides)
    drawn = [
        (one, np.sort(random.permutation(len(one.frame))[: max(int(share * whole), 1)]))
        for one, share in sides
    ]
    scores = [one.frame[[SCORE]].iloc[rows] for one, rows in drawn]
    days = np.concatenate([one.days[rows] for one, rows in drawn])
    return pd.concat(scores, ignore_index=True), days


def _scored(model: LoadedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """The model's features of some rows, and its answers; a feature that is gone is missing."""
    frame = rows.reindex(columns=list(model.features)).reset_index(drop=True)
    return frame.assign(**{SCORE: model.predict(model.encoder.encode(frame)).values})
