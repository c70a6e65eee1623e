"""Graph metrics as of past moments: which ones, computed once, kept, exported.

The moments are every Monday 00:00 UTC from the first lead on, and no others. A feature as of t
takes the latest moment not after t, so its metrics are up to a week old, and a lead has none before
its first Monday. That holds for the present as for any past moment: a metric that were fresher when
it is served than when it was learned from would be another feature. For the same reason a refresh
in the middle of a week adds no moment; a graph younger than its first Monday has no metrics at all.

What changed in the past is found by a fingerprint of the graph and the outcomes as of each moment
(all nodes and edges alive then, the assignments begun and the policies bound by then, whatever
order), kept beside the metrics: a moment whose fingerprint is the stored one is left alone, any
other is computed (again). So a late referral, a corrected assignment, a policy that was entered
late or a deleted lead recomputes exactly the moments that it touches, and a repeated refresh
computes nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.graph.metrics import COLUMNS, METRICS_VERSION, timeline_metrics
from leadml_pipelines.graph.model import GraphData
from leadml_pipelines.graph.timeline import Timeline
from leadml_pipelines.postgres import arrow_connection
from leadml_pipelines.times import from_micros, require_utc, utc_now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Progress = Callable[[int, int], None]
"""Called with the moments done and the moments to do in all."""

STEP = timedelta(weeks=1)
"""Time between two moments; they are counted from a Monday 00:00 UTC."""

_ANCHOR = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday: the moments are whole steps away from it."""

_WRITE_ROWS = 250_000
"""Rows gathered before they are written in one transaction."""


class MissingFolderError(UserError):
    """The folder to export to does not exist."""


@dataclass(frozen=True)
class HistoryReport:
    """What a refresh did.

    Attributes:
        moments: Moments that are now up to date.
        computed: Those of them that were computed now.
        rows: Rows written now.
        entities: Leads and agents in the newest moment; 0 while there is none.
        seconds: How long it took.
    """

    moments: int
    computed: int
    rows: int
    entities: int
    seconds: float


def weekly_moments(first: datetime, as_of: datetime) -> list[datetime]:
    """Every Monday 00:00 UTC from the first one not before `first` to the last not after `as_of`.

    Returns:
        Ascending moments; none where no Monday lies in between.
    """
    first, as_of = require_utc(first, "first"), require_utc(as_of, "as_of")
    start = -((_ANCHOR - first) // STEP)
    stop = (as_of - _ANCHOR) // STEP
    return [_ANCHOR + n * STEP for n in range(start, stop + 1)]


def graph_snapshots(
    data: GraphData,
    moments: Sequence[datetime],
    *,
    outcomes: pd.DataFrame | None = None,
    seed: int = 7,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The metrics as of several moments in one frame (`metrics.COLUMNS`), in the moments' order."""
    import pandas as pd

    timeline = Timeline.of(data, outcomes)
    frames: list[pd.DataFrame] = []
    for number, moment in enumerate(moments, start=1):
        frames.append(timeline_metrics(timeline, moment, seed))
        if progress is not None:
            progress(number, len(moments))
    if not frames:
        return timeline_metrics(timeline, utc_now(), seed).iloc[:0]
    return pd.concat(frames, ignore_index=True)


def refresh_graph_metrics(
    postgres_url: str,
    data: GraphData,
    as_of: datetime,
    *,
    outcomes: pd.DataFrame | None = None,
    seed: int = 7,
    progress: Progress | None = None,
) -> HistoryReport:
    """Bring `leadml.graph_metrics` up to date with a graph.

    Stored moments after `as_of` are left alone; those before the first lead are dropped (a lead
    was deleted). Moments are written whole, some at a time in one transaction, so an interrupted
    refresh is finished by the next.

    Args:
        postgres_url: The database, migrated.
        data: The graph.
        as_of: The present, or the end of a historical data set.
        outcomes: `lead_id` and `bound_at`, a row per policy; None: nobody bought.
        seed: Seed of the community search and of the sample in large graphs.
        progress: Called after each computed moment.
    """
    started = time.monotonic()
    as_of = require_utc(as_of, "as_of")
    timeline = Timeline.of(data, outcomes)
    first = timeline.first_lead()
    moments = [] if first is None else weekly_moments(from_micros(first), as_of)
    stored = _stored_fingerprints(postgres_url, as_of)
    dropped = sorted(stored.keys() - set(moments))
    salt = f"{METRICS_VERSION}:{seed}"
    fingerprints = {moment: timeline.fingerprint(moment, salt) for moment in moments}
    stale = [moment for moment in moments if stored.get(moment) != fingerprints[moment]]

    rows = 0
    with arrow_connection(postgres_url) as connection:
        _delete_moments(connection, dropped)
        connection.commit()
        for batch in _batches(_computed(timeline, stale, seed, progress)):
            rows += _write(connection, batch, fingerprints)
            connection.commit()
        entities = _count_entities(connection, moments[-1]) if moments else 0
    return HistoryReport(len(moments), len(stale), rows, entities, time.monotonic() - started)


def write_graph_metrics(postgres_url: str, frame: pd.DataFrame) -> int:
    """Replace the moments that a frame of metrics holds, in one transaction.

    Without a fingerprint: the next `refresh_graph_metrics` computes these moments anew.

    Args:
        postgres_url: The database, migrated.
        frame: `metrics.COLUMNS`, any number of moments, each whole.

    Returns:
        The number of rows written.

    Raises:
        ValueError: a moment is not a Monday 00:00 UTC.
    """
    moments = [
        (moment.to_pydatetime(), frame[frame["as_of"] == moment])
        for moment in frame["as_of"].drop_duplicates().sort_values()
    ]
    for moment, _ in moments:
        if (moment - _ANCHOR) % STEP:
            raise ValueError(
                f"graph metrics are kept as of Mondays 00:00 UTC, and {moment.isoformat()} is "
                "none; take the moments from weekly_moments"
            )
    with arrow_connection(postgres_url) as connection:
        rows = _write(connection, moments, {})
        connection.commit()
    return rows


def export_graph_metrics(postgres_url: str, path: Path) -> int:
    """Write the whole table to a Parquet file for the bulk engine; it appears whole or not at all.

    Args:
        postgres_url: The database.
        path: The file, in a folder that exists; an older one is replaced.

    Returns:
        The number of rows.

    Raises:
        MissingFolderError: the folder is not there (any more).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.parent.is_dir():
        # Made anew, the folder of an extract that was dropped would pass for one with a file.
        raise MissingFolderError(
            f"graph metrics can't be exported to {path}: the folder {path.parent} does not exist; "
            "export them to the newest extract"
        )
    # Writers at the same time must not write to one file.
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    rows = 0
    try:
        with arrow_connection(postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT computed_at, {', '.join(COLUMNS)} FROM leadml.graph_metrics"  # noqa: S608
            )
            reader = cursor.fetch_record_batch()
            schema = pa.schema([field.remove_metadata() for field in reader.schema])
            with pq.ParquetWriter(part, schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(batch.cast(schema))
                    rows += batch.num_rows
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return rows


def _stored_fingerprints(postgres_url: str, as_of: datetime) -> dict[datetime, str]:
    with arrow_connection(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT as_of, fingerprint FROM leadml.graph_moments WHERE as_of <= $1", (as_of,)
        )
        return {moment.astimezone(UTC): text for moment, text in cursor.fetchall()}


def _computed(
    timeline: Timeline, moments: Sequence[datetime], seed: int, progress: Progress | None
) -> Iterator[tuple[datetime, pd.DataFrame]]:
    for number, moment in enumerate(moments, start=1):
        yield moment, timeline_metrics(timeline, moment, seed)
        if progress is not None:
            progress(number, len(moments))


def _batches(
    computed: Iterable[tuple[datetime, pd.DataFrame]],
) -> Iterator[list[tuple[datetime, pd.DataFrame]]]:
    """Moments that together reach `_WRITE_ROWS`; a moment is never divided."""
    before = 0

    def number(item: tuple[datetime, pd.DataFrame]) -> int:
        nonlocal before
        before += len(item[1])
        return (before - len(item[1])) // _WRITE_ROWS

    for _, group in groupby(computed, key=number):
        yield list(group)


def _write(
    connection: Any,
    moments: Sequence[tuple[datetime, pd.DataFrame]],
    fingerprints: Mapping[datetime, str],
) -> int:
    """Replace whole moments; the caller commits."""
    import pandas as pd
    import pyarrow as pa

    if not moments:
        return 0
    computed_at = pd.Timestamp(utc_now()).as_unit("us")
    _delete_moments(connection, [moment for moment, _ in moments])
    frame = pd.concat([part for _, part in moments], ignore_index=True)
    frame = frame.assign(computed_at=computed_at)
    index = pa.table(
        {
            "as_of": pa.array([m for m, _ in moments], pa.timestamp("us", "UTC")),
            "fingerprint": [fingerprints.get(m, "") for m, _ in moments],
            "entities": pa.array([len(part) for _, part in moments], pa.int32()),
            "computed_at": pa.array([computed_at] * len(moments), pa.timestamp("us", "UTC")),
        }
    )
    with connection.cursor() as cursor:
        for name, table in (
            ("graph_metrics", pa.Table.from_pandas(frame, preserve_index=False)),
            ("graph_moments", index),
        ):
            cursor.adbc_ingest(name, _plain(table), mode="append", db_schema_name="leadml")
    return len(frame)


def _plain(table: pa.Table) -> pa.Table:
    """Text as PostgreSQL's COPY writer knows it: no large or view strings, no metadata."""
    import pyarrow as pa

    fields = [
        pa.field(f.name, pa.string() if f.type in (pa.large_string(), pa.string_view()) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))


def _delete_moments(connection: Any, moments: Sequence[datetime]) -> None:
    if not moments:
        return
    with connection.cursor() as cursor:
        for table in ("graph_metrics", "graph_moments"):
            cursor.executemany(
                f"DELETE FROM leadml.{table} WHERE as_of = $1",  # noqa: S608
                [(moment,) for moment in moments],
            )


def _count_entities(connection: Any, moment: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT entities FROM leadml.graph_moments WHERE as_of = $1", (moment,))
        return int(cursor.fetchone()[0])
