"""The model registry: rows in PostgreSQL, files in the artifact folder, one champion per model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.artifacts import IntegrityError, write_artifact
from leadml_pipelines.learning.examination import examine
from leadml_pipelines.learning.model import MANIFEST_FILE, LoadedModel, load_model
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import require_utc, utc_now

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.learning.train import TrainedModel

_LOCK = 0x1EAD_0004
"""Key of the advisory lock under which ids are given out and aliases change."""
_PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "duckdb")
_JSON_FIELDS = (
    "signature", "package_versions", "params", "tuning", "counts", "metrics", "baseline", "sha256",
    "gate_reasons",
)  # fmt: skip


class RegistryError(UserError, LookupError):
    """A model or an alias that is not there, or may not become what was asked."""


@dataclass(frozen=True)
class ModelRecord:
    """A registered model.

    Attributes:
        model_id: Such as `churn_20240115_103000`.
        name: Name of the model.
        status: candidate, rejected, champion, challenger, previous or retired.
        description: One sentence.
        objective: classification or regression.
        threshold: Probability from which the prediction is yes.
        horizon: How far it looks ahead.
        signature: Name and type of each feature, in the order of its rows.
        spec_hash: Hash of its declaration.
        training_set_hash: Hash of its rows.
        code_version: Version of LeadML that trained it.
        package_versions: Versions of the packages that did.
        params: Parameters of the learner.
        tuning: What the search saw.
        counts: Rows on every side, and what was left out.
        metrics: On the test rows.
        baseline: The replaced heuristic's, on the same rows.
        passed_gate: Whether it may be promoted.
        gate_reasons: Why, sentence by sentence.
        artifact_uri: Address of its folder.
        sha256: SHA-256 (hex) of each file.
        trained_at: When.
        seconds: How long training took.
        promoted_at: When it last became champion.
        promoted_by: Who or what made it so.
    """

    model_id: str
    name: str
    status: str
    description: str
    objective: str
    threshold: float
    horizon: timedelta
    signature: tuple[Mapping[str, str], ...]
    spec_hash: str
    training_set_hash: str
    code_version: str
    package_versions: Mapping[str, str]
    params: Mapping[str, Any]
    tuning: Mapping[str, Any]
    counts: Mapping[str, int]
    metrics: Mapping[str, Any]
    baseline: Mapping[str, Any]
    passed_gate: bool
    gate_reasons: tuple[str, ...]
    artifact_uri: str
    sha256: Mapping[str, str]
    trained_at: datetime
    seconds: float
    promoted_at: datetime | None
    promoted_by: str | None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features, in the order of its rows."""
        return tuple(feature["name"] for feature in self.signature)

    def pointer(self) -> dict[str, Any]:
        """What serving has to know to load and to use this model, JSON-ready."""
        output = "probability" if self.objective == "classification" else "value"
        return {
            "model_id": self.model_id,
            "name": self.name,
            "description": self.description,
            "objective": self.objective,
            "artifact_uri": self.artifact_uri,
            "sha256": dict(self.sha256),
            "signature": {"inputs": [dict(f) for f in self.signature], "output": output},
            "features": list(self.features),
            "threshold": self.threshold,
            "horizon_seconds": self.horizon.total_seconds(),
            "traffic_share": 1.0,
            "metrics": dict(self.metrics),
            "trained_at": self.trained_at.isoformat(),
        }

    def load(self) -> LoadedModel:
        """The model in memory.

        Raises:
            IntegrityError: a file is missing or was changed.
        """
        return load_model(self.artifact_uri, self.sha256)


class Registry:
    """Models by name: registered, promoted, rolled back.

    Args:
        url: PostgreSQL, migrated.
        root: Folder of the artifacts.
    """

    def __init__(self, url: str, root: Path) -> None:
        self._url = url
        self._root = root

    def register(self, trained: TrainedModel) -> ModelRecord:
        """Store a trained model, pass it through the gate, and record both.

        The champion, if there is one, is measured on the candidate's test rows. Files come first,
        then the row, in one transaction: no row ever points to files that are not there.
        """
        spec = trained.spec
        record = self.champion(spec.name)
        champion, remarks = None, []
        if record is not None:
            try:
                champion = record.load()
            except IntegrityError as error:
                # A champion that can't be loaded must not keep every successor out.
                remarks.append(f"not compared with the champion {record.model_id}: {error}")
        examined = examine(
            trained,
            champion,
            compared_with=record.model_id if record else None,
            remarks=remarks,
        )
        decision = examined.decision
        with connect(self._url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            model_id = self._free_id(connection, spec.name, trained.trained_at)
            manifest = {**trained.manifest, "model_id": model_id}
            files = {
                **trained.files,
                MANIFEST_FILE: json.dumps(manifest, sort_keys=True).encode(),
            }
            sha256 = write_artifact(self._root, model_id, files)
            folder = self._root / model_id
            row = {
                "model_id": model_id,
                "name": spec.name,
                "status": "candidate" if decision.passed else "rejected",
                "description": spec.description,
                "objective": spec.objective,
                "threshold": trained.manifest["threshold"],
                "horizon": spec.horizon,
                "signature": trained.manifest["features"],
                "spec_hash": spec.hash,
                "training_set_hash": trained.training_set_hash,
                "code_version": metadata.version("leadml"),
                "package_versions": {name: metadata.version(name) for name in _PACKAGES},
                "params": trained.params,
                "tuning": trained.tuning,
                "counts": trained.counts,
                "metrics": examined.metrics,
                "baseline": examined.baseline,
                "gate_passed": decision.passed,
                "gate_reasons": decision.reasons,
                "artifact_uri": folder.absolute().as_uri(),
                "sha256": sha256,
                "trained_at": trained.trained_at,
                "seconds": trained.seconds,
            }
            try:
                _insert(connection, row)
                connection.commit()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return self.get(model_id)

    def get(self, model_id: str) -> ModelRecord:
        """One model.

        Raises:
            RegistryError: there is none of that id.
        """
        found = self._select("WHERE model_id = %(model_id)s", model_id=model_id)
        if not found:
            raise RegistryError(f"there is no model {model_id} in the registry")
        return found[0]

    def newest(self, name: str) -> ModelRecord:
        """The model of that name that was trained last, whatever its status.

        Raises:
            RegistryError: none was ever registered.
        """
        found = self._select(
            "WHERE name = %(name)s ORDER BY trained_at DESC, model_id DESC LIMIT 1", name=name
        )
        if not found:
            raise RegistryError(f"no {name} model was registered yet; materialize {name}_model")
        return found[0]

    def models(self, name: str | None = None) -> list[ModelRecord]:
        """All models, newest first; of one name, or of all."""
        return self._select(
            "WHERE %(name)s::text IS NULL OR name = %(name)s"
            " ORDER BY trained_at DESC, model_id DESC",
            name=name,
        )

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

    def load(self, model_id: str) -> LoadedModel:
        """A model in memory, after verifying its files.

        Raises:
            RegistryError: there is no such model.
            IntegrityError: a file is missing or was changed.
        """
        return self.get(model_id).load()

    def promote(self, model_id: str, by: str) -> ModelRecord:
        """Make a model the champion of its name; the champion so far becomes `previous`.

        Promoting the champion changes nothing.

        Args:
            model_id: The model.
            by: Who or what asks, for the record.

        Raises:
            RegistryError: there is no such model, or the gate rejected it.
            IntegrityError: its files are not what was registered.
        """
        record = self.get(model_id)
        if not record.passed_gate:
            raise RegistryError(
                f"{model_id} was rejected and can't be promoted: {'; '.join(record.gate_reasons)}"
            )
        record.load()
        with connect(self._url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            _move(connection, record.name, model_id, by)
        return self.get(model_id)

    def rollback(self, name: str, by: str) -> ModelRecord:
        """Make the previous champion the champion again; the two change places.

        Raises:
            RegistryError: there was no champion before this one.
        """
        previous = self.alias(name, "previous")
        if previous is None:
            raise RegistryError(f"{name} has no previous champion to go back to")
        return self.promote(previous.model_id, by)

    def _free_id(self, connection: psycopg.Connection[Any], name: str, trained_at: datetime) -> str:
        """Name and second; with a number behind it when another model ended in the same second."""
        stem = f"{name}_{require_utc(trained_at, 'trained_at'):%Y%m%d_%H%M%S}"
        candidate, number = stem, 1
        while (
            connection.execute(
                "SELECT 1 FROM leadml.models WHERE model_id = %s", (candidate,)
            ).fetchone()
            or (self._root / candidate).exists()
        ):
            number += 1
            candidate = f"{stem}_{number}"
        return candidate

    def _select(self, where: str, **params: Any) -> list[ModelRecord]:
        with connect(self._url, row_factory=dict_row) as connection:
            query = f"SELECT * FROM leadml.models {where}"  # noqa: S608 - `where` is written above
            return [_record(row) for row in connection.execute(query.encode(), params)]


def _insert(connection: psycopg.Connection[Any], row: Mapping[str, Any]) -> None:
    values = {
        name: Jsonb(_plain(value)) if name in _JSON_FIELDS else value for name, value in row.items()
    }
    columns = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    query = f"INSERT INTO leadml.models ({columns}) VALUES ({places})"  # noqa: S608 - our names
    connection.execute(query.encode(), values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _move(connection: psycopg.Connection[Any], name: str, model_id: str, by: str) -> None:
    """Point `champion` to the model and `previous` to the champion so far."""
    held = dict(
        connection.execute(
            "SELECT alias, model_id FROM leadml.model_aliases WHERE name = %s", (name,)
        ).fetchall()
    )
    champion = held.get("champion")
    if champion == model_id:
        return
    now = utc_now()
    wanted = {"champion": model_id} | ({"previous": champion} if champion else {})
    for alias, target in wanted.items():
        connection.execute(
            "INSERT INTO leadml.model_aliases (name, alias, model_id, changed_at, changed_by)"
            " VALUES (%(name)s, %(alias)s, %(target)s, %(now)s, %(by)s)"
            " ON CONFLICT (name, alias) DO UPDATE SET model_id = excluded.model_id,"
            " changed_at = excluded.changed_at, changed_by = excluded.changed_by",
            {"name": name, "alias": alias, "target": target, "now": now, "by": by},
        )
        connection.execute(
            "INSERT INTO leadml.model_alias_changes (name, alias, model_id, changed_at, changed_by)"
            " VALUES (%s, %s, %s, %s, %s)",
            (name, alias, target, now, by),
        )
    connection.execute(
        "UPDATE leadml.models SET status = CASE"
        " WHEN model_id = %(model_id)s THEN 'champion'"
        " WHEN model_id = %(champion)s THEN 'previous' ELSE 'retired' END"
        " WHERE name = %(name)s"
        " AND (model_id = %(model_id)s OR status IN ('champion', 'previous'))",
        {"name": name, "model_id": model_id, "champion": champion},
    )
    connection.execute(
        "UPDATE leadml.models SET promoted_at = %s, promoted_by = %s WHERE model_id = %s",
        (now, by, model_id),
    )


def _record(row: dict[str, Any]) -> ModelRecord:
    content = {**row, "passed_gate": row["gate_passed"]}
    del content["gate_passed"]
    content["signature"] = tuple(content["signature"])
    content["gate_reasons"] = tuple(content["gate_reasons"])
    for name in ("trained_at", "promoted_at"):
        if content[name] is not None:
            content[name] = require_utc(content[name], name)
    return ModelRecord(**content)
