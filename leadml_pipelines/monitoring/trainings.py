"""Every training and how it ended: `leadml.trainings`, whoever began it.

A training is a row from its beginning on. Whoever trains holds an advisory lock on the row over a
connection of its own, which PostgreSQL takes back when the process dies, however it dies: a row
without an end whose lock is free is a training that was killed, and counts as failed. No clock and
no sign of life is needed for that. Where a training only lost its connection, what it writes in the
end is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import psycopg
import structlog

from leadml_pipelines.monitoring.patience import connect
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    from typing import Any

Outcome = Literal["succeeded", "rejected", "failed", "cancelled"]
State = Literal["succeeded", "rejected", "failed", "cancelled", "under way", "died"]

KEEP = timedelta(days=365)
"""How long trainings are remembered."""
_LOCK = 0x1EAD_0017
"""First key of the advisory locks; the second one is the number of the training."""
_KEYS = 2**31

log = structlog.get_logger(__name__)


@dataclass
class Training:
    """A training that is under way.

    Attributes:
        outcome: How it ends if nothing is raised. None: it need not be remembered, as a step of a
            training that went well and is followed by others.
    """

    outcome: Outcome | None = "succeeded"


@dataclass(frozen=True)
class TrainingRecord:
    """A training that is remembered.

    Attributes:
        model_name: Name of the model.
        run_id: Dagster's run; None for a training by command.
        state: How it ended; `under way`, or `died` without a word.
    """

    model_name: str
    run_id: str | None
    state: State


@contextmanager
def recorded_training(
    url: str, name: str, by: str, run_id: str | None = None
) -> Iterator[Training]:
    """Remember a training, from now to the end of the block.

    An exception is a failure. What is raised to end the process (Ctrl-C, a run that somebody
    terminates) is no `Exception`, and a cancellation.

    Args:
        url: PostgreSQL, migrated.
        name: Name of the model.
        by: Who began it, as in `dagster`.
        run_id: Dagster's run, if it is one.
    """
    training = Training()
    connection = connect(url)
    try:
        with connection.transaction():
            # Seen by others only once it is locked.
            row = connection.execute(
                "INSERT INTO leadml.trainings (model_name, started_by, run_id)"
                " VALUES (%s, %s, %s) RETURNING number",
                (name, by, run_id),
            ).fetchone()
            number = int(row[0]) if row else 0
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK, number % _KEYS))
            connection.execute(
                "DELETE FROM leadml.trainings WHERE started_at < now() - %s", (KEEP,)
            )
        try:
            yield training
        except Exception:
            _end(connection, url, number, "failed")
            raise
        except BaseException:
            _end(connection, url, number, "cancelled")
            raise
        _end(connection, url, number, training.outcome)
    finally:
        connection.close()


def trainings(url: str, now: datetime, within: timedelta) -> list[TrainingRecord]:
    """The trainings that began within some time before a moment, the oldest first.

    Args:
        url: PostgreSQL, migrated.
        now: The moment; timezone-aware.
        within: How long before it. One that began after it counts too: a clock was put back.
    """
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT model_name, run_id, coalesce(outcome, CASE WHEN EXISTS ("
            "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted"
            " AND l.classid = %(lock)s::bigint::oid AND l.objid = (t.number %% %(keys)s)::oid"
            " AND l.objsubid = 2) THEN 'under way' ELSE 'died' END)"
            " FROM leadml.trainings t WHERE started_at > %(since)s ORDER BY number",
            {"lock": _LOCK, "keys": _KEYS, "since": require_utc(now, "now") - within},
        ).fetchall()
    return [TrainingRecord(*row) for row in rows]


def _end(
    connection: psycopg.Connection[Any], url: str, number: int, outcome: Outcome | None
) -> None:
    """Write how a training ended; over a new connection if the first one is lost."""
    try:
        try:
            _write_end(connection, number, outcome)
        except psycopg.Error:
            with connect(url) as again:
                _write_end(again, number, outcome)
    except psycopg.Error as error:
        # The training is what it is; without an end its row counts as one that died.
        kind = type(error).__name__
        log.warning("training_end_not_recorded", number=number, outcome=outcome, error=kind)


def _write_end(connection: psycopg.Connection[Any], number: int, outcome: Outcome | None) -> None:
    with connection.transaction():
        if outcome is None:
            connection.execute("DELETE FROM leadml.trainings WHERE number = %s", (number,))
        else:
            connection.execute(
                "UPDATE leadml.trainings SET ended_at = now(), outcome = %s WHERE number = %s",
                (outcome, number),
            )
