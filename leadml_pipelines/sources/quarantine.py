"""Rows that broke the contract: kept with reason and raw content, counted, listed, replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.contract import CONTRACT_TABLES, table
from leadml_pipelines.sources.faults import Fault, Faults
from leadml_pipelines.sources.raw import digest, raw_rows

if TYPE_CHECKING:
    import pandas as pd

REPLAY_BATCH = 10_000

IMPORT_ORIGIN = "import of "
"""How the origin of rows begins that an import by a mapping read; the file follows."""


@dataclass(frozen=True)
class QuarantinedRow:
    """A row in the quarantine.

    Attributes:
        id: Its number, for `replay`.
        table: The table it was meant for.
        reason: One of `faults.REASONS`.
        message: What exactly is wrong.
        row: The raw content.
        origin: Where it came from.
        quarantined_at: When it was refused first.
        replayed_at: When a replay let it in; None while it waits.
    """

    id: int
    table: str
    reason: str
    message: str
    row: dict[str, Any]
    origin: str
    quarantined_at: datetime
    replayed_at: datetime | None


@dataclass(frozen=True)
class Replayed:
    """What a replay did.

    Attributes:
        admitted: Rows that passed the door now and are marked as replayed.
        refused: id -> the fault of the rows that still do not pass.
        imported_events: How many of the admitted rows are events that an import by a mapping read.
            What the mapping derives from events (policies, closures, agents, assignments) does not
            come with a replay, but when the file is imported again. Of a corrected event, only if
            the file is corrected, too.
    """

    admitted: int
    refused: dict[int, Fault]
    imported_events: int = 0


def put(
    connection: psycopg.Connection[Any],
    name: str,
    raw: pd.DataFrame,
    faults: Faults,
    origin: str,
) -> None:
    """Keep refused rows, inside the caller's transaction; a row that is there already is not added.

    Args:
        connection: In the transaction that admits the rest of the batch.
        name: The table the rows were meant for.
        raw: The whole batch as handed in, index 0..n-1.
        faults: Which rows were refused, and why.
        origin: Where the batch came from.
    """
    if len(faults):
        rows = raw_rows(name, raw, [position for position, _ in faults])
        put_rows(connection, name, zip((fault for _, fault in faults), rows, strict=True), origin)


def put_rows(
    connection: psycopg.Connection[Any],
    name: str,
    refused: Iterable[tuple[Fault, dict[str, Any]]],
    origin: str,
) -> None:
    """As `put`, for rows that are JSON values already."""
    entries: dict[str, tuple[Fault, str]] = {}
    for fault, row in refused:
        entries.setdefault(digest(name, row), (fault, orjson.dumps(row).decode()))
    ordered = sorted(entries.items())
    connection.execute(
        "INSERT INTO leadml.quarantine AS q (table_name, reason, message, row, origin, digest)"
        " SELECT %s, reason, message, row::jsonb, %s, digest"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
        " AS new (reason, message, row, digest)"
        " ON CONFLICT (digest) DO UPDATE SET reason = excluded.reason, message = excluded.message"
        " WHERE q.replayed_at IS NULL AND q.reason <> excluded.reason",
        (
            name,
            origin,
            [fault.reason for _, (fault, _) in ordered],
            [_storable(fault.message) for _, (fault, _) in ordered],
            [text for _, (_, text) in ordered],
            [key for key, _ in ordered],
        ),
    )


def count_by_reason(url: str) -> dict[str, dict[str, int]]:
    """Rows that wait in the quarantine: table -> reason -> count, without the zeros."""
    counts: dict[str, dict[str, int]] = {}
    with connect(url) as connection:
        for name, reason, count in connection.execute(
            "SELECT table_name, reason, count(*) FROM leadml.quarantine"
            " WHERE replayed_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2"
        ):
            counts.setdefault(name, {})[reason] = count
    return counts


def list_rows(
    url: str,
    *,
    table: str | None = None,
    reason: str | None = None,
    replayed: bool = False,
    after: int = 0,
    limit: int = 100,
) -> list[QuarantinedRow]:
    """Rows of the quarantine, in order of their id.

    Args:
        url: PostgreSQL.
        table: Only rows meant for this table.
        reason: Only rows refused for this reason.
        replayed: Show rows that a replay let in, too.
        after: Only ids greater than this, to page on.
        limit: At most so many.
    """
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT id, table_name, reason, message, row, origin, quarantined_at, replayed_at"
            " FROM leadml.quarantine WHERE id > %(after)s"
            " AND (%(table)s::text IS NULL OR table_name = %(table)s)"
            " AND (%(reason)s::text IS NULL OR reason = %(reason)s)"
            " AND (%(replayed)s OR replayed_at IS NULL) ORDER BY id LIMIT %(limit)s",
            {
                "after": after,
                "table": table,
                "reason": reason,
                "replayed": replayed,
                "limit": limit,
            },
        ).fetchall()
    return [QuarantinedRow(*row) for row in rows]


def replay(
    url: str,
    *,
    table: str | None = None,
    reason: str | None = None,
    ids: Sequence[int] | None = None,
    corrected: Mapping[int, Mapping[str, Any]] | None = None,
    schema: str = "crm",
) -> Replayed:
    """Send waiting rows through the door again; mark those that pass.

    A row that was replayed before is not sent again, so a second replay changes nothing. Tables go
    in the order of loading: a lead that is replayed is there for its events.

    Args:
        url: PostgreSQL.
        table: Only rows meant for this table.
        reason: Only rows refused for this reason.
        ids: Only these rows.
        corrected: id -> the columns to change, and their new values, for rows that need a fix.
            Without `ids` only they are replayed. The raw content stays as it came.
        schema: Schema of the contract's tables.

    Raises:
        KeyError: a corrected id does not wait in the quarantine.
        ValueError: a correction names a column that is not in the contract.
    """
    fixes = dict(corrected or {})
    chosen = None if ids is None and not fixes else sorted({*(ids or ()), *fixes})
    _require_waiting(url, fixes)
    admitted = imported_events = 0
    refused: dict[int, Fault] = {}
    for name in CONTRACT_TABLES:
        if table not in (None, name):
            continue
        last = 0
        while True:
            with connect(url) as connection, connection.transaction():
                found = connection.execute(
                    "SELECT id, row, origin FROM leadml.quarantine WHERE table_name = %(name)s"
                    " AND replayed_at IS NULL AND id > %(last)s"
                    " AND (%(reason)s::text IS NULL OR reason = %(reason)s)"
                    " AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))"
                    " ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED",
                    {
                        "name": name,
                        "last": last,
                        "reason": reason,
                        "ids": chosen,
                        "limit": REPLAY_BATCH,
                    },
                ).fetchall()
                if not found:
                    break
                last = found[-1][0]
                batch = [(number, row) for number, row, _ in found]
                still = _replay_batch(connection, name, batch, fixes, schema)
            admitted += len(found) - len(still)
            refused |= still
            if name == "lead_events":
                imported_events += sum(
                    origin.startswith(IMPORT_ORIGIN)
                    for number, _, origin in found
                    if number not in still
                )
    return Replayed(admitted, refused, imported_events)


def _replay_batch(
    connection: psycopg.Connection[Any],
    name: str,
    found: list[tuple[int, dict[str, Any]]],
    fixes: Mapping[int, Mapping[str, Any]],
    schema: str,
) -> dict[int, Fault]:
    import pandas as pd

    from leadml_pipelines.sources.door import admit_in

    rows = [{**row, **fixes.get(number, {})} for number, row in found]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    outcome = admit_in(connection, name, frame, schema)
    refused = {found[position][0]: fault for position, fault in outcome.faults}
    passed = [number for number, _ in found if number not in refused]
    connection.execute(
        "UPDATE leadml.quarantine SET replayed_at = now() WHERE id = ANY(%s)", (passed,)
    )
    # A row as it came may fail for another reason now; a failed correction says nothing of it.
    own = {number: fault for number, fault in refused.items() if number not in fixes}
    connection.execute(
        "UPDATE leadml.quarantine q SET reason = new.reason, message = new.message"
        " FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS new (id, reason, message)"
        " WHERE q.id = new.id",
        (
            list(own),
            [fault.reason for fault in own.values()],
            [_storable(fault.message) for fault in own.values()],
        ),
    )
    return refused


def _require_waiting(url: str, fixes: Mapping[int, Mapping[str, Any]]) -> None:
    if not fixes:
        return
    with connect(url) as connection:
        waiting = dict(
            connection.execute(
                "SELECT id, table_name FROM leadml.quarantine"
                " WHERE id = ANY(%s) AND replayed_at IS NULL",
                (list(fixes),),
            ).fetchall()
        )
    for number, values in fixes.items():
        if number not in waiting:
            raise KeyError(f"no row {number} waits in the quarantine")
        contract = table(waiting[number])
        unknown = [column for column in values if column not in contract.names]
        if unknown:
            raise ValueError(
                f"{contract.name} has no column {', '.join(unknown)}; its columns are "
                f"{', '.join(contract.names)}"
            )


def _storable(text: str) -> str:
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
