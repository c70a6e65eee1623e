"""Which alerts fire, since when, and what was told of them: `leadml.alerts`.

A rule that fires for a subject is one row from the first time to the last; when it is judged and
no longer fires, the row gets an end, and the next time is another row. For as long as there is too
little to judge by (at night, when nobody asks) it stays open: that nobody could look is no end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from leadml_pipelines.errors import UserError
from leadml_pipelines.monitoring.patience import connect
from leadml_pipelines.monitoring.rules import RULES
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.monitoring.alerts import Judgement

AGAIN = timedelta(days=1)
"""After so long an alert that still fires and has not changed is told again."""
RESOLVED = "resolved"
"""What the webhook was told last of an alert that ended."""
KEEP = timedelta(days=365)
"""How long alerts that ended are kept."""

_LOCK = 0x1EAD_0013
"""Key of the advisory lock under which alerts begin and end."""
_JUDGING_LOCK = 0x1EAD_0018
"""Key of the advisory lock of who judges the rules."""
_TELLING_LOCK = 0x1EAD_0019
"""Key of the advisory lock of who tells the webhook."""
_TURN_SECONDS = 60
"""How long one run waits for another that judges, which takes a second or two."""
_COLUMNS = (
    "id, rule, subject, severity, sentence, value, limit_value, what_to_do, details, since,"
    " judged_at, resolved_at, told, told_at, not_judged"
)


class JudgingError(UserError):
    """Another run judges the rules and does not come to an end."""


@dataclass(frozen=True)
class Alert:
    """A rule that fires, or did.

    Attributes:
        id: Its number.
        rule: Name of the rule.
        subject: A model, `serving` or `training`.
        severity: `warning` or `critical`.
        sentence: In words.
        value: The number that was judged.
        limit_value: The number that it was held against.
        what_to_do: What to do.
        details: What else belongs to it, such as the columns that drifted.
        since: When it began to fire.
        judged_at: When it was judged last.
        resolved_at: When it ended; None while it fires.
        told: What the webhook was told last; None if nothing.
        told_at: When.
        not_judged: Why it could not be judged since `judged_at`; None when it was.
    """

    id: int
    rule: str
    subject: str
    severity: str
    sentence: str
    value: float
    limit_value: float
    what_to_do: str
    details: tuple[str, ...]
    since: datetime
    judged_at: datetime
    resolved_at: datetime | None
    told: str | None
    told_at: datetime | None
    not_judged: str | None = None

    @property
    def fingerprint(self) -> str:
        """What tells it from what it was: its severity and details, not its number."""
        content = json.dumps([self.severity, *self.details])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def words(self) -> str:
        """Its sentence, and that it could not be judged since, if so."""
        if self.not_judged is None or self.resolved_at is not None:
            return self.sentence
        return f"{self.sentence} (not judged since {self.judged_at:%Y-%m-%d %H:%M} UTC)"

    def document(self) -> dict[str, Any]:
        """It as JSON, for people and for webhooks."""
        return {
            "rule": self.rule,
            "subject": self.subject,
            "status": RESOLVED if self.resolved_at else "firing",
            "severity": self.severity,
            "sentence": self.sentence,
            "value": self.value,
            "limit": self.limit_value,
            "what_to_do": self.what_to_do,
            "details": list(self.details),
            "since": self.since.isoformat(),
            "judged_at": self.judged_at.isoformat(),
            "not_judged": self.not_judged,
            "resolved_at": self.resolved_at.isoformat() if self.resolved_at else None,
        }


@contextmanager
def judging(url: str, seconds: float = _TURN_SECONDS) -> Iterator[None]:
    """While nobody else judges the rules: two runs at once take turns.

    Args:
        url: PostgreSQL.
        seconds: How long to wait for one's turn.

    Raises:
        JudgingError: another run had the turn for so long.
    """
    with connect(url, autocommit=True) as connection:
        limit = f"{round(seconds * 1000)}ms"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (limit,))
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (_JUDGING_LOCK,))
        except LockNotAvailable as error:
            raise JudgingError(
                f"another run has been judging the alert rules for {seconds:g} s; end it in "
                "Dagster if it hangs, the next run judges them again"
            ) from error
        # The lock goes with the connection.
        yield


@contextmanager
def telling(url: str) -> Iterator[bool]:
    """Whether this run is the one that tells the webhook: of two at once only one does."""
    with connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_TELLING_LOCK,)).fetchone()
        yield bool(row and row[0])


def record_judgements(url: str, judgements: Sequence[Judgement], now: datetime) -> list[Alert]:
    """Begin, go on with and end alerts, in one transaction.

    An alert ends when its rule was judged and does not fire, or when nobody watches its subject any
    more (there is no judgement of it at all). With not enough to judge by it stays as it is.

    Args:
        url: PostgreSQL, migrated.
        judgements: Of all rules.
        now: When they were made.

    Returns:
        The alerts that are open now, the worst first.
    """
    moment = require_utc(now, "now")
    undecided = {(one.rule, one.subject): one.sentence for one in judgements if one.value is None}
    firing = {(one.rule, one.subject): one for one in judgements if one.firing}
    with connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        for alert in _select(connection, "WHERE resolved_at IS NULL"):
            about = (alert.rule, alert.subject)
            if about in undecided:
                connection.execute(
                    "UPDATE leadml.alerts SET not_judged = %s WHERE id = %s",
                    (undecided[about], alert.id),
                )
            elif about not in firing:
                connection.execute(
                    "UPDATE leadml.alerts SET resolved_at = %s WHERE id = %s", (moment, alert.id)
                )
        for one in firing.values():
            connection.execute(
                "INSERT INTO leadml.alerts (rule, subject, severity, sentence, value, limit_value,"
                " what_to_do, details, since, judged_at) VALUES (%(rule)s, %(subject)s,"
                " %(severity)s, %(sentence)s, %(value)s, %(limit)s, %(todo)s, %(details)s, %(now)s,"
                " %(now)s) ON CONFLICT (rule, subject) WHERE resolved_at IS NULL DO UPDATE SET"
                " severity = excluded.severity, sentence = excluded.sentence,"
                " value = excluded.value, limit_value = excluded.limit_value,"
                " what_to_do = excluded.what_to_do, details = excluded.details,"
                " judged_at = excluded.judged_at, not_judged = NULL",
                {
                    "rule": one.rule,
                    "subject": one.subject,
                    "severity": one.severity,
                    "sentence": one.sentence,
                    "value": one.value,
                    "limit": one.limit,
                    "todo": RULES[one.rule].what_to_do.replace("<model>", one.subject),
                    "details": Jsonb(list(one.details)),
                    "now": moment,
                },
            )
        connection.execute(
            "INSERT INTO leadml.alert_runs (judged_at, judged, undecided) VALUES (%s, %s, %s)"
            " ON CONFLICT (judged_at) DO UPDATE SET"
            " judged = excluded.judged, undecided = excluded.undecided",
            (moment, len(judgements), len(undecided)),
        )
        connection.execute("DELETE FROM leadml.alerts WHERE resolved_at < %s", (moment - KEEP,))
        connection.execute("DELETE FROM leadml.alert_runs WHERE judged_at < %s", (moment - KEEP,))
        return _firing(connection)


def firing_alerts(url: str, **options: Any) -> list[Alert]:
    """The alerts that fire now, the worst first.

    Args:
        url: PostgreSQL, migrated.
        options: As those of `postgres.connect`, such as time limits.
    """
    with connect(url, **options) as connection:
        return _firing(connection)


def last_judged(url: str) -> datetime | None:
    """When the rules were judged last; None if they never were."""
    with connect(url) as connection:
        row = connection.execute("SELECT max(judged_at) FROM leadml.alert_runs").fetchone()
    return None if row is None or row[0] is None else require_utc(row[0], "judged_at")


def untold_alerts(url: str, now: datetime) -> list[Alert]:
    """The alerts that a webhook has to be told of.

    They are those that fire and were never told, that changed since, or that were told a day ago
    and were judged again; and those that were told and have ended.
    """
    moment = require_utc(now, "now")
    with connect(url) as connection:
        known = _select(
            connection,
            "WHERE resolved_at IS NULL OR told IS NOT NULL AND told <> %(resolved)s"
            " ORDER BY since, id",
            resolved=RESOLVED,
        )
    return [
        alert
        for alert in known
        if alert.resolved_at is not None
        or alert.told != alert.fingerprint
        or alert.told_at is None
        or (moment - alert.told_at >= AGAIN and alert.not_judged is None)
    ]


def note_told(url: str, alerts: Sequence[Alert], now: datetime) -> None:
    """Remember what a webhook was told."""
    moment = require_utc(now, "now")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE leadml.alerts SET told = %s, told_at = %s WHERE id = %s",
            [(RESOLVED if a.resolved_at else a.fingerprint, moment, a.id) for a in alerts],
        )


def _firing(connection: psycopg.Connection[Any]) -> list[Alert]:
    return _select(
        connection, "WHERE resolved_at IS NULL ORDER BY severity <> 'critical', since, id"
    )


def _select(connection: psycopg.Connection[Any], where: str, **params: Any) -> list[Alert]:
    query = f"SELECT {_COLUMNS} FROM leadml.alerts {where}"  # noqa: S608 - written above
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode(), params).fetchall()
    return [Alert(**{**row, "details": tuple(row["details"])}) for row in rows]
