"""The door: the one way by which rows come into the contract's tables.

Every row that is handed in ends as exactly one of: accepted (it changed the table), unchanged (the
table says the same already), or quarantined with a reason. Nothing is dropped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.contract import CONTRACT_TABLES, table
from leadml_pipelines.sources.faults import Faults
from leadml_pipelines.sources.merge import Merge
from leadml_pipelines.sources.quarantine import put
from leadml_pipelines.sources.validation import Checked, validate

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ATTEMPTS = 4
"""How often a batch is tried when another writer is in the way (deadlock, serialization)."""


@dataclass(frozen=True)
class Admitted:
    """What became of the rows of one or more batches.

    Attributes:
        accepted: Rows that changed the table, or the history of the leads.
        unchanged: Rows that say what is known already.
        quarantined: Refused rows, by reason.
    """

    accepted: int = 0
    unchanged: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All rows that were handed in."""
        return self.accepted + self.unchanged + sum(self.quarantined.values())

    def __add__(self, other: Admitted) -> Admitted:
        return Admitted(
            self.accepted + other.accepted,
            self.unchanged + other.unchanged,
            dict(Counter(self.quarantined) + Counter(other.quarantined)),
        )


@dataclass(frozen=True)
class Outcome:
    """What became of each row of a batch, by its position.

    Attributes:
        rows: Number of rows handed in.
        accepted: Positions of the rows that changed the table, or the history of the leads.
        faults: The refused rows.
    """

    rows: int
    accepted: set[int]
    faults: Faults

    @property
    def admitted(self) -> Admitted:
        """The same, counted."""
        reasons = Counter(fault.reason for _, fault in self.faults)
        unchanged = self.rows - len(self.accepted) - len(self.faults)
        return Admitted(len(self.accepted), unchanged, dict(sorted(reasons.items())))


class Door:
    """Validates rows and merges them into the contract's tables, a transaction per batch.

    Args:
        url: PostgreSQL, migrated.
        schema: Schema of the contract's tables.
    """

    def __init__(self, url: str, schema: str = "crm") -> None:
        self._url = url
        self._schema = schema

    def admit(self, table: str, rows: pd.DataFrame | pa.Table, origin: str) -> Admitted:
        """Take in rows of one table.

        Args:
            table: One of `CONTRACT_TABLES`.
            rows: In the contract's columns, in any order; optional columns may be left out. Times
                have a zone (or are ISO 8601 text with one); `attributes` and `properties` are dicts
                or JSON text; numbers may be decimal text.
            origin: Where the rows come from, for whoever looks into the quarantine.

        Returns:
            The counts; they add up to the number of rows.

        Raises:
            KeyError: there is no such table.
            ValueError: a column is not in the contract.
            TypeError: the table is a view of the customer's, which LeadML only reads.
        """
        return self.admit_rows(table, rows, origin).admitted

    def admit_rows(self, table: str, rows: pd.DataFrame | pa.Table, origin: str) -> Outcome:
        """As `admit`, but tells for each row what became of it."""
        checked = _check(table, rows)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with connect(self._url) as connection, connection.transaction():
                    outcome = merge_checked(connection, checked, self._schema)
                    put(connection, table, checked.raw, outcome.faults, origin)
                    return outcome
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def admit_in(
    connection: psycopg.Connection[Any],
    table: str,
    rows: pd.DataFrame | pa.Table,
    schema: str = "crm",
) -> Outcome:
    """Admit rows inside the caller's transaction; refused rows are told, not quarantined."""
    return merge_checked(connection, _check(table, rows), schema)


def _check(name: str, rows: pd.DataFrame | pa.Table) -> Checked:
    if name not in CONTRACT_TABLES:
        raise KeyError(
            f"the door takes no rows for {name}; it takes them for {', '.join(CONTRACT_TABLES)}"
        )
    return validate(name, rows)


def merge_checked(connection: psycopg.Connection[Any], checked: Checked, schema: str) -> Outcome:
    """Merge a checked batch inside the caller's transaction.

    Raises:
        TypeError: the target is not a table.
    """
    _require_table(connection, schema, checked.table)
    merge = Merge(connection, table(checked.table), schema)
    faults = Faults(dict(checked.faults.by_row))
    if len(checked.good):
        merge.run(checked.good)
        faults.by_row.update(merge.faults.by_row)
    return Outcome(len(checked.raw), merge.accepted, faults)


def _require_table(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    found = connection.execute(
        "SELECT relkind FROM pg_class WHERE oid = to_regclass(%s)",
        (sql.Identifier(schema, name).as_string(connection),),
    ).fetchone()
    if found is None:
        raise TypeError(
            f"there is no table {schema}.{name}; `leadml up` creates those of schema crm, and "
            "LEADML_CRM_SCHEMA names another schema"
        )
    if found[0] not in ("r", "p"):
        raise TypeError(
            f"{schema}.{name} is not a table but a view over the customer's data, which LeadML "
            "reads and never writes; write to the tables behind it"
        )
