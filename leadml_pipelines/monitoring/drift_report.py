"""Drift reports that are kept: one HTML file for each comparison, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from leadml_pipelines.learning.encoding import CATEGORY
from leadml_pipelines.monitoring import drift_page
from leadml_pipelines.monitoring.drift import ColumnDrift, DriftLimits
from leadml_pipelines.monitoring.populations import SCORE, Populations
from leadml_pipelines.times import require_utc, utc_now

if TYPE_CHECKING:
    import pandas as pd

PICTURED = 30
"""Columns with pictures: the score and the furthest moved. The page's table has all of them."""
ROWS = 5_000
"""Rows of either side that the pictures are drawn from; the figures are of all rows."""
_SECONDS = 300
_STAMP = "%Y%m%dT%H%M%SZ"


class ReportError(RuntimeError):
    """A report could not be made; the message ends with what its process said last."""


def write_report(
    root: Path,
    name: str,
    sides: Populations,
    drifts: Sequence[ColumnDrift],
    limits: DriftLimits,
    sentence: str,
) -> Path:
    """Make the page of a comparison, in a process of its own that can't reach any network.

    Args:
        root: Folder of all reports.
        name: Name of the model; a folder below `root`.
        sides: What was compared.
        drifts: What was found, of every column.
        limits: From where on a column has drifted.
        sentence: The outcome in words, for the head of the page.

    Returns:
        The file; one of the same population and moment is replaced.

    Raises:
        ReportError: Evidently failed, or took minutes.
    """
    folder = root / "drift" / name
    folder.mkdir(parents=True, exist_ok=True)
    pictured = [one for one in drifts if one.name == SCORE or _has_values(one)]
    pictured.sort(key=lambda one: one.name != SCORE)
    columns = pictured[:PICTURED]
    with tempfile.TemporaryDirectory(prefix=".report.", dir=folder) as scratch:
        at = Path(scratch)
        _plain(sides.reference, columns).to_parquet(at / drift_page.BEFORE)
        _plain(sides.current, columns).to_parquet(at / drift_page.NOW)
        question = {
            "title": f"{name}: {sides.model_id} and {sides.words}",
            "sentence": sentence,
            "limit": limits.psi,
            "columns": [asdict(one) for one in drifts],
        }
        (at / drift_page.REQUEST).write_text(json.dumps(question), encoding="utf-8")
        _run(at)
        page = at / drift_page.PAGE
        page.chmod(0o644)
        stamp = f"{require_utc(sides.as_of, 'as_of'):{_STAMP}}"
        return page.replace(folder / f"{stamp}-{sides.population}.html")


def remove_old_reports(root: Path, name: str, keep_days: int, now: datetime | None = None) -> int:
    """Remove a model's reports that were made before so many days; the newest ones always stay.

    Of each population of today one.

    Returns:
        How many were removed.
    """
    oldest = (require_utc(now, "now") if now else utc_now()) - timedelta(days=keep_days)
    pages = (root / "drift" / name).glob("*.html")
    made = sorted(pages, key=lambda path: path.stat().st_mtime, reverse=True)
    newest = {path.stem.partition("-")[2]: path for path in reversed(made)}
    old = [
        path
        for path in made
        if path not in newest.values() and path.stat().st_mtime < oldest.timestamp()
    ]
    for path in old:
        path.unlink()
    return len(old)


def _run(folder: Path) -> None:
    # Addresses and passwords of our servers are none of its business.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEADML_")}
    environment = kept | {"DO_NOT_TRACK": "1", "ITERATIVE_DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", drift_page.__name__, str(folder)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ReportError(f"the drift report was not ready after {_SECONDS} s") from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ReportError(f"the drift report could not be made:\n{last}")


def _has_values(one: ColumnDrift) -> bool:
    return one.missing_before < 1 and one.missing_now < 1


def _plain(frame: pd.DataFrame, columns: Sequence[ColumnDrift]) -> pd.DataFrame:
    """A sample of the rows, of types that Evidently knows: float64, and words."""
    rows = frame.sample(ROWS, random_state=0) if len(frame) > ROWS else frame
    return rows[[one.name for one in columns]].astype(
        {one.name: object if one.type == CATEGORY else "float64" for one in columns}
    )
