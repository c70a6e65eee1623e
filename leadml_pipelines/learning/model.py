"""A trained model, ready to answer. Serving imports this: NumPy at the top, XGBoost when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.artifacts import load_artifact
from leadml_pipelines.learning.encoding import CATEGORY, Encoder, Matrix, from_document

MODEL_FILE = "model.ubj"

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """What a model answers for n rows.

    Attributes:
        values: float64[n]; the probability of a classifier, the expected value of a regression.
        predictions: float64[n]; a classifier's 1 or 0 by the model's threshold, a regression's
            score.
        scores: float64[n]; 0-100, the share of the training population with a lower value.
    """

    values: Vector
    predictions: Vector
    scores: Vector


@dataclass(frozen=True)
class Aligner:
    """Brings rows of another schema into a model's order and vocabularies.

    Attributes:
        positions: Where each feature of the model stands in the other schema.
        tables: By place in the model: the model's code for each code of the other schema; one more
            entry at the end, NaN, for codes that are out of range or missing.
    """

    positions: npt.NDArray[np.intp]
    tables: Mapping[int, Vector]

    def __call__(self, values: Matrix) -> Matrix:
        """float64[n, other schema] to float64[n, model]."""
        aligned = values[:, self.positions]
        for at, table in self.tables.items():
            codes = aligned[:, at]
            unknown = len(table) - 1
            known = (codes >= 0) & (codes < unknown)
            aligned[:, at] = table[np.where(known, codes, unknown).astype(np.intp)]
        return aligned


class LoadedModel:
    """A model in memory. Several threads may use it at once.

    Args:
        manifest: What `TrainedModel.manifest` wrote.
        booster: The model in XGBoost's UBJSON.
    """

    def __init__(self, manifest: Mapping[str, Any], booster: bytes) -> None:
        self.manifest = manifest
        self.model_id = str(manifest["model_id"])
        self.name = str(manifest["name"])
        self.objective = str(manifest["objective"])
        self.threshold = float(manifest["threshold"])
        self.encoder: Encoder = from_document(manifest)
        self.features = self.encoder.names
        self._quantiles = np.asarray(manifest["quantiles"], np.float64)
        self._bytes = booster

    @cached_property
    def booster(self) -> Any:
        """XGBoost's own object, with one thread: a few rows are faster without a pool."""
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(self._bytes))
        booster.set_param({"nthread": 1})
        return booster

    def predict(self, values: Matrix) -> Predictions:
        """Answer for a batch.

        Args:
            values: float64[n, features] in the order of `features`; categories as codes of this
                model's vocabularies (see `aligner`), missing as NaN.

        Raises:
            ValueError: the matrix has another shape.
        """
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise ValueError(
                f"{self.model_id} takes rows of {len(self.features)} features, "
                f"not a matrix of shape {values.shape}"
            )
        if not len(values):
            empty = np.empty(0)
            return Predictions(empty, empty, empty)
        raw = self.booster.inplace_predict(values, validate_features=False)
        numbers = np.asarray(raw, np.float64)
        scores = self.rank(numbers)
        if self.objective == "classification":
            return Predictions(numbers, (numbers >= self.threshold).astype(np.float64), scores)
        return Predictions(numbers, scores, scores)

    def rank(self, values: Vector) -> Vector:
        """0-100: the share of the training population whose value is lower, ties counted half."""
        below = np.searchsorted(self._quantiles, values, "left")
        upto = np.searchsorted(self._quantiles, values, "right")
        return np.asarray((below + upto) * (50.0 / len(self._quantiles)), np.float64)

    def aligner(
        self, names: Sequence[str], vocabularies: Mapping[str, Sequence[str]] | None = None
    ) -> Aligner:
        """How to turn rows of another schema into rows of this model; make it once per schema.

        Args:
            names: Features of the other schema, in its order.
            vocabularies: Its words for each category, by feature.

        Raises:
            KeyError: the schema lacks a feature, or the vocabulary of one.
        """
        places = {name: at for at, name in enumerate(names)}
        absent = [name for name in self.features if name not in places]
        if absent:
            raise KeyError(
                f"{self.model_id} needs the feature {absent[0]}, which the schema does not have"
            )
        tables = {}
        for at, column in enumerate(self.encoder.columns):
            if column.type != CATEGORY:
                continue
            if vocabularies is None or column.name not in vocabularies:
                raise KeyError(f"the schema has no vocabulary for the category {column.name}")
            codes = {
                word: float(c) for c, word in enumerate(self.encoder.vocabularies[column.name])
            }
            words = vocabularies[column.name]
            tables[at] = np.array([*(codes.get(word, np.nan) for word in words), np.nan])
        positions = np.array([places[name] for name in self.features], np.intp)
        return Aligner(positions, tables)


def load_model(uri: str, key: bytes | None, manifest_sha256: str | None = None) -> LoadedModel:
    """Load a model's folder after verifying every file.

    Args:
        uri: Address of the folder.
        key: The key that it was signed with.
        manifest_sha256: SHA-256 (hex) of the manifest, from the registry or the pointer.

    Raises:
        IntegrityError: the folder is not what was registered.
    """
    artifact = load_artifact(uri, key, manifest_sha256)
    return LoadedModel(artifact.manifest, artifact.files[MODEL_FILE])
