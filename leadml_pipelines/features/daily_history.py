"""Feature history of past days: every view as of the end of each day, from what was known then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.bulk import entities
from leadml_pipelines.features.snapshots.checks import SnapshotReport, check_snapshot
from leadml_pipelines.features.snapshots.retention import first_day_kept, prune
from leadml_pipelines.features.snapshots.tables import day_of
from leadml_pipelines.features.snapshots.writing import remove_snapshot, write_snapshot
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.duckdb_engine import DuckDBEngine

DAY = timedelta(days=1)

Progress = Callable[[datetime, int], None]
"""Told each moment that was written, and how many entities it holds."""


class DailyHistoryError(UserError, ValueError):
    """Days whose history can't be written; the sentence says why and what to do."""


@dataclass(frozen=True)
class DayWritten:
    """What became of one day.

    Attributes:
        as_of: The end of the day: the next midnight, UTC.
        report: What the check found; None when nobody existed yet: nothing is kept of such a day.
    """

    as_of: datetime
    report: SnapshotReport | None


def ends_of_days(start: datetime, end: datetime) -> list[datetime]:
    """The ends of the days of a window.

    Args:
        start: Midnight (UTC) at which the first day begins.
        end: Midnight at which the last day ends.

    Raises:
        ValueError: one of them is no midnight, or the window holds no day.
    """
    first, last = require_utc(start, "start"), require_utc(end, "end")
    days = (last - first) // DAY
    if day_of(first) != first or day_of(last) != last or days < 1:
        raise ValueError(f"{start} to {end} is not a window of whole days, from midnight UTC on")
    return [first + DAY * (i + 1) for i in range(days)]


def write_history(
    url: str,
    engine: DuckDBEngine,
    catalogue: Catalogue,
    entity: str,
    days: Sequence[datetime],
    *,
    present: datetime,
    keep_days: int,
    progress: Progress | None = None,
) -> list[DayWritten]:
    """Write and check a snapshot as of the end of each day, for the entities that existed then.

    One day is in memory at a time. A day that was written before is replaced, with the same values
    unless more became known of it since, and removed if nobody existed then after all. At the end
    the policy drops what is too old.

    Args:
        url: `postgresql://...`.
        engine: Over an extract.
        catalogue: Whose views.
        entity: Entity type.
        days: The ends of the days, from `ends_of_days`.
        present: The extract's `as_of`.
        keep_days: Days of history that stay.
        progress: Told after each day.

    Returns:
        What became of each day, in the order given. A day whose snapshot is not sound is written
        and not marked as checked.

    Raises:
        DailyHistoryError: a day ends after the extract's present, or would be dropped at once.
    """
    _require_known(days, present)
    _require_kept(days, present, keep_days)
    views = catalogue.views(entity)
    written = []
    for day in days:
        spine = entities(engine, entity, day)
        report = None
        if len(spine):
            write_snapshot(url, views, engine.compute(views, spine), day)
            report = check_snapshot(url, catalogue, entity, day, expected=len(spine))
        else:
            remove_snapshot(url, views, day)
        written.append(DayWritten(day, report))
        if progress is not None:
            progress(day, len(spine))
    prune(url, entity, keep_days)
    return written


def _require_known(days: Sequence[datetime], present: datetime) -> None:
    late = [day for day in days if day > present]
    if late:
        raise DailyHistoryError(
            f"the day {_name(late[0])} ends after the newest extract was taken "
            f"({present.isoformat()})"
            + (f", and so do {len(late) - 1} more" if len(late) > 1 else "")
            + ": what happened until its end is not known yet. Materialize the sources once the "
            "day is over (the job nightly_features does), or leave the day out"
        )


def _require_kept(days: Sequence[datetime], present: datetime, keep_days: int) -> None:
    first = first_day_kept(present, keep_days)
    early = [day for day in days if day < first]
    if early:
        raise DailyHistoryError(
            f"the day {_name(early[0])} is older than the {keep_days} days of history that are "
            f"kept ({len(early)} of the days asked for are) and would be dropped at once; set "
            f"LEADML_FEATURES_KEEP_DAYS to {(present - early[0]).days} or more, "
            f"or begin with {_name(first)}"
        )


def _name(end: datetime) -> str:
    """The date of the day that ends at a moment."""
    return f"{end - DAY:%Y-%m-%d}"
