"""Which model answers: the aliases champion, challenger and previous, and every change of them.

The functions work in the caller's transaction, which holds the lock of `alias_lock`: of several who
change aliases at once, each sees what the one before left.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row

from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import psycopg

Alias = Literal["champion", "challenger", "previous"]
Kind = Literal["promote", "rollback", "challenge", "end"]

_LOCK = 0x1EAD_0004
"""Key of the advisory lock under which aliases change."""


@dataclass(frozen=True)
class Held:
    """A model that an alias points to.

    Attributes:
        name: Name of the model.
        alias: champion, challenger or previous.
        model_id: The version.
        traffic_share: Share of the entities that a challenger answers for; 1 of the others.
        changed_at: Since when.
        changed_by: Who or what said so.
    """

    name: str
    alias: Alias
    model_id: str
    traffic_share: float
    changed_at: datetime
    changed_by: str


@dataclass(frozen=True)
class Change:
    """A change of an alias, as it is recorded for ever.

    Attributes:
        name: Name of the model.
        alias: What changed.
        kind: promote, rollback, challenge or end.
        model_id: Where it points from then on; None: nowhere.
        replaced: Where it pointed before; None: nowhere.
        traffic_share: Of a challenger.
        changed_at: When.
        changed_by: Who or what said so.
        forced: Whether it was done although the gate had rejected the model, or had not compared
            it with the champion of that time.
        reason: Why, in the words of who did it.
    """

    name: str
    alias: Alias
    kind: Kind
    model_id: str | None
    replaced: str | None
    traffic_share: float | None
    changed_at: datetime
    changed_by: str
    forced: bool
    reason: str | None


@dataclass(frozen=True)
class Order:
    """Who changes something, how, and why.

    Attributes:
        kind: What is done.
        by: Who or what does it.
        forced: Whether the gate is overruled.
        reason: Why.
    """

    kind: Kind
    by: str
    forced: bool = False
    reason: str | None = None


def alias_lock(connection: psycopg.Connection[Any]) -> None:
    """Wait until nobody else changes aliases; others wait until this transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def held_aliases(connection: psycopg.Connection[Any], name: str | None = None) -> list[Held]:
    """What every alias points to; of one model, or of all."""
    with connection.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(
            "SELECT name, alias, model_id, traffic_share, changed_at, changed_by"
            " FROM leadml.model_aliases WHERE %(name)s::text IS NULL OR name = %(name)s"
            " ORDER BY name, alias",
            {"name": name},
        ).fetchall()


def alias_changes(
    connection: psycopg.Connection[Any], name: str | None, model_id: str | None, limit: int
) -> list[Change]:
    """The changes, newest first; of one name, or those that touched one model."""
    with connection.cursor(row_factory=class_row(Change)) as cursor:
        return cursor.execute(
            "SELECT name, alias, kind, model_id, replaced, traffic_share, changed_at, changed_by,"
            " forced, reason FROM leadml.model_alias_changes"
            " WHERE (%(name)s::text IS NULL OR name = %(name)s)"
            " AND (%(model_id)s::text IS NULL OR %(model_id)s IN (model_id, replaced))"
            " ORDER BY id DESC LIMIT %(limit)s",
            {"name": name, "model_id": model_id, "limit": limit},
        ).fetchall()


def make_champion(
    connection: psycopg.Connection[Any], name: str, model_id: str, order: Order
) -> None:
    """Point `champion` to a model and `previous` to the champion so far.

    A challenger that becomes champion is no challenger any more.
    """
    before = {held.alias: held.model_id for held in held_aliases(connection, name)}
    champion = before.get("champion")
    if champion == model_id:
        return
    now = utc_now()
    _point(connection, name, "champion", model_id, order, now)
    if champion is not None:
        _point(connection, name, "previous", champion, order, now)
    if before.get("challenger") == model_id:
        _withdraw(connection, name, order, now)
    connection.execute(
        "UPDATE leadml.models SET promoted_at = %s, promoted_by = %s WHERE model_id = %s",
        (now, order.by, model_id),
    )
    _tell_models(connection, name)


def make_challenger(
    connection: psycopg.Connection[Any], name: str, model_id: str, share: float, order: Order
) -> None:
    """Point `challenger` to a model, with its share of the traffic."""
    _point(connection, name, "challenger", model_id, order, utc_now(), share)
    _tell_models(connection, name)


def withdraw_challenger(connection: psycopg.Connection[Any], name: str, order: Order) -> None:
    """Let `challenger` point nowhere."""
    _withdraw(connection, name, order, utc_now())
    _tell_models(connection, name)


def _point(
    connection: psycopg.Connection[Any],
    name: str,
    alias: Alias,
    model_id: str,
    order: Order,
    now: datetime,
    share: float = 1.0,
) -> None:
    _note(connection, name, alias, model_id, order, now, share if alias == "challenger" else None)
    connection.execute(
        "INSERT INTO leadml.model_aliases"
        " (name, alias, model_id, traffic_share, changed_at, changed_by)"
        " VALUES (%(name)s, %(alias)s, %(model_id)s, %(share)s, %(now)s, %(by)s)"
        " ON CONFLICT (name, alias) DO UPDATE SET model_id = excluded.model_id,"
        " traffic_share = excluded.traffic_share,"
        " changed_at = excluded.changed_at, changed_by = excluded.changed_by",
        {
            "name": name,
            "alias": alias,
            "model_id": model_id,
            "share": share,
            "now": now,
            "by": order.by,
        },
    )


def _withdraw(connection: psycopg.Connection[Any], name: str, order: Order, now: datetime) -> None:
    _note(connection, name, "challenger", None, Order("end", order.by, False, order.reason), now)
    connection.execute(
        "DELETE FROM leadml.model_aliases WHERE name = %s AND alias = 'challenger'", (name,)
    )


def _note(
    connection: psycopg.Connection[Any],
    name: str,
    alias: Alias,
    model_id: str | None,
    order: Order,
    now: datetime,
    share: float | None = None,
) -> None:
    """Record a change; called before the alias is changed, so that it sees what is replaced."""
    connection.execute(
        "INSERT INTO leadml.model_alias_changes (name, alias, kind, model_id, replaced,"
        " traffic_share, changed_at, changed_by, forced, reason)"
        " VALUES (%(name)s, %(alias)s, %(kind)s, %(model_id)s, (SELECT model_id"
        " FROM leadml.model_aliases WHERE name = %(name)s AND alias = %(alias)s),"
        " %(share)s, %(now)s, %(by)s, %(forced)s, %(reason)s)",
        {
            "name": name,
            "alias": alias,
            "kind": order.kind,
            "model_id": model_id,
            "share": share,
            "now": now,
            "by": order.by,
            "forced": order.forced,
            "reason": order.reason,
        },
    )


def _tell_models(connection: psycopg.Connection[Any], name: str) -> None:
    """Bring the status of a name's models in step with the aliases."""
    connection.execute(
        "UPDATE leadml.models AS m SET status = s.status FROM ("
        " SELECT model_id, CASE WHEN pruned_at IS NOT NULL THEN 'pruned'"
        "  WHEN 'champion' = ANY (aliases) THEN 'champion'"
        "  WHEN 'challenger' = ANY (aliases) THEN 'challenger'"
        "  WHEN 'previous' = ANY (aliases) THEN 'previous'"
        "  WHEN promoted_at IS NOT NULL THEN 'retired'"
        "  WHEN gate_passed THEN 'candidate' ELSE 'rejected' END AS status"
        " FROM (SELECT model_id, promoted_at, pruned_at, gate_passed, ARRAY("
        "   SELECT alias FROM leadml.model_aliases AS a WHERE a.model_id = models.model_id"
        "  ) AS aliases FROM leadml.models WHERE name = %s) AS held"
        ") AS s WHERE m.model_id = s.model_id AND m.status <> s.status",
        (name,),
    )
