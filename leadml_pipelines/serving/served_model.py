"""A model that answers, and how it comes into memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.model import Aligner, LoadedModel, load_model
from leadml_pipelines.learning.population import Population
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.registry.store_contract import is_file_name
from leadml_pipelines.online.format import Rows, Schema
from leadml_pipelines.serving.answers import Answers
from leadml_pipelines.times import utc_now


class ForeignArtifactError(UserError):
    """A pointer names files that lie outside the folder of all artifacts."""


@dataclass(frozen=True)
class ServedModel:
    """A model that answers.

    Attributes:
        name: Such as `churn`.
        pointer: What it was loaded by.
        model: The model in memory.
        population: Who it scores.
        answers: What its answers say.
        loaded_at: Since when it answers.
    """

    name: str
    pointer: Mapping[str, Any]
    model: LoadedModel
    population: Population
    answers: Answers
    loaded_at: datetime
    _aligners: dict[int, Aligner] = field(default_factory=dict, repr=False)

    @property
    def entity_type(self) -> str:
        """What the model scores."""
        return str(self.model.manifest.get("entity", "lead"))

    def inputs(self, rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Rows of a packed batch as rows of this model.

        Raises:
            KeyError: the rows' schema lacks a feature of the model.
        """
        aligner = self._aligners.get(rows.schema.schema_id)
        if aligner is None:
            aligner = self.model.aligner(rows.schema.names, _vocabularies(rows.schema))
            self._aligners[rows.schema.schema_id] = aligner
        return aligner(rows.values)

    def fits(self, rows: Rows) -> bool:
        """Whether the rows' schema has all that this model needs."""
        try:
            self.inputs(rows.where(np.zeros(len(rows.positions), bool)))
        except KeyError:
            return False
        return all(name in rows.schema.positions for name in self.population.features)


def load(
    name: str, pointer: Mapping[str, Any], key: SigningKey, artifacts: str | Path
) -> ServedModel:
    """Load and try out the model that a pointer names. No byte is parsed before it is verified.

    Args:
        name: What the model is called.
        pointer: From Redis or from the registry.
        key: Verifies its files.
        artifacts: Address of the folder of all artifacts; nothing is read from anywhere else.

    Raises:
        ForeignArtifactError: the files would lie elsewhere.
        SigningKeyError: there is no key to verify it with.
        IntegrityError: a file is missing or is not what the pointer says.
        ValueError: the files are not this model.
        LookupError: pointer or manifest lack something.
    """
    require_ours(pointer, artifacts)
    model = load_model(str(pointer["artifact_uri"]), key.read(), str(pointer["manifest_sha256"]))
    if model.name != name or model.model_id != pointer["model_id"]:
        raise ValueError(
            f"the artifact is {model.model_id} of {model.name}, "
            f"but the pointer says {pointer['model_id']} of {name}"
        )
    population = Population(str(model.manifest.get("population", "")))
    # The first answer imports XGBoost and parses the trees: here, not in somebody's request.
    answers = Answers(model)
    answers.try_out()
    return ServedModel(name, pointer, model, population, answers, utc_now())


def require_ours(pointer: Mapping[str, Any], artifacts: str | Path) -> None:
    """Refuse a pointer to files that are not below the address of all artifacts.

    Whoever can write to Redis could otherwise make this process ask any address there is.

    Raises:
        ForeignArtifactError: they are not.
        KeyError: the pointer names none.
    """
    uri = str(pointer["artifact_uri"])
    parent, _, folder = uri.rpartition("/")
    if not is_file_name(folder) or open_store(artifacts).uri(folder) != uri:
        raise ForeignArtifactError(
            f"the pointer names files at {parent[:200]}, which is not where this app's artifacts "
            f"are ({artifacts}); give the app the LEADML_ARTIFACTS_URL that the model was "
            "registered with, or train the model again"
        )


def _vocabularies(schema: Schema) -> dict[str, tuple[str, ...]]:
    return {f.name: f.vocabulary for f in schema.fields if f.type == "category"}
