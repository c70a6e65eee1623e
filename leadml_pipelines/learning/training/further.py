"""What a model is taught besides its own answer: whether anything comes true, and which word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.split import Fold
from leadml_pipelines.learning.training.companions import fit_companion
from leadml_pipelines.learning.training.occurs import OCCURS_FILE, fit_occurs
from leadml_pipelines.learning.training.rows import RowNumbers, Rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Further:
    """The companions of a model, and what their answers are made of.

    Attributes:
        manifest: `companions`, and `occurs`: the head that tells whether the label is over 0, None
            where the model itself does.
        files: Trees by file name.
        calibration: Content of the calibration of that head; None where there is none.
        record: `companions` (by what each answers, and why), `companions_absent` (why not), and
            `occurs`; JSON-ready.
    """

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes] = field(repr=False)
    calibration: Mapping[str, Any] | None
    record: Mapping[str, Any]


def fits_of_further(spec: ModelSpec) -> int:
    """How many steps it takes to teach them."""
    return len(spec.companions) + _has_head(spec)


def fit_further(
    spec: ModelSpec,
    base: Mapping[str, Any],
    params: Mapping[str, Any],
    rows: Rows,
    frame: pd.DataFrame,
    chosen: RowNumbers,
    folds: Sequence[Fold],
    tell: Callable[[int, str], None],
) -> Further:
    """Teach them.

    Args:
        spec: The model's declaration.
        base: XGBoost's parameters before the search.
        params: What the search found.
        rows: All rows.
        frame: Them as a frame, with the companions' labels.
        chosen: The training rows.
        folds: The folds inside them.
        tell: Told of each step, counted from 0; called between two rounds too.
    """
    companions, files, beside, absent = [], {}, {}, {}
    for at, companion in enumerate(spec.companions):
        heartbeat = partial(tell, at, f"companion {companion.name}")
        made = fit_companion(companion, base, rows, frame, chosen, folds, heartbeat)
        if isinstance(made, str):
            absent[companion.name] = made
            continue
        companions.append(made.facts)
        beside[companion.name] = made.record
        if made.trees is not None:
            files[made.facts["file"]] = made.trees
    record = {"companions": beside, "companions_absent": absent}
    if not companions or not _has_head(spec):
        return Further({"companions": companions, "occurs": None}, files, None, record)
    heartbeat = partial(tell, len(spec.companions), "whether anything comes true")
    head = fit_occurs(spec, {**base, **params}, rows, chosen, folds, heartbeat)
    return Further(
        {"companions": companions, "occurs": head.facts},
        {**files, OCCURS_FILE: head.trees},
        head.calibration.to_arrays(),
        {**record, "occurs": head.record},
    )


def _has_head(spec: ModelSpec) -> bool:
    """Whether a head of its own tells that anything comes true; a classifier tells it itself."""
    return bool(spec.companions) and spec.objective != "classification"
