"""The rows that a model learns from: moments, labels and point-in-time features, kept as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from leadml_pipelines.features.saved_sets import (
    NoSavedSetError,
    SavedSet,
    describe_set,
    find_set,
    list_sets,
    read_rows,
    save_set,
)
from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.labels import companion_words, label_rows
from leadml_pipelines.learning.spec import Companion, ModelSpec, SpecError
from leadml_pipelines.learning.spine import build_spine
from leadml_pipelines.times import from_micros, to_micros

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.engines import DuckDBEngine
    from leadml_pipelines.settings import Settings

KEYS = ("entity_id", "as_of", "created_at", "moment", "label")
"""The columns of a training set that are no features; the agent and companions' labels follow."""

AGENT = "agent"
"""Column of the agent who worked on the lead at the moment; missing when nobody did."""

_AGENTS = """
WITH moments AS (
    SELECT row_id, entity_id, make_timestamp(micros) AS as_of FROM moment_rows
)
SELECT m.row_id, arg_max(a.agent_id, a.assigned_at) AS agent
FROM moments m
LEFT JOIN assignments a
    ON a.lead_id = m.entity_id AND a.assigned_at <= m.as_of
    AND (a.ended_at IS NULL OR a.ended_at > m.as_of)
GROUP BY m.row_id ORDER BY m.row_id
"""

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what comes next."""


class OtherDeclarationError(NoSavedSetError):
    """The saved rows are not those that the declaration asks for now; the message says why."""


class ExtractLike(Protocol):
    """What is needed of an extract of the source tables."""

    @property
    def extract_id(self) -> str:
        """Name of the extract."""
        ...

    @property
    def data_end(self) -> datetime:
        """Up to when the data tells what happened."""
        ...


@dataclass(frozen=True)
class TrainingSet:
    """Rows for one model.

    Attributes:
        name: Name of the model.
        frame: `KEYS` and a column per feature; every label is known.
        features: The feature columns, in order.
        counts: `candidates`, `unknown_labels`, `sampled_out`, `outside_population`, `rows`,
            `positives`.
        definition: What the rows follow from: hash of the spec, its part that decides about rows
            (`row_declaration`), features, span of the data.
        data_start: Creation of the first lead among the candidates.
        data_end: End of the data.
        origin: Where the data came from: the extract's id.
        hash: SHA-256 of definition and rows; empty until saved.
    """

    name: str
    frame: pd.DataFrame
    features: tuple[Column, ...]
    counts: Mapping[str, int]
    definition: Mapping[str, Any]
    data_start: datetime
    data_end: datetime
    origin: str = ""
    hash: str = ""


@dataclass(frozen=True)
class SavedTrainingSet:
    """A training set on disk.

    Attributes:
        name: Name of the model.
        hash: SHA-256 of definition and rows; the same rows saved twice are one file.
        path: Its folder.
        rows: Number of rows.
        positives: Rows whose label is over 0.
        unknown_labels: Candidates left out because their label is not known yet.
        saved_at: When it was first saved.
    """

    name: str
    hash: str
    path: Path
    rows: int
    positives: int
    unknown_labels: int
    saved_at: datetime


def build_training_set(
    spec: ModelSpec,
    engine: DuckDBEngine,
    catalogue: Catalogue,
    extract: ExtractLike,
    progress: Progress | None = None,
) -> TrainingSet:
    """Build the rows that `spec` asks for.

    Args:
        spec: The model's declaration.
        engine: The bulk engine over the extract.
        catalogue: Knows the feature views.
        extract: Where the data ends.
        progress: Told of each step.

    Raises:
        SpecError: the population or the rule that is replaced needs a feature that is not among
            the views, or no feature is left to learn from.
    """
    from leadml_pipelines.features.training_set import training_set

    tell = progress or (lambda done, total, text: None)
    views = (
        [catalogue.view(name) for name in spec.views]
        if spec.views
        else list(catalogue.views(spec.entity))
    )
    columns = tuple(
        Column(feature.name, feature.type, feature.dimension)
        for view in views
        for feature in view.features
    )
    _require(spec, columns)
    tell(0, 3, "choosing the moments")
    spine = build_spine(spec, engine, extract.data_end)
    tell(1, 3, f"labelling {len(spine.frame):,} moments")
    rows = spine.frame.assign(label=label_rows(spec, spine.frame, engine, extract.data_end))
    for companion in spec.companions:
        words = companion_words(spec, companion, spine.frame, engine, extract.data_end)
        rows[companion_column(companion)] = words
    rows[AGENT] = _agents(spine.frame, engine)
    tell(2, 3, f"computing {len(columns)} features of {len(rows):,} moments")
    frame = training_set(rows, views, engine)
    inside = frame[spec.in_population(frame)].reset_index(drop=True)
    tell(3, 3, f"{len(inside):,} rows")
    return assemble(
        spec,
        inside,
        columns,
        data_start=_data_start(engine, extract.data_end),
        data_end=extract.data_end,
        origin=extract.extract_id,
        counts={
            "candidates": spine.candidates,
            "unknown_labels": spine.unknown,
            "sampled_out": spine.sampled_out,
            "outside_population": len(frame) - len(inside),
        },
    )


def build_from_newest_extract(
    spec: ModelSpec, settings: Settings, progress: Progress | None = None
) -> TrainingSet:
    """Build the rows that `spec` asks for from the newest extract of the source tables.

    Raises:
        NoExtractError: nothing was extracted yet.
        SpecError: as of `build_training_set`.
    """
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.sources.extract import latest_extract

    extract = latest_extract(settings.extracts)
    with bulk_engine(extract, settings) as engine:
        return build_training_set(spec, engine, catalogue(), extract, progress)


def assemble(
    spec: ModelSpec,
    frame: pd.DataFrame,
    features: Iterable[Column],
    *,
    data_start: datetime,
    data_end: datetime,
    origin: str = "",
    counts: Mapping[str, int] | None = None,
) -> TrainingSet:
    """Make a training set of a finished frame, as from another feature source.

    Args:
        spec: The model's declaration.
        frame: Has `KEYS` and the features; every label known, every row in the population.
        features: The feature columns; `spec.exclude` stays in the frame but is not learned from.
        data_start: When the data begins.
        data_end: When it ends.
        origin: Where it came from.
        counts: What was left out on the way.
    """
    columns = tuple(
        column
        for column in features
        if column.name not in spec.exclude
        and (not spec.dimensions or column.dimension in spec.dimensions)
    )
    if not columns:
        raise SpecError(f"{spec.name}: no feature is left to learn from; see views, dimensions")
    definition = {
        "name": spec.name,
        "spec": spec.hash,
        **row_declaration(spec),
        "features": [{"name": c.name, "type": c.type, "dimension": c.dimension} for c in columns],
        "data_start": to_micros(data_start),
        "data_end": to_micros(data_end),
    }
    kept = {**(counts or {}), "rows": len(frame), "positives": int((frame["label"] > 0).sum())}
    return TrainingSet(
        spec.name, frame, columns, kept, definition, data_start, data_end, origin=origin
    )


def row_declaration(spec: ModelSpec) -> dict[str, Any]:
    """What a spec says about rows, as JSON: two that say the same have the same rows.

    How parameters are searched, the metric, the gates and the split of the rows are no part of it.
    """
    return {
        "entity": spec.entity,
        "candidates": spec.candidates,
        "population": spec.population,
        "label": " ".join(spec.label.split()),
        "horizon_seconds": spec.horizon.total_seconds(),
        "every_seconds": None if spec.every is None else spec.every.total_seconds(),
        "ages_seconds": [age.total_seconds() for age in spec.ages],
        "max_rows": spec.max_rows,
        "views": list(spec.views),
        "dimensions": list(spec.dimensions),
        "exclude": list(spec.exclude),
        "companions": [
            {"name": companion.name, "label": " ".join(companion.label.split())}
            for companion in spec.companions
        ],
    }


def companion_column(companion: Companion) -> str:
    """The column with a companion's labels: a word, "" for none, missing while unknown."""
    return f"companion_{companion.name}"


def save_training_set(training_set: TrainingSet, root: Path) -> SavedTrainingSet:
    """Write a training set to `<root>/<name>/<hash>/`, once, and mark it as the newest.

    Two sets of the same definition and rows are one: the second call changes no file but the mark.
    """
    facts = {"counts": dict(training_set.counts), "origin": training_set.origin}
    return _saved(
        save_set(root, training_set.name, training_set.frame, training_set.definition, facts)
    )


def list_training_sets(root: Path, name: str) -> list[SavedTrainingSet]:
    """The saved training sets of a model, oldest first."""
    return [_saved(saved) for saved in list_sets(root, name)]


def load_training_set(path: Path) -> TrainingSet:
    """Read a saved training set.

    Raises:
        SavedSetError: the rows are not the ones that were saved.
    """
    saved = describe_set(path)
    definition = saved.definition
    return TrainingSet(
        name=definition["name"],
        frame=read_rows(path),
        features=tuple(
            Column(f["name"], f["type"], f.get("dimension", "")) for f in definition["features"]
        ),
        counts=saved.facts["counts"],
        definition=definition,
        data_start=from_micros(definition["data_start"]),
        data_end=from_micros(definition["data_end"]),
        origin=saved.facts["origin"],
        hash=saved.hash,
    )


def latest_training_set(root: Path, spec: ModelSpec) -> TrainingSet:
    """The training set of a model that was saved last.

    Args:
        root: Folder of the sets.
        spec: The model's declaration, whose rows they have to be.

    Raises:
        NoSavedSetError: none was saved yet.
        OtherDeclarationError: it was built when the declaration asked for other rows.
    """
    try:
        found = find_set(root, spec.name)
    except NoSavedSetError as error:
        raise NoSavedSetError(f"{error}; materialize {spec.name}_training_set") from error
    saved = found.definition
    if saved["spec"] != spec.hash:
        changed = [key for key, value in row_declaration(spec).items() if saved.get(key) != value]
        if changed:
            raise OtherDeclarationError(
                f"the training set of {spec.name} that was saved last is of another declaration "
                f"({', '.join(changed)}); materialize {spec.name}_training_set"
            )
    return load_training_set(found.path)


def _saved(saved: SavedSet) -> SavedTrainingSet:
    counts = saved.facts["counts"]
    return SavedTrainingSet(
        name=saved.name,
        hash=saved.hash,
        path=saved.path,
        rows=counts["rows"],
        positives=counts["positives"],
        unknown_labels=counts.get("unknown_labels", 0),
        saved_at=saved.saved_at,
    )


def _data_start(engine: DuckDBEngine, data_end: datetime) -> datetime:
    import pandas as pd

    first = engine.sql("SELECT epoch_us(min(created_at)) AS first FROM leads")["first"].iloc[0]
    return data_end if pd.isna(first) else from_micros(int(first))


def _agents(spine: pd.DataFrame, engine: DuckDBEngine) -> pd.Series:
    import numpy as np
    import pandas as pd

    moments = pd.DataFrame(
        {
            "row_id": np.arange(len(spine), dtype=np.int64),
            "entity_id": spine["entity_id"].to_numpy(),
            "micros": spine["as_of"].astype("datetime64[us, UTC]").astype("int64").to_numpy(),
        }
    )
    found = engine.sql(_AGENTS, moment_rows=moments)["agent"]
    return pd.Series(found.astype("str").to_numpy(), index=spine.index, name=AGENT, dtype="str")


def _require(spec: ModelSpec, columns: tuple[Column, ...]) -> None:
    names = {column.name for column in columns}
    for name in spec.population_features:
        if name not in names:
            raise SpecError(
                f"the population of {spec.name} needs the feature {name}, "
                "which is in none of its views"
            )
