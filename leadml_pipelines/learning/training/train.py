"""From a training set to a model that is ready to be examined.

The parameters are chosen on folds inside the training rows. What the winner says of the folds'
newer rows, which it was not fitted on, is the validation part: on it the blend is judged, the
chances are calibrated, the intervals drawn and the threshold chosen. The model is then fitted on
all training rows. Nothing here looks at the test rows. One seed and one set of rows give one model,
byte for byte, whatever the number of threads; the exception is a search by optuna that ended by the
clock or was taken up after an interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.encoding import CATEGORY, Encoder, to_document
from leadml_pipelines.learning.groups import codes_of
from leadml_pipelines.learning.model import MODEL_FILE, REST_FILE, LoadedModel
from leadml_pipelines.learning.spec import ModelSpec, SpecError
from leadml_pipelines.learning.split import Fold, folds, order_of, train_test
from leadml_pipelines.learning.training.blend import choose_weights
from leadml_pipelines.learning.training.calibration import Calibration, fit_calibration
from leadml_pipelines.learning.training.further import Further, fit_further, fits_of_further
from leadml_pipelines.learning.training.linear import fit_linear
from leadml_pipelines.learning.training.rows import RowNumbers, Rows, Vector
from leadml_pipelines.learning.training.threshold import (
    best_threshold,
    group_thresholds,
    ideal_threshold,
)
from leadml_pipelines.learning.training.trees import (
    ROUNDS_UNSTOPPED,
    base_params,
    fit_trees,
    link_of,
    usable_device,
)
from leadml_pipelines.learning.training.tuning import Tuned, fits_of_search, score, search
from leadml_pipelines.learning.training.venn_abers import fit_venn_abers
from leadml_pipelines.learning.training_set import TrainingSet
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is under way; often, and the same step may come
many times. To cancel, raise in it: a training ends within a moment, and has left nothing behind."""

FORMAT = 3
"""Version of the manifest; since 3 a companion is asked given that anything comes true."""
QUANTILES = 1_001
"""How finely the training population's values are kept, for the 0-100 ranks."""
DIMENSION_ROWS = 4_000
"""Training rows by which the dimensions are ranked."""
RUNNER_UP_FILE = "runner_up.ubj"

_SECRET = ("nthread", "device", "seed", "eval_metric")
"""Parameters that do not tell what the model is."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model, not yet examined, not yet registered.

    Attributes:
        spec: Its declaration.
        files: Content by file name: trees in XGBoost's UBJSON, the rest in joblib's format.
        manifest: All that serving needs besides; without `model_id`, which the registry gives.
        params: Parameters of the trees, and `rounds`.
        tuning: What the search saw, or why there was none.
        validation: What was chosen on the validation part, and why: `rows`, `blend`,
            `calibration`, `threshold`, and of the companions what `further.Further` records.
        counts: Rows on every side, and what was left out.
        training_set_hash: Hash of the training set.
        trained_at: When training ended.
        seconds: How long it took.
        seed: Of everything random.
        train: The training rows.
        test: The newest rows, which no choice has seen.
    """

    spec: ModelSpec
    files: Mapping[str, bytes] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    params: Mapping[str, Any]
    tuning: Mapping[str, Any]
    validation: Mapping[str, Any]
    counts: Mapping[str, int]
    training_set_hash: str
    trained_at: datetime
    seconds: float
    seed: int
    train: pd.DataFrame = field(repr=False)
    test: pd.DataFrame = field(repr=False)

    def load(self, model_id: str = "unregistered") -> LoadedModel:
        """The model in memory, as serving would have it."""
        return LoadedModel({**self.manifest, "model_id": model_id}, self.files)


def train(
    spec: ModelSpec,
    training_set: TrainingSet,
    *,
    seed: int,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    journal: Path | None = None,
) -> TrainedModel:
    """Search, choose, fit.

    Args:
        spec: The model's declaration.
        training_set: Its rows.
        seed: Same seed, same model.
        threads: Threads of XGBoost; all cores if None.
        device: `cpu` or `cuda`; where there is no GPU the CPU is taken, with a warning.
        progress: Told of each step; an exception it raises ends the training.
        journal: File in which optuna's trials are kept, so that an interrupted search goes on.

    Raises:
        SpecError: the groups are by something that is no category among the features.
        TooLittleDataError: the data is too short for the horizon, or one-sided.
    """
    started = time.perf_counter()
    frame = training_set.frame
    types = {column.name: column.type for column in training_set.features}
    if spec.group_by and types.get(spec.group_by) != CATEGORY:
        raise SpecError(
            f"{spec.name} has groups by {spec.group_by}, which is no category among its features"
        )
    split = train_test(
        spec, frame, data_start=training_set.data_start, data_end=training_set.data_end
    )
    chosen = folds(spec, frame, split.train)
    rows = _rows(spec, training_set, split.train)
    base = base_params(spec, seed=seed, threads=threads, device=usable_device(device))

    searching = fits_of_search(spec, chosen)
    total = searching + len(chosen) + fits_of_further(spec) + 2
    say = progress or (lambda done, of, text: None)

    def tell(done: int, text: str) -> None:
        say(done, total, text)

    tuned = _tune(spec, base, rows, chosen, tell, journal)
    valid = _validate(spec, base, tuned, rows, chosen, lambda at, text: tell(searching + at, text))
    done = searching + len(chosen)
    tell(done, f"fitting on {len(split.train):,} rows")
    members, files, linear = _fit_members(
        spec, base, tuned, valid.weights, rows, split.train, lambda: tell(done, "fitting")
    )
    further = fit_further(
        spec, base, tuned.params, rows, frame, split.train, chosen,
        lambda at, text: tell(done + 1 + at, text),
    )  # fmt: skip
    files.update(further.files)

    manifest = {
        "format": FORMAT,
        "name": spec.name,
        "description": spec.description,
        "entity": spec.entity,
        "objective": spec.objective,
        "link": link_of(base),
        "population": spec.population,
        "horizon_seconds": spec.horizon.total_seconds(),
        "threshold": valid.threshold,
        "risk_levels": list(spec.risk_levels) if spec.risk_levels else None,
        "group_by": spec.group_by or None,
        "groups": [
            {"word": group.word, "threshold": threshold, "risk_levels": group.risk_levels}
            for group, threshold in zip(
                map(spec.group_of, (group.word for group in spec.groups)),
                valid.group_thresholds,
                strict=True,
            )
        ],
        "factors": spec.factors,
        "members": members,
        **further.manifest,
        **to_document(rows.encoder),
        "dimensions": {column.name: column.dimension for column in training_set.features},
        "spec_hash": spec.hash,
        "training_set_hash": training_set.hash,
    }
    tell(total - 1, "ranking the training population")
    files[REST_FILE] = _rest(manifest, files, valid, further, linear, rows, split.train, seed)
    tell(total, "done")
    return TrainedModel(
        spec=spec,
        files=files,
        manifest=manifest,
        params={
            **{name: value for name, value in base.items() if name not in _SECRET},
            **tuned.params,
            "rounds": tuned.rounds,
        },
        tuning=tuned.record,
        validation={**valid.record, **further.record},
        counts={
            **training_set.counts,
            "train_rows": len(split.train),
            "test_rows": len(split.test),
            "gap_rows": split.gap_rows,
        },
        training_set_hash=training_set.hash,
        trained_at=utc_now(),
        seconds=time.perf_counter() - started,
        seed=seed,
        train=frame.iloc[split.train],
        test=frame.iloc[split.test],
    )


def journal_of(folder: Path, spec: ModelSpec, training_set: TrainingSet, seed: int) -> Path:
    """Where a search for these rows, this declaration and this seed keeps its trials.

    With another version of XGBoost they are trials of something else.
    """
    made_by = f"{seed}-{metadata.version('xgboost')}"
    return folder / spec.name / f"{spec.hash[:12]}-{training_set.hash[:12]}-{made_by}.log"


@dataclass(frozen=True)
class _Valid:
    """What was chosen on the validation part.

    Attributes:
        weights: Weight of each member: `trees`, `runner_up`, `linear`.
        calibration: From raw scores to chances or values.
        venn_abers: Content of the intervals; None where there are none.
        threshold: From which chance the answer is yes.
        group_thresholds: The same of each group, in the order of the spec.
        record: What was seen, JSON-ready.
    """

    weights: Mapping[str, float]
    calibration: Calibration
    venn_abers: Mapping[str, Any] | None
    threshold: float
    group_thresholds: Sequence[float]
    record: Mapping[str, Any]


def _rows(spec: ModelSpec, training_set: TrainingSet, train: RowNumbers) -> Rows:
    frame = training_set.frame
    encoder = Encoder.fit(training_set.features, frame.iloc[train])
    _, groups = np.unique(frame["entity_id"].to_numpy(str), return_inverse=True)
    return Rows(
        encoder=encoder,
        values=encoder.encode(frame),
        labels=frame["label"].to_numpy(np.float64),
        order=order_of(spec, frame).astype("datetime64[us, UTC]").astype("int64").to_numpy(),
        groups=groups.astype(np.int64),
    )


def _tune(
    spec: ModelSpec,
    base: Mapping[str, Any],
    rows: Rows,
    chosen: list[Fold],
    tell: Callable[[int, str], None],
    journal: Path | None,
) -> Tuned:
    if chosen:
        return search(spec, base, rows, chosen, tell, journal)
    reason = "the training part is too short for a validation fold; first of the grid taken"
    rounds = min(ROUNDS_UNSTOPPED, spec.rounds)
    return Tuned(dict(spec.grid[0]), rounds, {"skipped": reason}, None)


def _validate(
    spec: ModelSpec,
    base: Mapping[str, Any],
    tuned: Tuned,
    rows: Rows,
    chosen: list[Fold],
    tell: Callable[[int, str], None],
) -> _Valid:
    """Choose blend, calibration and threshold by what the winner says of the folds' newer rows."""
    link = link_of(base)
    if not chosen:
        threshold = ideal_threshold(spec.cost)
        each = [ideal_threshold(group.cost or spec.cost) for group in spec.groups]
        nothing = {"rows": 0, "reason": "no validation fold"}
        return _Valid(
            {"trees": 1.0}, Calibration("none", link=link), None, threshold, each, nothing
        )
    raw: dict[str, list[Vector]] = {}
    for number, fold in enumerate(chosen):
        text = f"validation, fold {number + 1} of {len(chosen)}"
        said = _members_on(spec, base, tuned, rows, fold, partial(tell, number, text))
        for name, values in said.items():
            raw.setdefault(name, []).append(values)
    valid = np.concatenate([fold.valid for fold in chosen])
    together = {name: np.concatenate(parts) for name, parts in raw.items()}
    labels, groups = rows.labels[valid], rows.groups[valid]
    weights, blend = choose_weights(
        together, labels, groups, lambda truth, guess: score(spec, base, truth, guess)
    )
    blended = np.sum([weight * together[name] for name, weight in weights.items()], axis=0)
    record: dict[str, Any] = {"rows": len(valid)}
    if len(together) > 1:
        record["blend"] = blend
    blocks = np.repeat(np.arange(len(chosen)), [len(fold.valid) for fold in chosen])
    fitted = fit_calibration(spec.calibration, blended, labels, blocks, groups, link=link)
    record["calibration"] = fitted.record
    if spec.objective != "classification":
        return _Valid(weights, fitted.calibration, None, 0.0, (), record)
    chances, codes = fitted.crossed, _groups(spec, rows, valid)
    each, apart = group_thresholds(spec.groups, codes, chances, labels, groups, spec.cost)
    rest = codes < 0
    if not rest.any():
        rest[:] = True
    threshold, seen = best_threshold(chances[rest], labels[rest], spec.cost)
    record["threshold"] = {**seen, "groups": apart} if apart else seen
    intervals = fit_venn_abers(blended, labels, groups).to_arrays()
    return _Valid(weights, fitted.calibration, intervals, threshold, each, record)


def _groups(spec: ModelSpec, rows: Rows, chosen: RowNumbers) -> npt.NDArray[np.intp]:
    """The place of each row's group in the spec, -1 where it is in none."""
    if not spec.groups:
        return np.full(len(chosen), -1, np.intp)
    words = [group.word for group in spec.groups]
    return codes_of(rows.encoder, spec.group_by, words, rows.values[chosen])


def _members_on(
    spec: ModelSpec,
    base: Mapping[str, Any],
    tuned: Tuned,
    rows: Rows,
    fold: Fold,
    heartbeat: Callable[[], None],
) -> dict[str, Vector]:
    """Raw scores of each member on the newer rows of a fold."""
    values = rows.values[fold.valid]

    def trees(params: Mapping[str, Any]) -> Vector:
        fitted = fit_trees(
            spec, {**base, **params}, rows, fold.train, rounds=tuned.rounds, heartbeat=heartbeat
        )
        return fitted.raw_scores(values)

    said = {"trees": trees(tuned.params)}
    if spec.learner == "stack":
        if tuned.runner_up is not None:
            said["runner_up"] = trees(tuned.runner_up)
        said["linear"] = _fit_linear(spec, base, rows, fold.train).raw_scores(values)
    return said


def _fit_members(
    spec: ModelSpec,
    base: Mapping[str, Any],
    tuned: Tuned,
    weights: Mapping[str, float],
    rows: Rows,
    chosen: RowNumbers,
    heartbeat: Callable[[], None],
) -> tuple[list[dict[str, Any]], dict[str, bytes], Mapping[str, Any] | None]:
    """The members that have a weight, fitted on all training rows: manifest, files, linear."""
    members: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    linear = None
    wanted = {"trees": (MODEL_FILE, tuned.params), "runner_up": (RUNNER_UP_FILE, tuned.runner_up)}
    for name, weight in weights.items():
        if name == "linear":
            linear = _fit_linear(spec, base, rows, chosen).to_arrays()
            members.append({"kind": "linear", "weight": weight})
            continue
        file, params = wanted[name]
        fitted = fit_trees(
            spec, {**base, **(params or {})}, rows, chosen, rounds=tuned.rounds,
            heartbeat=heartbeat,
        )  # fmt: skip
        files[file] = bytes(fitted.booster.save_raw("ubj"))
        members.append({"kind": "trees", "file": file, "weight": weight, "shift": fitted.shift})
    return members, files, linear


def _fit_linear(spec: ModelSpec, base: Mapping[str, Any], rows: Rows, chosen: RowNumbers) -> Any:
    return fit_linear(
        rows.encoder,
        rows.values[chosen],
        rows.labels[chosen],
        objective=spec.objective,
        seed=base["seed"],
    )


def _rest(
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    valid: _Valid,
    further: Further,
    linear: Mapping[str, Any] | None,
    rows: Rows,
    chosen: RowNumbers,
    seed: int,
) -> bytes:
    """What is neither trees nor JSON: calibration, intervals, ranks, the linear member."""
    rest: dict[str, Any] = {
        "calibration": valid.calibration.to_arrays(),
        "venn_abers": valid.venn_abers,
        "linear": linear,
        "occurs_calibration": further.calibration,
    }
    unranked = {"quantiles": np.zeros(1), "dimension_quantiles": {}, "near_quantiles": {}}
    model = LoadedModel(
        {**manifest, "model_id": "unregistered"},
        {**files, REST_FILE: _packed({**rest, **unranked})},
    )
    points = np.linspace(0, 1, QUANTILES)
    rest["quantiles"] = np.quantile(model.raw_scores(rows.values[chosen]), points)
    sample = np.sort(np.random.default_rng(seed).permutation(chosen)[:DIMENSION_ROWS])
    sums = model.dimension_sums(model.contributions(rows.values[sample]))
    rest["dimension_quantiles"] = {
        name: np.quantile(values, points) for name, values in sums.items()
    }
    chances = model.chances(rows.values[chosen])
    rest["near_quantiles"] = {
        companion.name: np.quantile(chances[companion.name][:, 0], points)
        for companion in model.companions
        if companion.answer == "urgency"
    }
    return _packed(rest)


def _packed(content: Mapping[str, Any]) -> bytes:
    import joblib

    buffer = BytesIO()
    joblib.dump(dict(content), buffer)
    return buffer.getvalue()
