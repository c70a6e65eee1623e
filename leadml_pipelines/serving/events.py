"""Events that are posted: through the door into the tables, and out of the online store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.present import Clock
from leadml_pipelines.serving.connections import Connections
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.outbox import Outbox, deliver_now, keep
from leadml_pipelines.serving.redis_state import RedisState

if TYPE_CHECKING:
    from leadml_pipelines.sources.door import Outcome
    from leadml_pipelines.sources.validation import Checked

ORIGIN = "posted event"
"""Where the quarantine says that a row came from."""
MAX_EVENTS = 1000
"""Most events that are stored at once."""

TABLE = "lead_events"
_ENTITIES = (("lead", "lead_id"), ("agent", "agent_id"))
"""Entity types whose features an event changes, and the column that names the entity."""

Status = Literal["stored", "duplicate", "quarantined"]


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of one event.

    Attributes:
        status: `duplicate`: it was known already, and nothing changed.
        reason: Why it was quarantined, a word.
        message: The same, a sentence.
    """

    status: Status
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of some events.

    Attributes:
        events: Of each, in their order.
        invalidated: Whether Redis knows that the values of before are no longer true; if not, it
            is told as soon as it can be reached.
    """

    events: list[Posted]
    invalidated: bool


class EventDoor:
    """Stores events and makes the values of before untrue. Safe to share between threads.

    An event and the note that values are untrue are one transaction. By the clock `now` an event
    that does not tell when it became known became known now, by PostgreSQL's clock; by the clock
    `data`, when it happened.

    Args:
        connections: To PostgreSQL.
        outbox: What Redis is told.
        redis_state: Whether Redis can be told now.
        metrics: Where to count.
        schema: Schema of the source tables.
        clock: What the present is.
    """

    def __init__(
        self,
        connections: Connections,
        outbox: Outbox,
        redis_state: RedisState,
        metrics: Metrics,
        schema: str = "crm",
        clock: Clock = "now",
    ) -> None:
        self._connections = connections
        self._outbox = outbox
        self._redis_state = redis_state
        self._metrics = metrics
        self._schema = schema
        self._clock = clock

    def post(self, events: Sequence[Mapping[str, Any]]) -> Receipt:
        """Store events; whoever reads after this returns, sees them.

        Args:
            events: In the columns of `lead_events`; times with a zone, or ISO 8601 text with one.

        Returns:
            What became of each. A refused one lies in the quarantine.

        Raises:
            ValueError: an event has a column that is not in the contract.
            TypeError: the customer's `lead_events` is a view, which LeadML only reads.
            PostgresUnavailableError: nothing was stored, or nobody knows; post them again.
            StatementFailedError: nothing was stored.
        """
        import pandas as pd

        from leadml_pipelines.sources.contract import table
        from leadml_pipelines.sources.validation import validate

        names = list(table(TABLE).names)
        extra = dict.fromkeys(name for event in events for name in event if name not in names)
        frame = pd.DataFrame(list(events), columns=[*names, *extra], dtype=object)
        checked = validate(TABLE, frame)
        outcome = self._connections.run(lambda connection: self._store(connection, checked))
        # Of a repeat too: the first time, the app may have ended before it could tell Redis.
        touched = _touched(checked, set(checked.good.index) - set(outcome.faults.by_row), None)
        names = [name for _, name, _ in touched]
        invalidated = deliver_now(self._outbox, self._redis_state, names)
        posted = [_posted(outcome, at) for at in range(outcome.rows)]
        for status, count in Counter(event.status for event in posted).items():
            self._metrics.events.labels(status).inc(count)
        return Receipt(posted, invalidated)

    def _store(self, connection: psycopg.Connection[Any], checked: Checked) -> Outcome:
        from leadml_pipelines.sources.door import ATTEMPTS, merge_checked
        from leadml_pipelines.sources.quarantine import put

        # The temporary table of the door is another one each time.
        connection.prepare_threshold = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with connection.transaction():
                    now = _clock(connection)
                    dated = _dated(checked, now) if self._clock == "now" else checked
                    outcome = merge_checked(connection, dated, self._schema)
                    put(connection, TABLE, dated.raw, outcome.faults, ORIGIN)
                    keep(connection, _touched(dated, outcome.accepted, now))
                    if self._clock == "data":
                        _move_data_clock(connection, dated, outcome.accepted, now)
                    return outcome
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def _clock(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    if row is None:
        raise AssertionError("unreachable")
    now: datetime = row[0]
    return now


def _dated(checked: Checked, now: datetime) -> Checked:
    """The same, known now where no event tells when; one of the future, when it happens."""
    good = checked.good
    silent = checked.raw["ingested_at"].isna().loc[good.index]
    known = good["occurred_at"].where(good["occurred_at"] > now, now)
    return replace(checked, good=good.assign(ingested_at=good["ingested_at"].mask(silent, known)))


def _touched(
    checked: Checked, positions: set[int], now: datetime | None
) -> list[tuple[str, str, datetime | None]]:
    """Entities whose features events change, as far as there are features of their type.

    Args:
        checked: The events.
        positions: Which of them.
        now: The present; None if it does not matter when the features change.

    Returns:
        Type, id, and when they change where that is yet to come.
    """
    types = catalogue().entities
    rows = checked.good.loc[sorted(positions)]
    moments = rows[["occurred_at", "ingested_at"]].max(axis=1)
    ahead = [
        moment.to_pydatetime() if now is not None and moment > now else None for moment in moments
    ]
    touched = [
        (entity_type, name, moment)
        for entity_type, column in _ENTITIES
        if entity_type in types
        for name, moment in zip(rows[column], ahead, strict=True)
        if isinstance(name, str)
    ]
    return list(dict.fromkeys(touched))


def _move_data_clock(
    connection: psycopg.Connection[Any], checked: Checked, accepted: set[int], now: datetime
) -> None:
    rows = checked.good.loc[sorted(accepted)]
    moments = rows[["occurred_at", "ingested_at"]].max(axis=1)
    past = moments[moments <= now]
    if len(past):
        connection.execute(
            "INSERT INTO leadml.data_clock AS d (newest) VALUES (%s) ON CONFLICT (only_row) "
            "DO UPDATE SET newest = excluded.newest WHERE d.newest < excluded.newest",
            (past.max().to_pydatetime(),),
        )


def _posted(outcome: Outcome, position: int) -> Posted:
    fault = outcome.faults.by_row.get(position)
    if fault is not None:
        return Posted("quarantined", fault.reason, fault.message)
    return Posted("stored" if position in outcome.accepted else "duplicate")
