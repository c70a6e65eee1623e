"""Which models' files may go: of those that neither answer, nor lately answered, nor are new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leadml_pipelines.learning.registry.aliases import alias_lock
from leadml_pipelines.learning.registry.model_records import ModelRecord, select_short_records

if TYPE_CHECKING:
    import psycopg

    from leadml_pipelines.settings import Settings


@dataclass(frozen=True)
class Retention:
    """How long models' files are kept.

    Attributes:
        days: Files of younger models stay; 0: those of all models do.
        newest: So many of each name stay, however old they are.
    """

    days: int
    newest: int

    def __post_init__(self) -> None:
        if self.days < 0 or self.newest < 1:
            raise ValueError("days are 0 or more, and of each name one model or more stays")

    @classmethod
    def of(cls, settings: Settings) -> Retention:
        """What these settings say."""
        return cls(settings.model_retention_days, settings.model_retention_newest)


@dataclass(frozen=True)
class Expired:
    """The models whose files may be deleted, as of one moment.

    Attributes:
        records: The models; of some the files may be gone in part, from a deletion that failed.
        last_change: Id of the newest change of an alias that was seen.
        kept: How many models keep their files.
    """

    records: tuple[ModelRecord, ...]
    last_change: int
    kept: int


# A model was answering until an alias was taken from it, and for as long as predictions of it were
# logged; until its horizon after that, outcomes come in by which it is judged, and it may be wanted
# back. Only predictions of the longest horizon are looked at, in one pass.
_EXPIRED = """
WHERE pruned_at IS NOT NULL AND freed_bytes IS NULL AND (%(name)s::text IS NULL OR name = %(name)s)
OR model_id IN (
    WITH answered AS (
        SELECT model_id, max(at) AS at FROM (
            SELECT model_id, changed_at AS at FROM leadml.model_alias_changes
            UNION ALL SELECT replaced, changed_at FROM leadml.model_alias_changes
            UNION ALL SELECT model_id, max(predicted_at) FROM leadml.predictions
                WHERE predicted_at > %(now)s - (SELECT max(horizon) FROM leadml.models)
                GROUP BY model_id
        ) AS seen GROUP BY model_id
    )
    SELECT model_id FROM (
        SELECT *, row_number() OVER (PARTITION BY name ORDER BY trained_at DESC, model_id DESC)
            AS place FROM leadml.models
    ) AS m LEFT JOIN answered USING (model_id)
    WHERE pruned_at IS NULL AND (%(name)s::text IS NULL OR name = %(name)s)
    AND %(days)s > 0 AND trained_at < %(now)s - make_interval(days => %(days)s)
    AND place > %(newest)s
    AND NOT EXISTS (SELECT FROM leadml.model_aliases AS a WHERE a.model_id = m.model_id)
    AND NOT EXISTS (
        SELECT FROM leadml.model_aliases AS a JOIN leadml.models AS c USING (model_id)
        WHERE c.evaluation -> 'held_to' ->> 'model_id' = m.model_id
    )
    AND (answered.at IS NULL OR answered.at < %(now)s - horizon)
)
ORDER BY name, trained_at
"""


def expired_models(
    connection: psycopg.Connection[Any], retention: Retention, now: datetime, name: str | None
) -> Expired:
    """The models whose files may be deleted now, the oldest first.

    They hold no alias, and no model that does was held to them; they are older than `days`, are
    not among the `newest` of their name, and answered last longer than their horizon ago.

    Args:
        connection: Of the registry's database.
        retention: How long files are kept.
        now: Ages are measured from here.
        name: Only models of this name.
    """
    (last_change,) = connection.execute(
        "SELECT coalesce(max(id), 0) FROM leadml.model_alias_changes"
    ).fetchone() or (0,)
    found = select_short_records(
        connection,
        _EXPIRED,
        {"now": now, "name": name, "days": retention.days, "newest": retention.newest},
    )
    (all_with_files,) = connection.execute(
        "SELECT count(*) FROM leadml.models"
        " WHERE pruned_at IS NULL AND (%(name)s::text IS NULL OR name = %(name)s)",
        {"name": name},
    ).fetchone() or (0,)
    going = sum(record.pruned_at is None for record in found)
    return Expired(tuple(found), last_change, all_with_files - going)


def mark_pruned(
    connection: psycopg.Connection[Any], model_id: str, last_change: int, now: datetime
) -> bool:
    """Let a model hold no alias any more, unless somebody gave it one since it was looked at.

    Nobody changes aliases meanwhile; who waits to do so sees the mark. Ends with a commit.

    Args:
        connection: Of the registry's database, without an open transaction.
        model_id: The model.
        last_change: The newest change of an alias that was seen when it was looked at.
        now: The time of the mark.

    Returns:
        Whether it is marked.
    """
    alias_lock(connection)
    marked = connection.execute(
        "UPDATE leadml.models SET pruned_at = %(now)s, status = 'pruned'"
        " WHERE model_id = %(model_id)s AND pruned_at IS NULL"
        " AND NOT EXISTS (SELECT FROM leadml.model_aliases WHERE model_id = %(model_id)s)"
        " AND NOT EXISTS (SELECT FROM leadml.model_alias_changes WHERE id > %(last)s"
        "  AND %(model_id)s IN (model_id, replaced))",
        {"now": now, "model_id": model_id, "last": last_change},
    )
    connection.commit()
    return marked.rowcount == 1


def note_freed(connection: psycopg.Connection[Any], model_id: str, size: int) -> None:
    """Record that a marked model's files are gone.

    Args:
        connection: Of the registry's database.
        model_id: The model.
        size: Bytes that they took.
    """
    connection.execute(
        "UPDATE leadml.models SET freed_bytes = %s WHERE model_id = %s AND freed_bytes IS NULL",
        (size, model_id),
    )
