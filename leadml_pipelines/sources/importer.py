"""`leadml import`: files into the contract's tables, as a mapping says, through the door.

An import is idempotent: the same files again change nothing, more files add. It streams: memory is
bounded by the batch, whatever the size of the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources import readers
from leadml_pipelines.sources.contract import CONTRACT_TABLES, table
from leadml_pipelines.sources.door import Admitted, Door, Outcome
from leadml_pipelines.sources.faults import WRONG_TYPE, Fault
from leadml_pipelines.sources.handover import Derived, derive_assignments
from leadml_pipelines.sources.mapping import EventLoad, Load, Mapping, needed_columns
from leadml_pipelines.sources.quarantine import IMPORT_ORIGIN, put_rows
from leadml_pipelines.sources.shaping import Shaped, evaluate, shape

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int | None, str], None]
"""Called with rows done, rows in all (None while unknown), and what is being done."""


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        tables: Table -> what became of its rows, those that follow from events included.
        skipped: Table -> rows of its files that the mapping leaves out.
        derived: The assignments that follow from events, if the mapping asks for them.
        seconds: How long it took.
    """

    tables: dict[str, Admitted] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    derived: Derived | None = None
    seconds: float = 0.0

    @property
    def changed(self) -> int:
        """Rows that the import changed in the database."""
        changed = sum(admitted.accepted for admitted in self.tables.values())
        return changed + (self.derived.written + self.derived.removed if self.derived else 0)

    def count(self, name: str, admitted: Admitted) -> None:
        """Add what became of rows of a table."""
        self.tables[name] = self.tables.get(name, Admitted()) + admitted


def import_files(
    url: str,
    mapping_path: Path,
    data_dir: Path,
    progress: Progress | None = None,
    *,
    schema: str = "crm",
) -> ImportReport:
    """Import the files below `data_dir` as the mapping says.

    Args:
        url: PostgreSQL, migrated.
        mapping_path: A TOML file, see `mapping`.
        data_dir: Folder the mapping's paths start from.
        progress: Told after every batch.
        schema: Schema of the contract's tables.

    Raises:
        MappingError: the mapping or a file is not as it must be. Nothing was read in the first
            case; what was read before the second stays, and the import can be repeated.
    """
    mapping = Mapping.read(mapping_path)
    with connect(url, autocommit=True) as connection:
        return _Import(url, connection, mapping, data_dir, progress, schema).run()


class _Import:
    def __init__(
        self,
        url: str,
        connection: psycopg.Connection[Any],
        mapping: Mapping,
        data_dir: Path,
        progress: Progress | None,
        schema: str,
    ) -> None:
        self._url = url
        self._connection = connection
        self._mapping = mapping
        self._data_dir = data_dir
        self._progress = progress
        self._schema = schema
        self._door = Door(url, schema)
        self._report = ImportReport()
        self._agents: set[str] = set()
        self._done = 0

    def run(self) -> ImportReport:
        started = time.monotonic()
        self._connection.execute("CREATE TEMP TABLE touched (lead_id text PRIMARY KEY)")
        plan = [
            (name, load, path)
            for name in CONTRACT_TABLES
            for load in self._mapping.loads(name)
            for path in readers.find(self._mapping.files[load.file], self._data_dir)
        ]
        counts = [
            readers.count_rows(self._mapping.files[load.file], path) for _, load, path in plan
        ]
        total = None if None in counts else sum(count or 0 for count in counts)
        for name, load, path in plan:
            self._load(name, load, path, total)
        if self._mapping.assignments_from_events is not None:
            self._tell(total, "assignments from events")
            self._report.derived = derive_assignments(
                self._connection, self._mapping.assignments_from_events, "touched", self._schema
            )
        self._report.seconds = time.monotonic() - started
        return self._report

    def _load(self, name: str, load: Load, path: Path, total: int | None) -> None:
        files = self._mapping.files[load.file]
        file = path.relative_to(self._data_dir).as_posix()
        origin = IMPORT_ORIGIN + file
        label = f"{name} from {file}"
        self._tell(total, label)
        for piece in readers.read(files, path, needed_columns(load, self._mapping.won)):
            self._quarantine_broken(name, piece.broken, origin)
            shaped = shape(table(name), load, files, piece.rows)
            outcome = self._door.admit_rows(name, shaped.rows, origin)
            self._report.count(name, outcome.admitted)
            self._report.skipped[name] = self._report.skipped.get(name, 0) + shaped.skipped
            if isinstance(load, EventLoad):
                self._follow(load, shaped, outcome, origin)
            self._done += len(piece.rows)
            self._tell(total, label)

    def _quarantine_broken(self, name: str, lines: tuple[str, ...], origin: str) -> None:
        if not lines:
            return
        fault = Fault(WRONG_TYPE, "the line has more or fewer fields than the header of its file")
        key = table(name).key[0]
        put_rows(
            self._connection,
            name,
            [(fault, {key: [{"not_json": ascii(line)}]}) for line in lines],
            origin,
        )
        self._report.count(name, Admitted(quarantined={WRONG_TYPE: len(lines)}))

    def _follow(self, load: EventLoad, shaped: Shaped, outcome: Outcome, origin: str) -> None:
        """What follows from events the table now holds: agents, policies, closures, touched leads.

        Nothing follows from an event in the quarantine. When its lead has arrived, importing the
        file again brings the event and all that follows from it.
        """
        events = shaped.rows.drop(index=[position for position, _ in outcome.faults])
        if self._mapping.assignments_from_events is not None and len(events):
            self._connection.execute(
                "INSERT INTO touched SELECT DISTINCT unnest(%s::text[]) ON CONFLICT DO NOTHING",
                (events["lead_id"].drop_duplicates().tolist(),),
            )
        if load.create_agents and "agent_id" in events:
            self._create_agents(events["agent_id"], origin)
        decided = events[[shaped.outcomes[position] is not None for position in events.index]]
        reasons = [shaped.outcomes[position] for position in decided.index]
        won = [reason == "won" for reason in reasons]
        if any(won):
            self._create_policies(decided[won], shaped.file_rows, origin)
        lost = [not win for win in won]
        if any(lost):
            closures = decided.loc[lost, ["lead_id", "occurred_at"]]
            closures = closures.rename(columns={"occurred_at": "closed_at"})
            closures["reason"] = [reason for reason in reasons if reason != "won"]
            self._report.count("closures", self._door.admit("closures", closures, origin))

    def _create_agents(self, agents: pd.Series, origin: str) -> None:
        new = agents[agents.notna() & ~agents.isin(self._agents)].drop_duplicates()
        if len(new):
            self._agents.update(new)
            self._report.count("agents", self._door.admit("agents", new.to_frame(), origin))

    def _create_policies(self, events: pd.DataFrame, file_rows: pd.DataFrame, origin: str) -> None:
        won = self._mapping.won
        if won is None:
            raise AssertionError("the mapping has been checked: an outcome won has its section")
        rows = file_rows.loc[events.index]
        leads = self._leads(events["lead_id"].tolist())
        policies = events[["lead_id", "occurred_at"]].rename(columns={"occurred_at": "bound_at"})
        for name, source in won:
            policies[name] = evaluate(source, rows, leads, events["lead_id"])
        policies["policy_id"] = policies["policy_id"].astype("str")
        self._report.count("policies", self._door.admit("policies", policies, origin))

    def _leads(self, lead_ids: list[str]) -> dict[str, dict[str, Any]]:
        columns = (
            "source",
            "campaign_id",
            "product_interest",
            "state",
            "household_id",
            "attributes",
        )
        rows = self._connection.execute(
            sql.SQL("SELECT lead_id, {} FROM {} WHERE lead_id = ANY(%s)").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.Identifier(self._schema, "leads"),
            ),
            (lead_ids,),
        ).fetchall()
        return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows}

    def _tell(self, total: int | None, label: str) -> None:
        if self._progress is not None:
            self._progress(self._done, total, label)
