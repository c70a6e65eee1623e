"""Deleting the files of old models, and what trainings that died left in the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from leadml_pipelines.learning.registry.artifacts import IntegrityError, folder_of
from leadml_pipelines.learning.registry.model_records import ModelRecord
from leadml_pipelines.learning.registry.registration import is_registered, registration_lock
from leadml_pipelines.learning.registry.retention import (
    Retention,
    expired_models,
    mark_pruned,
    note_freed,
)
from leadml_pipelines.learning.registry.store_contract import (
    ArtifactStore,
    StoredFolder,
    error_words,
)
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import psycopg

LEFT_ALONE = timedelta(days=1)
"""Age from which a folder that nobody registered is no training's that is still under way."""

_MODEL_FOLDER = re.compile(
    r"\.?(?P<id>(?P<name>[A-Za-z0-9_\-]+?)_(?P<at>\d{8}_\d{6})(_\d+)?)(\.[A-Za-z0-9_.]+)?"
)
"""A model's folder, or what its writer calls it before it is whole; anything else is not ours."""

Kind = Literal["model", "unfinished", "unknown"]


@dataclass(frozen=True)
class Deleted:
    """Something whose files were deleted, or would be.

    Attributes:
        name: Id of the model, or name of the folder.
        kind: `model`: registered; `unfinished`: left by a writer that died; `unknown`: whole, but
            not registered here.
        size: Bytes that it took.
    """

    name: str
    kind: Kind
    size: int


@dataclass
class Pruning:
    """What came of a deletion.

    Attributes:
        dry_run: Whether nothing was deleted, but only looked at.
        deleted: What was deleted, or would be.
        unknown: Whole folders of models that are not registered here, which stay.
        failed: Why, by the name of what could not be deleted.
        kept: How many models keep their files.
    """

    dry_run: bool
    deleted: list[Deleted] = field(default_factory=list)
    unknown: list[StoredFolder] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kept: int = 0

    @property
    def freed(self) -> int:
        """Bytes of all that was deleted."""
        return sum(one.size for one in self.deleted)


class Pruner:
    """Deletes what a registry and its store need no longer.

    Args:
        connect: A new connection to the registry's database.
        store: Where new models are written; what nobody registered is looked for there.
    """

    def __init__(
        self, connect: Callable[[], psycopg.Connection[Any]], store: ArtifactStore
    ) -> None:
        self._connect = connect
        self._store = store

    def prune(
        self,
        retention: Retention,
        name: str | None = None,
        *,
        dry_run: bool = False,
        unknown_too: bool = False,
        now: datetime | None = None,
    ) -> Pruning:
        """Delete the files of old models, and folders that nobody registered.

        What can't be deleted is told, and the rest goes on; the next time it is tried again.

        Args:
            retention: How long files are kept.
            name: Only of models of this name.
            dry_run: Delete nothing.
            unknown_too: Delete whole folders too that are not registered here. A store that several
                registries share has the others' models in such folders.
            now: Ages are measured from here.
        """
        now = now or utc_now()
        found = Pruning(dry_run)
        self._old_models(found, retention, name, now)
        self._strays(found, name, unknown_too, now)
        return found

    def _old_models(
        self, found: Pruning, retention: Retention, name: str | None, now: datetime
    ) -> None:
        with closing(self._connect()) as connection:
            expired = expired_models(connection, retention, now, name)
        found.kept = expired.kept
        for record in expired.records:
            try:
                size = self._delete_model(record, expired.last_change, now, found.dry_run)
            except (IntegrityError, OSError) as error:
                found.failed[record.model_id] = error_words(error)
                continue
            if size is None:
                found.kept += 1
            else:
                found.deleted.append(Deleted(record.model_id, "model", size))

    def _delete_model(
        self, record: ModelRecord, last_change: int, now: datetime, dry_run: bool
    ) -> int | None:
        """Delete a model's files; their bytes, or None if somebody uses it since."""
        store, folder = folder_of(record.artifact_uri)
        # Asked first: of a store that is away no model is marked.
        size = sum(store.sizes(folder).values())
        if dry_run:
            return size
        with closing(self._connect()) as connection:
            if record.pruned_at is None and not mark_pruned(
                connection, record.model_id, last_change, now
            ):
                return None
            store.delete(folder)
            note_freed(connection, record.model_id, size)
            connection.commit()
        return size

    def _strays(self, found: Pruning, name: str | None, unknown_too: bool, now: datetime) -> None:
        try:
            folders = self._store.folders()
        except OSError as error:
            found.failed[self._store.uri("").rstrip("/")] = error_words(error)
            return
        for folder, model_id in _old_strays(folders, name, now):
            try:
                self._delete_stray(found, folder, model_id, unknown_too)
            except OSError as error:
                found.failed[folder.name] = error_words(error)

    def _delete_stray(
        self, found: Pruning, folder: StoredFolder, model_id: str, unknown_too: bool
    ) -> None:
        with closing(self._connect()) as connection:
            # A training that registers meanwhile is waited for: its row is there afterwards.
            registration_lock(connection)
            hidden = folder.name != model_id
            if not hidden and is_registered(connection, model_id):
                return
            if folder.whole and not unknown_too:
                found.unknown.append(folder)
                return
            if not found.dry_run:
                self._store.delete(folder.name)
        kind: Kind = "unknown" if folder.whole else "unfinished"
        found.deleted.append(Deleted(folder.name, kind, folder.size))


def _old_strays(
    folders: list[StoredFolder], name: str | None, now: datetime
) -> Iterator[tuple[StoredFolder, str]]:
    """The folders of models that may be strays, with the ids of these models."""
    for folder in folders:
        match = _MODEL_FOLDER.fullmatch(folder.name)
        if match is None or (
            name is not None and not match["id"].startswith(f"{name}_{match['at']}")
        ):
            continue
        written = folder.changed_at or _time_of(match["at"])
        if written is not None and written < now - LEFT_ALONE:
            yield folder, match["id"]


def _time_of(digits: str) -> datetime | None:
    """The time in a model's id; None if it is none."""
    try:
        return datetime.strptime(digits, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
