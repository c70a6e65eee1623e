"""A trained model, ready to answer. Serving imports this: NumPy at the top, XGBoost when asked.

Several members (boosted trees, perhaps a linear model) give a raw score each: log-odds, or the
logarithm of a value, or the value. Their weighted sum is the model's raw score; a calibration, a
curve that never falls, turns it into the answer. Because every member's raw score is a sum over the
features, so is the model's: the contributions are exact SHAP values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.encoding import (
    CATEGORY,
    Encoder,
    Matrix,
    from_document,
    within_float32,
)
from leadml_pipelines.learning.groups import Codes, Groups
from leadml_pipelines.learning.plain_trees import PlainTrees
from leadml_pipelines.learning.registry.artifacts import load_artifact
from leadml_pipelines.learning.training.calibration import Calibration
from leadml_pipelines.learning.training.linear import LinearMember
from leadml_pipelines.learning.training.venn_abers import VennAbers
from leadml_pipelines.learning.tree_shap import TreeShap

COMPANIONS_SINCE = 3
"""First format of the manifest whose companions are read."""

MODEL_FILE = "model.ubj"
REST_FILE = "rest.joblib"

ROWS_OF_A_THREAD = 250
"""Fewer rows are not worth a thread of their own."""
FEW_ROWS = 8
"""Fewer rows are not worth being made columns of plain trees; their raw scores are the same."""

Vector = npt.NDArray[np.float64]


class OutdatedModelError(UserError):
    """A model of a format that is no longer read; the message says what to do."""


@dataclass(frozen=True)
class Predictions:
    """What a model answers for n rows.

    Attributes:
        values: float64[n]; the calibrated chance of a classifier, the calibrated expected value
            of a regression.
        predictions: float64[n]; a classifier's 1 or 0 by the threshold of the row's group, a
            regression's score.
        scores: float64[n]; 0-100, the share of the training population with a lower raw score.
        confidence: float64[n]; 1 minus how far the outcome of one more lead would move the
            chance (the width of the Venn-Abers interval); None where there is none.
        groups: intp[n]; of a classifier the place of each row's measure (see `Groups`).
    """

    values: Vector
    predictions: Vector
    scores: Vector
    confidence: Vector | None = None
    groups: Codes | None = None


@dataclass(frozen=True)
class Contributions:
    """SHAP values of n rows, in raw units: log-odds before calibration, or the value's scale.

    Attributes:
        base: float64[n]; the raw score of nobody in particular, the same in every row.
        values: float64[n, features]; what each feature adds.
        raw: float64[n]; the raw score, `base` plus the sum of `values`.
    """

    base: Vector
    values: Matrix
    raw: Vector


@dataclass(frozen=True)
class CompanionModel:
    """A further question that the model answers about the same rows, as far ahead.

    Attributes:
        name: Such as `timing`.
        answer: `urgency` or `cross_sell`.
        words: What may come true, in the order of the chances' columns.
        levels: For urgency: from which share of the training population with a lower chance of the
            first word it is medium, and from which high.
        file: Its trees; None where the shares are the answer.
        shares: float64[words], the chance of each word if anything comes true; the same for
            everybody. None where trees tell it.
    """

    name: str
    answer: str
    words: tuple[str, ...]
    levels: tuple[float, float]
    file: str | None
    shares: Vector | None


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
        manifest: What the trainer wrote, with `model_id`.
        files: Its files by name: trees in XGBoost's UBJSON, the rest in joblib's format. They are
            parsed and unpickled when first needed, so they must have been verified before.

    Attributes:
        model_id: Such as `churn_20240115_103000`.
        name: Name of the model.
        objective: `classification` or `regression`.
        threshold: Chance from which the prediction is yes, of all who are in no group.
        groups: Who is judged by a measure of their own, and by which.
        encoder: How columns become numbers.
        features: Names of the features, in the order of a row.
        dimensions: Dimension of each feature.
        risk_levels: Chances from which the risk is medium, high, critical, of all who are in no
            group; None if it is no risk.
        factors: How many reasons an answer gives.
        companions: Further questions, in their order.

    Raises:
        OutdatedModelError: its companions are of a time when they contradicted each other.
    """

    def __init__(self, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        _require_present_companions(manifest)
        self.manifest = manifest
        self.model_id = str(manifest["model_id"])
        self.name = str(manifest["name"])
        self.objective = str(manifest["objective"])
        self.threshold = float(manifest["threshold"])
        self.encoder: Encoder = from_document(manifest)
        self.features = self.encoder.names
        self.groups = Groups(manifest, self.encoder)
        self.dimensions: Mapping[str, str] = manifest["dimensions"]
        self.risk_levels: tuple[float, ...] | None = (
            tuple(manifest["risk_levels"]) if manifest["risk_levels"] else None
        )
        self.factors = int(manifest["factors"])
        self.companions = tuple(
            CompanionModel(
                name=c["name"],
                answer=c["answer"],
                words=tuple(c["words"]),
                levels=tuple(c["levels"]),
                file=c.get("file"),
                shares=np.array(c["shares"], np.float64) if "shares" in c else None,
            )
            for c in manifest["companions"]
        )
        self._files = files

    @cached_property
    def booster(self) -> Any:
        """The first member's trees, as XGBoost's own object."""
        return self._trees[0][2]

    def predict(self, values: Matrix) -> Predictions:
        """Answer for a batch.

        Args:
            values: float64[n, features] in the order of `features`; categories as codes of this
                model's vocabularies (see `aligner`), missing as NaN.

        Raises:
            ValueError: the matrix has another shape.
        """
        raw, codes = self.raw_scores(values), self.groups.codes(values)
        if not len(raw):
            return Predictions(raw, raw, raw, raw if self._venn_abers else None, codes)
        if self.objective != "classification":
            scores = self.rank(raw)
            return Predictions(self._calibration(raw), scores, scores)
        chances = self._calibration(raw)
        confidence = self._venn_abers.confidence(raw) if self._venn_abers else None
        yes = (chances >= self.groups.thresholds(codes)).astype(np.float64)
        return Predictions(chances, yes, self.rank(raw), confidence, codes)

    def thresholds(self, values: Matrix) -> Vector:
        """float64[n]: from which chance the answer to each row is yes.

        Args:
            values: As for `predict`.
        """
        return self.groups.thresholds(self.groups.codes(values))

    def raw_scores(self, values: Matrix) -> Vector:
        """float64[n]: log-odds before calibration, or the value on the scale of the link.

        Raises:
            ValueError: the matrix has another shape.
        """
        values = self._ready(values)
        raw = np.zeros(len(values))
        if not len(values):
            return raw
        for (weight, shift, booster), plain in zip(self._trees, self._plain_trees, strict=True):
            margins = (
                _margins(booster, values) if len(values) < FEW_ROWS else _shared(plain, values)
            )
            raw += weight * (margins - shift)
        if self._linear is not None:
            weight, linear = self._linear
            raw += weight * linear.raw_scores(values)
        return raw

    def contributions(self, values: Matrix) -> Contributions:
        """Exact SHAP values: tree SHAP of the trees, centred terms of the linear member.

        They sum to the raw score up to float32's precision, in which trees are computed.

        Args:
            values: As for `predict`.

        Raises:
            ValueError: the matrix has another shape.
        """
        values = self._ready(values)
        total = np.zeros((len(values), len(self.features) + 1))
        if len(values):
            for (weight, shift, _), shap in zip(self._trees, self._tree_shap, strict=True):
                total += weight * shap(values)
                total[:, -1] -= weight * shift
            if self._linear is not None:
                weight, linear = self._linear
                total[:, :-1] += weight * linear.contributions(values)
                total[:, -1] += weight * linear.base
        return Contributions(total[:, -1], total[:, :-1], total.sum(axis=1))

    def dimension_scores(self, contributions: Contributions) -> dict[str, tuple[Vector, Vector]]:
        """By dimension: the sum of its features' contributions, and its 0-100 rank, float64[n].

        The rank is the share of the training population whose sum is lower. The sums of all
        dimensions and the base are the raw score.
        """
        quantiles = self._rest["dimension_quantiles"]
        return {
            name: (sums, _rank(quantiles[name], sums))
            for name, sums in self.dimension_sums(contributions).items()
        }

    def dimension_sums(self, contributions: Contributions) -> dict[str, Vector]:
        """By dimension: the sum of its features' contributions, float64[n]."""
        names, members = self._dimension_members
        sums = contributions.values @ members
        return {name: sums[:, at] for at, name in enumerate(names)}

    def occurs(self, values: Matrix) -> Vector:
        """The chance that the label is over 0, float64[n]: a classifier's own, or that of a head.

        Raises:
            ValueError: the matrix has another shape, or the model was not taught to tell it.
        """
        if self.objective == "classification":
            return self.predict(values).values
        if self._occurs is None:
            raise ValueError(f"{self.model_id} has no companions, and can't tell what occurs")
        shift, booster, calibration = self._occurs
        values = self._ready(values)
        return calibration(_margins(booster, values) - shift) if len(values) else np.zeros(0)

    def chances(self, values: Matrix) -> dict[str, Matrix]:
        """By companion: the chance of each of its words, float64[n, words].

        It is the chance that anything occurs times that of the word if it does. So no word, and no
        sum of words, is more probable than that anything occurs; the rest is other words.
        """
        if not self.companions:
            return {}
        occurs = self.occurs(values)[:, None]
        return {
            companion.name: occurs * self._given_occurs(companion, booster, values)
            for companion, booster in zip(self.companions, self._companions, strict=True)
        }

    def near_ranks(self, companion: CompanionModel, near: Vector) -> Vector:
        """0-100: the share of the training population whose chance of the first word is lower.

        Args:
            companion: One of `companions` that answers urgency.
            near: float64[n], first column of its `chances`.
        """
        return _rank(self._rest["near_quantiles"][companion.name], near)

    def rank(self, raw: Vector) -> Vector:
        """0-100: the share of the training population with a lower raw score, ties counted half."""
        return _rank(self._rest["quantiles"], raw)

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

    def _given_occurs(self, companion: CompanionModel, booster: Any, values: Matrix) -> Matrix:
        """The chance of each word if anything occurs: float64[n, words], or [1, words]."""
        if companion.shares is not None:
            return companion.shares[None, :]
        if not len(values):
            return np.empty((0, len(companion.words)))
        said = booster.inplace_predict(self._ready(values), validate_features=False)
        # Computed in float32, they add up to 1 within a millionth only.
        chance = np.asarray(said, np.float64)
        chance /= chance.sum(axis=1, keepdims=True)
        return np.asarray(chance[:, : len(companion.words)], np.float64)

    def _ready(self, values: Matrix) -> Matrix:
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise ValueError(
                f"{self.model_id} takes rows of {len(self.features)} features, "
                f"not a matrix of shape {values.shape}"
            )
        return within_float32(values)

    @cached_property
    def _rest(self) -> Mapping[str, Any]:
        import joblib

        rest: Mapping[str, Any] = joblib.load(BytesIO(self._files[REST_FILE]))
        return rest

    @cached_property
    def _trees(self) -> list[tuple[float, float, Any]]:
        """Of each member with trees: its weight, what class weights added to it, the trees."""
        return [
            (
                float(member["weight"]),
                float(member["shift"]),
                _booster(self._files[member["file"]]),
            )
            for member in self.manifest["members"]
            if member["kind"] == "trees"
        ]

    @cached_property
    def _plain_trees(self) -> list[PlainTrees]:
        """The trees of each such member, written anew for many rows at once."""
        return [PlainTrees.of(booster) for _, _, booster in self._trees]

    @cached_property
    def _tree_shap(self) -> list[TreeShap]:
        """The trees of each such member, read for their contributions."""
        return [TreeShap.of(booster, len(self.features)) for _, _, booster in self._trees]

    @cached_property
    def _linear(self) -> tuple[float, LinearMember] | None:
        for member in self.manifest["members"]:
            if member["kind"] == "linear":
                return float(member["weight"]), LinearMember.from_arrays(self._rest["linear"])
        return None

    @cached_property
    def _companions(self) -> list[Any]:
        """The trees of each companion; None where shares are its answer."""
        return [_booster(self._files[c.file]) if c.file else None for c in self.companions]

    @cached_property
    def _occurs(self) -> tuple[float, Any, Calibration] | None:
        """Of the head that tells whether anything occurs: shift, trees, calibration."""
        head = self.manifest.get("occurs")
        if head is None:
            return None
        calibration = Calibration.from_arrays(self._rest["occurs_calibration"])
        return float(head["shift"]), _booster(self._files[head["file"]]), calibration

    @cached_property
    def _calibration(self) -> Calibration:
        return Calibration.from_arrays({**self._rest["calibration"], "link": self.manifest["link"]})

    @cached_property
    def _venn_abers(self) -> VennAbers | None:
        arrays = self._rest.get("venn_abers")
        return VennAbers.from_arrays(arrays) if arrays else None

    @cached_property
    def _dimension_members(self) -> tuple[list[str], Matrix]:
        """The dimensions, and which feature belongs to which: float64[features, dimensions]."""
        names = list(dict.fromkeys(self.dimensions[feature] for feature in self.features))
        members = np.zeros((len(self.features), len(names)))
        for at, feature in enumerate(self.features):
            members[at, names.index(self.dimensions[feature])] = 1
        return names, members


def _require_present_companions(manifest: Mapping[str, Any]) -> None:
    if manifest["companions"] and int(manifest["format"]) < COMPANIONS_SINCE:
        raise OutdatedModelError(
            f"{manifest['model_id']} is of format {manifest['format']}, in which the chances of "
            f"its companions were apart from each other and could contradict; train it anew: "
            f"leadml models train {manifest['name']}"
        )


def load_model(uri: str, key: bytes | None, manifest_sha256: str | None = None) -> LoadedModel:
    """Load a model's folder after verifying every file.

    Args:
        uri: Address of the folder.
        key: The key that it was signed with.
        manifest_sha256: SHA-256 (hex) of the manifest, from the registry or the pointer.

    Raises:
        IntegrityError: the folder is not what was registered.
        OutdatedModelError: it is of a format that is no longer read.
    """
    artifact = load_artifact(uri, key, manifest_sha256)
    return LoadedModel(artifact.manifest, artifact.files)


def _margins(booster: Any, values: Matrix) -> Vector:
    """Raw scores of trees."""
    margin = booster.inplace_predict(values, predict_type="margin", validate_features=False)
    return np.asarray(margin, np.float64)


def _shared(plain: PlainTrees, values: Matrix) -> Vector:
    """Raw scores of trees; many rows are shared out between as many threads as there are cores."""
    parts = min(_cores(), len(values) // ROWS_OF_A_THREAD)
    if parts < 2:
        return plain.raw_scores(values)
    return np.concatenate(list(_pool().map(plain.raw_scores, np.array_split(values, parts))))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@cache
def _pool() -> ThreadPoolExecutor:
    """One pool for all models and requests, so that many batches at once do not crowd the cores."""
    return ThreadPoolExecutor(_cores(), thread_name_prefix="trees")


def _booster(content: bytes) -> Any:
    """Trees in memory, with one thread: a few rows are faster without a pool."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(content))
    booster.set_param({"nthread": 1})
    return booster


def _rank(quantiles: Vector, values: Vector) -> Vector:
    below = np.searchsorted(quantiles, values, "left")
    upto = np.searchsorted(quantiles, values, "right")
    return np.asarray((below + upto) * (50.0 / len(quantiles)), np.float64)
