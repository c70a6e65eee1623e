"""Which data a demonstration loads, and the promise that it never touches anybody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from leadml_pipelines.errors import UserError
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import utc_now

Progress = Callable[[int, int | None, str], None]
"""Called with rows done, rows in all (None while unknown), and what is being loaded."""


class DatasetConflictError(UserError):
    """The database already holds other leads."""


@dataclass(frozen=True)
class Synthetic:
    """The synthetic insurance funnel.

    Attributes:
        leads: How many leads.
        seed: Same seed, same leads.
        end: The funnel's last moment, ISO 8601; the midnight before the first load when empty.
    """

    leads: int
    seed: int
    end: str = ""

    def describe(self) -> str:
        """In words, for errors and for the summary."""
        return f"the synthetic funnel of {self.leads:,} leads, seed {self.seed}"

    def load(self, url: str, progress: Progress) -> None:
        """Bring the rows through the door."""
        from leadml_pipelines.sources.load_synthetic import load_synthetic

        load_synthetic(
            url,
            self.leads,
            seed=self.seed,
            end=datetime.fromisoformat(self.end),
            progress=progress,
        )


@dataclass(frozen=True)
class Files:
    """Files of a customer, described by a mapping.

    Attributes:
        mapping: The mapping's TOML file.
        data: The folder of the files.
    """

    mapping: str
    data: str

    def describe(self) -> str:
        """In words, for errors and for the summary."""
        return f"the files of {self.data} by {self.mapping}"

    def load(self, url: str, progress: Progress) -> None:
        """Bring the rows through the door."""
        from leadml_pipelines.sources.importer import import_files

        import_files(url, Path(self.mapping), Path(self.data), progress=progress)


Dataset = Synthetic | Files


def claim(url: str, wanted: Dataset) -> Dataset:
    """Make sure that this database is for `wanted`, and return it with every blank filled in.

    Raises:
        DatasetConflictError: the database holds leads of another origin.
    """
    kind = type(wanted).__name__.lower()
    with connect(url) as connection:
        held = connection.execute("SELECT dataset FROM leadml.demo_dataset").fetchone()
        if held is not None:
            return _same(held[0], kind, wanted)
        if connection.execute("SELECT 1 FROM crm.leads LIMIT 1").fetchone() is not None:
            raise DatasetConflictError(
                "this database already holds leads that no demo loaded, and the demo does not "
                "write between them; use another --home, or another LEADML_POSTGRES_URL"
            )
        if isinstance(wanted, Synthetic):
            midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
            wanted = Synthetic(wanted.leads, wanted.seed, midnight.isoformat())
        connection.execute(
            "INSERT INTO leadml.demo_dataset (dataset) VALUES (%s)",
            (Jsonb({"kind": kind, **asdict(wanted)}),),
        )
    return wanted


def _same(held: dict[str, Any], kind: str, wanted: Dataset) -> Dataset:
    values = asdict(wanted)
    if kind == "synthetic":
        values["end"] = held.get("end")
    if held == {"kind": kind, **values}:
        return type(wanted)(**values)
    before = {key: value for key, value in held.items() if key != "kind"}
    origin = Synthetic(**before) if held["kind"] == "synthetic" else Files(**before)
    raise DatasetConflictError(
        f"this home holds {origin.describe()}; for {wanted.describe()} use another --home, "
        "or delete this one after `leadml down`"
    )
