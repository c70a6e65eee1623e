"""Old rows teach, new rows examine, and between them lies a gap as long as the label's horizon.

Without the gap the last training labels would look into the test period. Folds of the search are
cut the same way inside the training part, and no lead is on both sides of a fold.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.times import duration_text

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.intp]

LEAST_ROWS = 50
"""Fewest rows on either side of a split or fold that are worth fitting or measuring."""
LEAST_OF_A_CLASS = 5
"""Fewest rows of each class on either side, for a classifier."""


class TooLittleDataError(UserError, ValueError):
    """There is not enough data for the horizon; the message says how much, and the way out."""


@dataclass(frozen=True)
class TrainTest:
    """Positions of the rows on either side.

    Attributes:
        train: Positions of the training rows.
        test: Positions of the test rows.
        test_start: First moment of the test period; every training label was known by then.
        gap_rows: Rows left out because their label looks into the test period.
    """

    train: Rows
    test: Rows
    test_start: datetime
    gap_rows: int


@dataclass(frozen=True)
class Fold:
    """Positions of the rows of one validation fold.

    Attributes:
        train: Rows to fit on.
        valid: Rows to choose by.
    """

    train: Rows
    valid: Rows


def train_test(
    spec: ModelSpec, frame: pd.DataFrame, *, data_start: datetime, data_end: datetime
) -> TrainTest:
    """Split by time with a gap of the horizon.

    Args:
        spec: Says by what to split and how much to keep for the test.
        frame: Has `entity_id`, `as_of`, `created_at` and a known `label`.
        data_start: First lead's creation; for the message when this is too short.
        data_end: End of the data, likewise.

    Raises:
        TooLittleDataError: one side would be too small to learn or to measure anything.
    """
    import pandas as pd

    if frame.empty:
        raise TooLittleDataError(_too_short(spec, data_start, data_end, "no row has a known label"))
    order = order_of(spec, frame)
    start = _newest_share(spec, frame, order, spec.test_share)
    test = order >= start
    early = frame["as_of"] + pd.Timedelta(spec.horizon) <= start
    train = ~test & early
    for side, chosen in (("training", train), ("test", test)):
        problem = _problem(spec, frame["label"].to_numpy()[chosen.to_numpy()])
        if problem:
            raise TooLittleDataError(
                _too_short(spec, data_start, data_end, f"the {side} part has {problem}")
            )
    return TrainTest(
        np.flatnonzero(train),
        np.flatnonzero(test),
        start.to_pydatetime(),
        int((~test & ~early).sum()),
    )


def folds(spec: ModelSpec, frame: pd.DataFrame, train: Rows) -> list[Fold]:
    """Validation folds inside the training part, oldest first.

    The newest part of the training rows is cut into `spec.folds` blocks of time, each as large a
    share as the test. A fold validates on one block and fits on rows whose labels were known
    before it starts. Split by lead, the block holds other leads anyway; split by row, a lead may
    live on both sides, so each fold validates on a share of the leads (by a hash) and fits on the
    others. Folds with too few rows are left out.
    """
    import pandas as pd

    rows = frame.iloc[train]
    order = order_of(spec, rows)
    until = rows["as_of"] + pd.Timedelta(spec.horizon)
    share = min(spec.test_share, 0.8 / spec.folds)
    edges = [_newest_share(spec, rows, order, share * k) for k in range(spec.folds, 0, -1)]
    groups = rows["entity_id"].map(_group)
    labels = rows["label"].to_numpy()
    found: list[Fold] = []
    for number, start in enumerate(edges):
        end = edges[number + 1] if number + 1 < len(edges) else None
        inside = order >= start
        if end is not None:
            inside &= order < end
        before = (order < start) & (until <= start)
        if spec.split_by == "row":
            mine = groups % max(spec.folds, 2) == number % max(spec.folds, 2)
            inside &= mine
            before &= ~mine
        fit, valid = before.to_numpy(), inside.to_numpy()
        if not _problem(spec, labels[fit]) and not _problem(spec, labels[valid]):
            found.append(Fold(train[fit], train[valid]))
    return found


def order_of(spec: ModelSpec, frame: pd.DataFrame) -> pd.Series:
    """What the rows are ordered by in time: the leads' creation, or the rows' own moments."""
    return frame["created_at"] if spec.split_by == "lead" else frame["as_of"]


def _newest_share(
    spec: ModelSpec, frame: pd.DataFrame, order: pd.Series, share: float
) -> pd.Timestamp:
    """Where the newest share begins: of the leads when split by lead, else of the rows."""
    if spec.split_by == "lead":
        order = order[~frame["entity_id"].duplicated()]
    import pandas as pd

    # As numbers: times with a zone are sorted as objects, a hundred times slower.
    micros = np.sort(order.astype("datetime64[us, UTC]").astype("int64").to_numpy())
    at = min(int(len(micros) * (1 - share)), len(micros) - 1)
    return pd.Timestamp(micros[at], unit="us", tz="UTC")


def _group(entity_id: str) -> int:
    return zlib.crc32(entity_id.encode())


def _problem(spec: ModelSpec, labels: npt.NDArray[np.float64]) -> str:
    if len(labels) < LEAST_ROWS:
        return f"{len(labels)} rows, and needs {LEAST_ROWS}"
    if spec.objective == "classification":
        positive = int(labels.sum())
        if min(positive, len(labels) - positive) < LEAST_OF_A_CLASS:
            return (
                f"{positive} positive labels among {len(labels)} rows, "
                f"and needs {LEAST_OF_A_CLASS} of each kind"
            )
    elif np.ptp(labels) == 0:
        return f"{len(labels)} rows whose labels are all {labels[0]:g}"
    return ""


def _too_short(spec: ModelSpec, start: datetime, end: datetime, what: str) -> str:
    """A test of its share, a gap of one horizon before it, and labels that look one further."""
    span = end - start
    horizons = 1 + 1 / (1 - spec.test_share)
    needed = spec.horizon * horizons
    text = (
        f"{spec.name}: {what}. The data is {_days(span)} long ({start:%Y-%m-%d} to {end:%Y-%m-%d})"
    )
    fitting = int(span / horizons * 0.75 / timedelta(days=1))
    if span > needed * 1.1 or fitting < 1:
        return (
            f"{text}, which is long enough for a horizon of {duration_text(spec.horizon)} "
            "only with more leads in it; load more data"
            if span > needed * 1.1
            else f"{text}; a horizon of {duration_text(spec.horizon)} needs more than "
            f"{_days(needed)}. Load more data"
        )
    return (
        f"{text}; a horizon of {duration_text(spec.horizon)} needs more than {_days(needed)}. "
        f"Load more data, or set a shorter one in leadml.toml: [models.{spec.name}] "
        f'horizon = "{fitting}d"'
    )


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.0f} days"
