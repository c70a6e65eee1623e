"""The model registry: rows in PostgreSQL, files in the artifact store, one champion per model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.learning.evaluation.examination import examine
from leadml_pipelines.learning.model import LoadedModel, OutdatedModelError, load_model
from leadml_pipelines.learning.registry.aliases import (
    Change,
    Held,
    Order,
    alias_changes,
    alias_lock,
    held_aliases,
    make_challenger,
    make_champion,
    withdraw_challenger,
)
from leadml_pipelines.learning.registry.anchor import anchor_of
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import (
    Artifact,
    IntegrityError,
    load_artifact,
    resign_artifact,
)
from leadml_pipelines.learning.registry.model_records import (
    ModelRecord,
    select_records,
    select_short_records,
)
from leadml_pipelines.learning.registry.promotion_rules import (
    PromotionRefusedError,
    PrunedError,
    RegistryError,
    overrules,
    overrules_comparison,
    require_files,
    require_present_comparison,
)
from leadml_pipelines.learning.registry.pruning import Pruner, Pruning
from leadml_pipelines.learning.registry.registration import store_trained
from leadml_pipelines.learning.registry.retention import Retention
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.registry.store_contract import error_words
from leadml_pipelines.postgres import connect

__all__ = ["ModelRecord", "PromotionRefusedError", "Registry", "RegistryError"]

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.learning.evaluation.examination import Examination
    from leadml_pipelines.learning.training.train import TrainedModel
    from leadml_pipelines.settings import Settings

_PUBLICATION_LOCK = 0x1EAD_0012
"""Key of the advisory lock under which the aliases are read to be published."""


class Registry:
    """Models by name: registered, promoted, rolled back.

    Args:
        url: PostgreSQL, migrated.
        artifacts: Address of the folder of all artifacts.
        key: Signs what is registered and verifies what is loaded; without it, the registry answers
            questions only.
        connection: How to connect, as `leadml_pipelines.postgres.connect` takes it.
    """

    def __init__(
        self, url: str, artifacts: str | Path, key: SigningKey | None = None, **connection: Any
    ) -> None:
        self._url = url
        self._artifacts = artifacts
        self._key = key or SigningKey()
        self._options = connection

    @classmethod
    def of(cls, settings: Settings, url: str | None = None, **connection: Any) -> Registry:
        """The registry of these settings.

        Args:
            settings: Name the artifacts and the key.
            url: PostgreSQL, if it is not the settings'.
            connection: How to connect.
        """
        return cls(
            url or settings.require_postgres(),
            settings.artifacts,
            SigningKey.of(settings),
            **connection,
        )

    def register(self, trained: TrainedModel) -> ModelRecord:
        """Examine a trained model beside the champion, and record it with what the gate said."""
        examined, compared_with = self.examine(trained)
        return self.store(trained, examined, compared_with)

    def examine(self, trained: TrainedModel) -> tuple[Examination, str | None]:
        """Measure a trained model, beside champion and anchor on the same newest rows.

        Returns:
            What was found, and the id of the champion that it was compared with; None if there is
            no champion, or if its metric could not be measured: the reasons say which.
        """
        champion = self.champion(trained.spec.name)
        if champion is None:
            return examine(trained), None
        remarks: list[str] = []

        def loaded(what: str, model_id: str) -> LoadedModel | None:
            """One that can't be loaded must not keep every successor out."""
            try:
                return self.load(model_id)
            except (IntegrityError, OutdatedModelError, PrunedError) as error:
                remarks.append(f"not compared with the {what} {model_id}: {error}")
                return None

        beside, anchor = loaded("champion", champion.model_id), anchor_of(champion)
        examined = examine(
            trained,
            beside,
            compared_with=champion.model_id,
            anchor=None if anchor == champion.model_id else loaded("anchor", anchor),
            remarks=remarks,
        )
        # Of the examination, not of the aliases: a champion nobody measured was not compared with.
        return examined, examined.evaluation["compared_with"]

    def store(
        self, trained: TrainedModel, examined: Examination, compared_with: str | None
    ) -> ModelRecord:
        """Record an examined model: its files, signed, and then its row, or neither.

        Args:
            trained: The model.
            examined: What is known of it.
            compared_with: Id of the champion that it was compared with.
        """
        key = self._key.read_or_make()
        store = open_store(self._artifacts)
        with self._connect() as connection:
            model_id = store_trained(connection, store, key, trained, examined, compared_with)
        return self.get(model_id)

    # Questions

    def get(self, model_id: str) -> ModelRecord:
        """One model.

        Raises:
            RegistryError: there is none of that id.
        """
        with self._connect() as connection:
            return _get(connection, model_id)

    def find(self, text: str) -> ModelRecord:
        """One model by its id, or by name and alias, as in `churn@champion`.

        Raises:
            RegistryError: there is none.
        """
        name, at, alias = text.partition("@")
        if not at:
            return self.get(text)
        found = self.alias(name, alias)
        if found is None:
            raise RegistryError(
                f"{name} has no {alias}; `leadml models list` tells which models there are"
            )
        return found

    def newest(self, name: str) -> ModelRecord:
        """The model of that name that was registered last, whatever its status and its clock.

        Raises:
            RegistryError: none was ever registered.
        """
        found = self.models(name, limit=1)
        if not found:
            raise RegistryError(f"no {name} model was registered yet; materialize {name}_model")
        return found[0]

    def models(self, name: str | None = None, limit: int | None = None) -> list[ModelRecord]:
        """Models, the one registered last first; of one name, or of all."""
        return self._select(
            "WHERE %(name)s::text IS NULL OR name = %(name)s"
            " ORDER BY registration DESC LIMIT %(limit)s",
            name=name,
            limit=limit,
        )

    def names(self) -> list[str]:
        """Names of all models that were ever registered."""
        with self._connect() as connection:
            rows = connection.execute("SELECT DISTINCT name FROM leadml.models ORDER BY name")
            return [row[0] for row in rows]

    def champion(self, name: str) -> ModelRecord | None:
        """The model that answers in production; None when none was promoted yet."""
        return self.alias(name, "champion")

    def alias(self, name: str, alias: str) -> ModelRecord | None:
        """The model that an alias points to; None when it points nowhere."""
        found = self._select(
            "WHERE model_id = (SELECT model_id FROM leadml.model_aliases"
            " WHERE name = %(name)s AND alias = %(alias)s)",
            name=name,
            alias=alias,
        )
        return found[0] if found else None

    def held(self, name: str | None = None) -> list[Held]:
        """What every alias points to; of one model, or of all."""
        with self._connect() as connection:
            return held_aliases(connection, name)

    def overview(self) -> tuple[list[Held], dict[str, ModelRecord]]:
        """What every alias points to, and by id those models and the newest of each name.

        It takes one connection, and leaves out what is long: the models' `evaluation` and `card`
        are empty.
        """
        with self._connect() as connection:
            held = held_aliases(connection)
            found = select_short_records(
                connection,
                "WHERE model_id = ANY(%(ids)s) OR model_id IN (SELECT DISTINCT ON (name) model_id"
                " FROM leadml.models ORDER BY name, registration DESC)"
                " ORDER BY name, registration DESC",
                {"ids": [one.model_id for one in held]},
            )
        return held, {record.model_id: record for record in found}

    def changes(
        self, name: str | None = None, model_id: str | None = None, limit: int = 100
    ) -> list[Change]:
        """Changes of aliases, newest first; of one name, or those that touched one model."""
        with self._connect() as connection:
            return alias_changes(connection, name, model_id, limit)

    @contextmanager
    def publication(
        self, names: Collection[str] | None = None
    ) -> Iterator[list[tuple[Held, ModelRecord]]]:
        """What every alias points to, while nobody else publishes.

        Of two who publish at once the later one reads later: what is published last is the truth.

        Args:
            names: Names of the models; all of them if None.
        """
        with self._connect() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PUBLICATION_LOCK,))
            yield [
                (held, _get(connection, held.model_id))
                for held in held_aliases(connection)
                if names is None or held.name in names
            ]

    # Files

    def load(self, model_id: str) -> LoadedModel:
        """A model in memory, after verifying its files.

        Raises:
            RegistryError: there is no such model, or its files were deleted.
            IntegrityError: its files are not what was registered.
        """
        return self._load(self.get(model_id))

    def files(self, model_id: str) -> Artifact:
        """A model's verified files.

        Raises:
            RegistryError: there is no such model, or its files were deleted.
            IntegrityError: its files are not what was registered.
        """
        record = self.get(model_id)
        require_files(record)
        return load_artifact(record.artifact_uri, self._key.read(), _manifest_sha256(record))

    def resign(self, model_id: str, old: SigningKey) -> bool:
        """Sign a model's files with the registry's key instead of an older one.

        Returns:
            Whether it was signed; not if it was before.

        Raises:
            RegistryError: there is no such model, or its files were deleted.
            IntegrityError: its files are not what was registered and signed with either key.
            OSError: the store of its files does not answer.
        """
        record = self.get(model_id)
        require_files(record)
        new = self._key.read_or_make()
        return resign_artifact(record.artifact_uri, old.read(), new, _manifest_sha256(record))

    def prune(
        self,
        retention: Retention,
        name: str | None = None,
        *,
        dry_run: bool = False,
        unknown_too: bool = False,
        now: datetime | None = None,
    ) -> Pruning:
        """Delete the files of old models and folders that nobody registered, as in `Pruner`."""
        pruner = Pruner(self._connect, open_store(self._artifacts))
        return pruner.prune(retention, name, dry_run=dry_run, unknown_too=unknown_too, now=now)

    # Changes

    def promote(
        self,
        model_id: str,
        by: str,
        *,
        automatic: bool = False,
        force: bool = False,
        reason: str | None = None,
    ) -> ModelRecord:
        """Make a model the champion of its name; the champion so far becomes `previous`.

        Promoting the champion changes nothing.

        Args:
            model_id: The model.
            by: Who or what asks, for the record.
            automatic: Whether no person asks: then the model must have been compared with the
                champion of this moment, and must not have been champion before (somebody took it
                back).
            force: Whether a model is promoted that its gate rejected, or that was not compared with
                the champion of this moment.
            reason: Why; needed to force.

        Raises:
            PromotionRefusedError: it may not be promoted; the message says why.
            RegistryError: there is no such model, or the store of its files does not answer.
            IntegrityError: its files are not what was registered.
        """
        with self._connect() as connection:
            record = _get(connection, model_id)
            forced = overrules(record, force, reason)
            require_files(record)
            if not automatic:
                overrules_comparison(connection, record, force, reason)
            self._require_sound(record)
            alias_lock(connection)
            require_files(_get(connection, model_id))
            if automatic:
                require_present_comparison(connection, record)
            else:
                # Again: somebody may have promoted another one while the files were verified.
                forced |= overrules_comparison(connection, record, force, reason)
            order = Order("promote", by, forced, reason)
            make_champion(connection, record.name, model_id, order)
            return _get(connection, model_id)

    def rollback(self, name: str, by: str, reason: str | None = None) -> ModelRecord:
        """Make the previous champion the champion again; the two change places.

        Raises:
            RegistryError: there was no champion before this one, somebody changed the aliases
                meanwhile, or the store of its files does not answer.
            IntegrityError: its files are not what was registered.
        """
        with self._connect() as connection:
            previous = _pointed(connection, name).get("previous")
            if previous is None:
                raise RegistryError(
                    f"{name} has no previous champion to go back to; `leadml models promote "
                    "MODEL_ID` makes any model champion that passed its gate"
                )
            self._require_sound(_get(connection, previous))
            alias_lock(connection)
            pointed = _pointed(connection, name)
            if pointed.get("previous") != previous:
                raise RegistryError(
                    f"{name} was not rolled back: somebody changed its champion meanwhile, to "
                    f"{pointed.get('champion')}; look at `leadml models history {name}` first"
                )
            require_files(_get(connection, previous))
            make_champion(connection, name, previous, Order("rollback", by, False, reason))
            return _get(connection, previous)

    def challenge(
        self,
        model_id: str,
        share: float,
        by: str,
        *,
        force: bool = False,
        reason: str | None = None,
    ) -> ModelRecord:
        """Let a model answer for a share of the entities, beside the champion.

        A challenger that is there already is replaced.

        Args:
            model_id: The model.
            share: Share of the entities, more than 0 and less than 1.
            by: Who or what asks, for the record.
            force: Whether a model that its gate rejected may answer all the same.
            reason: Why; needed to force.

        Raises:
            RegistryError: there is no such model, it is the champion, there is no champion, the
                gate rejected it, or the store of its files does not answer.
            IntegrityError: its files are not what was registered.
        """
        if not 0 < share < 1:
            raise RegistryError(
                f"a challenger's share is more than 0 and less than 1, as in 0.1; not {share:g}"
            )
        with self._connect() as connection:
            record = _get(connection, model_id)
            order = Order("challenge", by, overrules(record, force, reason), reason)
            self._require_sound(record)
            alias_lock(connection)
            require_files(_get(connection, model_id))
            champion = _pointed(connection, record.name).get("champion")
            if champion is None:
                raise RegistryError(
                    f"{record.name} has no champion to challenge; promote a model first"
                )
            if champion == model_id:
                raise RegistryError(f"{model_id} is the champion and can't challenge itself")
            make_challenger(connection, record.name, model_id, share, order)
            return _get(connection, model_id)

    def end_challenge(self, name: str, by: str, reason: str | None = None) -> ModelRecord:
        """Let the challenger answer no more, and return it.

        Raises:
            RegistryError: there is none.
        """
        with self._connect() as connection:
            alias_lock(connection)
            challenger = _pointed(connection, name).get("challenger")
            if challenger is None:
                raise RegistryError(f"{name} has no challenger whose challenge could end")
            withdraw_challenger(connection, name, Order("end", by, False, reason))
            return _get(connection, challenger)

    def _require_sound(self, record: ModelRecord) -> None:
        """Load a model that is about to answer; before the lock, so that a slow store stops nobody.

        Raises:
            RegistryError: the store does not answer, so that nobody knows whether it is sound.
            IntegrityError: it is not.
        """
        try:
            self._load(record)
        except OSError as error:
            raise RegistryError(
                f"{record.model_id} can't be verified, because the store of its files does not "
                f"answer ({error_words(error)}); no alias was changed. Give the command again "
                "when it is back"
            ) from error

    def _load(self, record: ModelRecord) -> LoadedModel:
        require_files(record)
        return load_model(record.artifact_uri, self._key.read(), _manifest_sha256(record))

    def _select(self, where: str, **params: Any) -> list[ModelRecord]:
        with self._connect() as connection:
            return select_records(connection, where, params)

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(self._url, **self._options)


def _get(connection: psycopg.Connection[Any], model_id: str) -> ModelRecord:
    found = select_records(connection, "WHERE model_id = %(model_id)s", {"model_id": model_id})
    if not found:
        raise RegistryError(
            f"there is no model {model_id} in the registry; `leadml models list` tells which "
            "there are"
        )
    return found[0]


def _pointed(connection: psycopg.Connection[Any], name: str) -> dict[str, str]:
    """Ids of a name's models by alias."""
    return {held.alias: held.model_id for held in held_aliases(connection, name)}


def _manifest_sha256(record: ModelRecord) -> str:
    if record.manifest_sha256 is None:
        raise IntegrityError(
            f"{record.model_id} was registered before models' files were signed, so that they "
            "can't be verified; train the model again"
        )
    return record.manifest_sha256
