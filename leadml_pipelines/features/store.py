"""The feature store as a data scientist sees it: features by name, as of each row's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.closing import Closing
from leadml_pipelines.errors import UserError
from leadml_pipelines.features.built_set import TrainingSet
from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.catalogue import catalogue as built_in
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.labels import SqlLabel, label_values
from leadml_pipelines.features.point_in_time import moments_between
from leadml_pipelines.features.reach import ExtractLike, require_told
from leadml_pipelines.features.recipe import Recipe, Source, key_columns, wanted_features
from leadml_pipelines.features.request_features import RequestFeature, request_values
from leadml_pipelines.features.saved_sets import (
    SavedSet,
    SavedSetError,
    find_set,
    list_sets,
    read_rows,
    save_set,
    set_hash,
)
from leadml_pipelines.features.set_content import as_saved, difference
from leadml_pipelines.features.spines import (
    attach,
    column_names,
    column_of,
    is_frame,
    require_free,
    spine_times,
    to_frame,
)
from leadml_pipelines.features.stored_values import (
    BulkEngine,
    Values,
    key_rows,
    to_arrow,
    values_from_events,
    values_from_snapshots,
)
from leadml_pipelines.features.view import Feature
from leadml_pipelines.times import from_micros, require_utc, to_micros

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from leadml_pipelines.settings import Settings

_FOLDER = "named"
"""Folder of these sets below that of all training sets, where each model has one of its name."""


class RebuildError(UserError):
    """A saved set did not come out the same when it was built again; the sentence says where."""


class FeatureStore(Closing):
    """Training sets by feature name. Use it in a `with` block.

    Nothing is opened before it is needed: the bulk engine over the newest extract for raw events,
    PostgreSQL for snapshots.

    Args:
        settings: Those of the environment if None. Where home, PostgreSQL and memory limits are
            looked up that are not given here.
        engine: Another bulk engine, which stays the caller's to close.
        extract: What `engine` reads.
        postgres_url: Where the snapshots are.
        catalogue: The built-in one by default.
        request_features: Features from request data that can then be asked for by name.
        root: Folder of saved sets.

    Raises:
        FeatureDefinitionError: a request feature has the name of another feature.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        engine: BulkEngine | None = None,
        extract: ExtractLike | None = None,
        postgres_url: str | None = None,
        catalogue: Catalogue | None = None,
        request_features: Sequence[RequestFeature] = (),
        root: Path | None = None,
    ) -> None:
        self._given = settings
        self._engine = engine
        self._extract = extract
        self._url = postgres_url
        self._root = root
        self._catalogue = built_in() if catalogue is None else catalogue
        self._request = {feature.name: feature for feature in request_features}
        self._open = ExitStack()

    def close(self) -> None:
        """Close what the store opened."""
        self._open.close()

    def training_set(
        self,
        spine: pd.DataFrame | pa.Table | str,
        features: Sequence[str | RequestFeature],
        label: str | SqlLabel | None = None,
        *,
        source: Source = "events",
        keys: Mapping[str, str] | None = None,
        time: str = "as_of",
        prefix: str = "",
        chunk_rows: int | None = None,
    ) -> TrainingSet:
        """Add features to a spine, as they were known at each row's time.

        Args:
            spine: A frame or an Arrow table, or SQL over the source tables (whose result's times
                are UTC): ids, times, and any other columns. It is not changed. The same row may
                come twice.
            features: Names of features, or request features, in the order of the result.
            label: A column of the spine, or SQL that answers a new one. With SQL, a row whose
                horizon passes the end of the data has no label.
            source: `events`: computed from raw events, exactly as of each row; what is not known of
                an entity is the features' default. `snapshots`: from the newest checked snapshot
                not after each row's time and not older than its view's time to live; missing if
                there is none. A snapshot's creation time hides nothing: a day that was filled in
                afterwards was computed under both clocks as of its own moment.
            keys: Entity type -> column of its ids. `entity_id` by default, if all features are of
                one type.
            time: Column of times, with a zone.
            prefix: Put before the names of the features, for a second call about another role of
                the same entity type, such as who referred whom.
            chunk_rows: Work on so many rows at a time; the result is the same.

        Raises:
            UnknownFeatureError: a feature is unknown.
            SpineError: a column of the spine is missing, can't be used, or is named like a feature;
                or a row lies after everything that the extract tells; or a chunk has no row.
            NaiveTimeError: a time has no zone.
            RequestDataError: what a request feature is computed from is missing.
            LabelError: the label's SQL does not answer once for each row.
        """
        if chunk_rows is not None and chunk_rows < 1:
            raise SpineError(f"chunk_rows is {chunk_rows}; a chunk has at least one row")
        recipe = self._recipe(features, label, source, keys, time, prefix)
        return self._build(spine, recipe, chunk_rows=chunk_rows)

    def _recipe(
        self,
        features: Sequence[str | RequestFeature],
        label: str | SqlLabel | None,
        source: Source,
        keys: Mapping[str, str] | None,
        time: str,
        prefix: str,
    ) -> Recipe:
        wanted = wanted_features(features, self._catalogue, self._request)
        stored = [f for f in wanted if isinstance(f, Feature)]
        return Recipe(
            wanted, label, source, key_columns(stored, keys, self._catalogue), time, prefix
        )

    def _build(
        self,
        spine: Any,
        recipe: Recipe,
        *,
        chunk_rows: int | None = None,
        data_end: datetime | None = None,
    ) -> TrainingSet:
        """The set of a recipe, with labels up to `data_end`, by default the extract's."""
        if isinstance(spine, str):
            spine = self.engine.sql(spine)
        require_free(column_names(spine), recipe.columns)
        moments = spine_times(spine, recipe.time)
        for key in recipe.keys.values():
            column_of(spine, key)
        values = self._stored(spine, moments, recipe, chunk_rows)
        values |= _from_request(spine, recipe.requested)
        frame = attach(spine, {recipe.prefix + f.name: values[f.name] for f in recipe.features})
        label = recipe.label
        if isinstance(label, str):
            column_of(spine, label)
        elif label is not None:
            require_free(column_names(frame), [label.name])
            answers = self._labelled(label, spine, recipe.keys, moments, data_end)
            frame = attach(frame, {label.name: answers})
        return TrainingSet(
            frame,
            tuple(recipe.columns),
            recipe.label_column,
            recipe.definition([str(column) for column in column_names(spine)], self._catalogue),
            self._facts(recipe, data_end),
        )

    def entities_between(
        self,
        start: datetime,
        end: datetime,
        *,
        every: timedelta | None = None,
        entity: str = "lead",
    ) -> pd.DataFrame:
        """A spine for want of one: every entity of a type that existed, between two moments.

        Args:
            start: Not included.
            end: The last moment.
            every: At `end`, `end - every` and so on; at `end` alone if None.
            entity: Entity type.

        Returns:
            `entity_id` and `as_of`, ordered by time, then id.
        """
        import pandas as pd

        kind = entity_type(entity)
        first, last = to_micros(require_utc(start, "start")), to_micros(require_utc(end, "end"))
        step = timedelta(microseconds=max(last - first, 1)) if every is None else every
        moments = pd.DataFrame({"moment": moments_between(first, last, step)}).astype("int64")
        return self.engine.sql(
            f"SELECT e.{kind.key} AS entity_id, m.as_of FROM {kind.table} AS e JOIN "  # noqa: S608
            "(SELECT make_timestamp(moment) AS as_of FROM moments) AS m "
            f"ON {kind.exists('e', 'm.as_of')} ORDER BY m.as_of, e.{kind.key}",
            moments=moments,
        )

    def save(self, name: str, training_set: TrainingSet) -> SavedSet:
        """Save a training set with its definition; what is there already is never written over."""
        frame, definition = as_saved(training_set.frame, training_set.definition)
        facts = {**training_set.facts, "columns": len(frame.columns)}
        return save_set(self.root, name, frame, definition, facts)

    def saved(self, name: str | None = None) -> list[SavedSet]:
        """The saved sets, of one name or all, oldest first."""
        return list_sets(self.root, name)

    def load(self, name: str, hash_: str | None = None) -> pd.DataFrame:
        """The rows of the set of a name that was saved last, or of the one whose hash begins so.

        Raises:
            NoSavedSetError: there is none.
            SavedSetError: the rows are not the ones that were saved.
        """
        return read_rows(find_set(self.root, name, hash_).path)

    def rebuild(self, saved: SavedSet) -> TrainingSet:
        """Build a saved set again from its own spine, and hold it to the same hash.

        A label in SQL is answered for the rows whose horizon had passed when the set was built,
        however much more is known now.

        Raises:
            RebuildError: a definition has changed since, or a value came out differently.
            SavedSetError: it is no set that this store saved.
        """
        definition = saved.definition
        if "spine_sha256" not in definition:
            raise SavedSetError(
                f"the set {saved.name} was not saved by the feature store; a model's training set "
                "is built again by its asset"
            )
        rows = read_rows(saved.path)
        label = definition["label"]
        recipe = self._recipe(
            definition["features"],
            SqlLabel.of_definition(label) if isinstance(label, dict) else label,
            definition["source"],
            definition["keys"],
            definition["time"],
            definition["prefix"],
        )
        data_end = saved.facts.get("data_end")
        built = self._build(
            rows[definition["spine"]],
            recipe,
            data_end=None if data_end is None else from_micros(data_end),
        )
        frame, again = as_saved(built.frame, built.definition)
        if set_hash(frame, again) != saved.hash:
            raise RebuildError(difference(saved, rows, again, frame))
        return replace(built, frame=frame)

    @property
    def engine(self) -> BulkEngine:
        """The bulk engine, opened over the newest extract when first asked for."""
        if self._engine is None:
            from leadml_pipelines.features.bulk import bulk_engine
            from leadml_pipelines.sources.extract import latest_extract

            extract = latest_extract(self._settings.extracts)
            self._engine = self._open.enter_context(bulk_engine(extract, self._settings))
            self._extract = extract
        return self._engine

    @property
    def root(self) -> Path:
        """Folder of the saved sets."""
        return self._settings.training_sets / _FOLDER if self._root is None else self._root

    @property
    def _settings(self) -> Settings:
        if self._given is None:
            from leadml_pipelines.settings import Settings

            self._given = Settings()
        return self._given

    def _stored(
        self, spine: Any, moments: np.ndarray, recipe: Recipe, chunk_rows: int | None
    ) -> Values:
        if recipe.source not in ("events", "snapshots"):
            raise SpineError(f"source is {recipe.source!r}; use events or snapshots")
        found: Values = {}
        views = self._catalogue.resolve(f.name for f in recipe.stored)
        for entity, key in recipe.keys.items():
            its = [view for view in views if view.entity == entity]
            features = [f for view in its for f in view.features if f in recipe.stored]
            if recipe.source == "events":
                engine = self.engine
                if self._extract is not None:
                    require_told(self._extract, moments)
                rows = key_rows(spine, key, moments)
                found |= values_from_events(engine, its, features, rows, chunk_rows)
            else:
                url = self._settings.require_postgres() if self._url is None else self._url
                found |= values_from_snapshots(
                    url, its, features, spine, key, recipe.time, chunk_rows, **self._limits()
                )
        return found

    def _limits(self) -> dict[str, Any]:
        """What DuckDB may take; its own defaults in a store that was given no settings."""
        if self._given is None:
            return {}
        return {
            "memory_limit": self._given.duckdb_memory_limit,
            "threads": self._given.duckdb_threads,
        }

    def _labelled(
        self,
        label: SqlLabel,
        spine: Any,
        keys: Mapping[str, str],
        moments: Any,
        data_end: datetime | None,
    ) -> Any:
        if len(set(keys.values())) != 1:
            raise SpineError(f"the label {label.name} needs features of exactly one entity type")
        engine = self.engine
        if self._extract is None:
            raise SpineError(f"the label {label.name} needs to know the extract, where data ends")
        (key,) = set(keys.values())
        rows = key_rows(spine, key, moments)
        end = self._extract.data_end if data_end is None else data_end
        return to_arrow(label_values(label, rows, engine, end), "double")

    def _facts(self, recipe: Recipe, data_end: datetime | None) -> dict[str, Any]:
        extract, source = self._extract, recipe.source
        told = extract is not None and (source == "events" or isinstance(recipe.label, SqlLabel))
        if extract is None or not told:
            return {"origin": source, "data_end": None}
        return {
            "origin": extract.extract_id if source == "events" else source,
            "data_end": to_micros(extract.data_end if data_end is None else data_end),
        }


def _from_request(spine: Any, features: Sequence[RequestFeature]) -> Values:
    if not features:
        return {}
    data = spine if is_frame(spine) else to_frame(spine)
    return {f.name: to_arrow(request_values(f, data), f.type) for f in features}
