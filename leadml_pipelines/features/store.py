"""The feature store as a data scientist sees it: features by name, as of each row's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from leadml_pipelines.closing import Closing
from leadml_pipelines.errors import UserError
from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError
from leadml_pipelines.features.catalogue import catalogue as built_in
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.labels import SqlLabel, label_values
from leadml_pipelines.features.point_in_time import moments_between
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
from leadml_pipelines.features.set_content import as_saved, definition_hashes, difference
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
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.times import from_micros, require_utc, to_micros

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from leadml_pipelines.settings import Settings

Source = Literal["events", "snapshots"]

_FOLDER = "named"
"""Folder of these sets below that of all training sets, where each model has one of its name."""


class ExtractLike(Protocol):
    """What the store needs to know of the extract that its engine reads."""

    @property
    def extract_id(self) -> str:
        """Name of the extract."""
        ...

    @property
    def as_of(self) -> datetime:
        """The moment up to which it tells everything."""
        ...

    @property
    def data_end(self) -> datetime:
        """Up to when it tells what happened."""
        ...


class RebuildError(UserError):
    """A saved set did not come out the same when it was built again; the sentence says where."""


@dataclass(frozen=True)
class TrainingSet:
    """A finished training set.

    Attributes:
        frame: The spine's rows, order, index and columns, then the features as they were asked for,
            then the label, if SQL answered it. An Arrow table if the spine was one.
        features: Names of the feature columns.
        label: Name of the label's column; empty if there is none.
        definition: What it follows from, but for the spine's content.
        facts: Where it came from: `origin` (the extract), `data_end`, rows.
    """

    frame: Any
    features: tuple[str, ...]
    label: str
    definition: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def x(self) -> Any:
        """The features."""
        names = list(self.features)
        # What both frames and Arrow tables understand.
        return (
            self.frame.filter(names) if hasattr(self.frame, "index") else self.frame.select(names)
        )

    @property
    def y(self) -> Any:
        """The label.

        Raises:
            SpineError: the set was built without one.
        """
        if not self.label:
            raise SpineError("this training set has no label; name one: label=...")
        return self.frame[self.label]


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
        return self._build(
            spine,
            features,
            label,
            source=source,
            keys=keys,
            time=time,
            prefix=prefix,
            chunk_rows=chunk_rows,
        )

    def _build(
        self,
        spine: Any,
        features: Sequence[str | RequestFeature],
        label: str | SqlLabel | None,
        *,
        source: Source,
        keys: Mapping[str, str] | None,
        time: str,
        prefix: str,
        chunk_rows: int | None = None,
        data_end: datetime | None = None,
    ) -> TrainingSet:
        """As `training_set`, with labels up to `data_end`, by default the extract's."""
        if chunk_rows is not None and chunk_rows < 1:
            raise SpineError(f"chunk_rows is {chunk_rows}; a chunk has at least one row")
        wanted = self._wanted(features)
        stored = [f for f in wanted if isinstance(f, Feature)]
        names = [prefix + f.name for f in wanted]
        whom = self._keys(stored, keys)
        if isinstance(spine, str):
            spine = self.engine.sql(spine)
        require_free(column_names(spine), names)
        moments = spine_times(spine, time)
        for key in whom.values():
            column_of(spine, key)
        values = self._stored(spine, stored, whom, time, source, chunk_rows)
        values |= self._from_request(spine, wanted)
        frame = attach(spine, {prefix + f.name: values[f.name] for f in wanted})
        label_column = "" if label is None else label if isinstance(label, str) else label.name
        if isinstance(label, str):
            column_of(spine, label)
        elif label is not None:
            require_free(column_names(frame), [label.name])
            answers = self._labelled(label, spine, whom, moments, data_end)
            frame = attach(frame, {label.name: answers})
        definition = {
            "features": [f.name for f in wanted],
            "label": self._label_definition(label),
            "source": source,
            "keys": whom,
            "time": time,
            "prefix": prefix,
            "spine": [str(column) for column in column_names(spine)],
            "views": definition_hashes(
                self._catalogue.resolve(f.name for f in stored),
                self._catalogue,
                from_events=source == "events",
            ),
        }
        facts = self._facts(source, label, data_end)
        return TrainingSet(frame, tuple(names), label_column, definition, facts)

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
        if isinstance(label, dict):
            label = SqlLabel(
                label["name"], label["sql"], timedelta(microseconds=label["horizon_micros"])
            )
        data_end = saved.facts.get("data_end")
        built = self._build(
            rows[definition["spine"]],
            definition["features"],
            label,
            source=definition["source"],
            keys=definition["keys"],
            time=definition["time"],
            prefix=definition["prefix"],
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

    def _wanted(self, features: Sequence[str | RequestFeature]) -> list[Feature | RequestFeature]:
        if isinstance(features, str):
            raise UnknownFeatureError("features is one text; give a list of names")
        names = [f if isinstance(f, str) else f.name for f in features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UnknownFeatureError(f"asked for twice: {', '.join(twice)}; once is enough")
        known = {*(f.name for e in self._catalogue.entities for f in self._catalogue.features(e))}
        for feature in (*self._request.values(), *features):
            if isinstance(feature, RequestFeature) and feature.name in known:
                raise SpineError(
                    f"the request feature {feature.name} has the name of a feature of the "
                    "catalogue; rename it"
                )
        # All unknown names in one error.
        self._catalogue.resolve(
            f for f in features if isinstance(f, str) and f not in self._request
        )
        return [
            f
            if isinstance(f, RequestFeature)
            else self._request.get(f) or self._catalogue.feature(f)
            for f in features
        ]

    def _keys(self, features: Sequence[Feature], keys: Mapping[str, str] | None) -> dict[str, str]:
        types = list(dict.fromkeys(self._catalogue.view_of(f.name).entity for f in features))
        if keys is None and len(types) > 1:
            shown = ", ".join(f"{t!r}: ..." for t in types)
            raise SpineError(
                "the features are of several entity types; say where the ids of each are: "
                f"keys={{{shown}}}"
            )
        found = {}
        for name in types:
            if keys is not None and name not in keys:
                raise SpineError(f"there are features of {name}, and keys names no column for it")
            found[name] = "entity_id" if keys is None else keys[name]
        return found

    def _views(self, features: Sequence[Feature], entity: str) -> list[FeatureView]:
        views = self._catalogue.resolve(f.name for f in features)
        return [view for view in views if view.entity == entity]

    def _stored(
        self,
        spine: Any,
        features: Sequence[Feature],
        keys: Mapping[str, str],
        time: str,
        source: Source,
        chunk_rows: int | None,
    ) -> Values:
        if source not in ("events", "snapshots"):
            raise SpineError(f"source is {source!r}; use events or snapshots")
        moments = spine_times(spine, time)
        found: Values = {}
        for entity, key in keys.items():
            views = self._views(features, entity)
            mine = [f for view in views for f in view.features if f in features]
            if source == "events":
                engine = self.engine
                self._require_told(moments)
                rows = key_rows(spine, key, moments)
                found |= values_from_events(engine, views, mine, rows, chunk_rows)
            else:
                url = self._settings.require_postgres() if self._url is None else self._url
                found |= values_from_snapshots(
                    url, views, mine, spine, key, time, chunk_rows, **self._limits()
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

    def _require_told(self, moments: Any) -> None:
        """Refuse rows after the extract: what was known then is not in it."""
        if self._extract is None or not len(moments):
            return
        late = int((moments > to_micros(self._extract.as_of)).sum())
        if late:
            raise SpineError(
                f"{late} of {len(moments)} rows of the spine lie after "
                f"{self._extract.as_of.isoformat()}, up to when the extract "
                f"{self._extract.extract_id} tells what was known; leave them out, or materialize "
                "the sources again"
            )

    def _from_request(
        self, spine: Any, wanted: Sequence[Feature | RequestFeature]
    ) -> dict[str, Any]:
        asked = [f for f in wanted if isinstance(f, RequestFeature)]
        if not asked:
            return {}
        data = spine if is_frame(spine) else to_frame(spine)
        return {f.name: to_arrow(request_values(f, data), f.type) for f in asked}

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

    def _label_definition(self, label: str | SqlLabel | None) -> Any:
        if not isinstance(label, SqlLabel):
            return label
        micros = label.horizon // timedelta(microseconds=1)
        return {"name": label.name, "sql": " ".join(label.sql.split()), "horizon_micros": micros}

    def _facts(
        self, source: Source, label: str | SqlLabel | None, data_end: datetime | None
    ) -> dict[str, Any]:
        extract = self._extract
        told = extract is not None and (source == "events" or isinstance(label, SqlLabel))
        if extract is None or not told:
            return {"origin": source, "data_end": None}
        return {
            "origin": extract.extract_id if source == "events" else source,
            "data_end": to_micros(extract.data_end if data_end is None else data_end),
        }
