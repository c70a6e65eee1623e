"""The synthetic funnel through the door: the same way in as any other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from leadml_pipelines.sources.door import Admitted, Door

ORIGIN = "synthetic"

Progress = Callable[[int, int, str], None]
"""Called with the leads that are in so far, the leads in all, and what was loaded last."""


@dataclass(frozen=True)
class Loaded:
    """What a load brought.

    Attributes:
        tables: what became of the rows, by table.
    """

    tables: dict[str, Admitted]

    @property
    def rows(self) -> dict[str, int]:
        """Rows that changed a table, by table."""
        return {table: admitted.accepted for table, admitted in self.tables.items()}

    @property
    def quarantined(self) -> dict[str, int]:
        """Refused rows of all tables, by reason."""
        return dict(sum(self.tables.values(), Admitted()).quarantined)


def load_synthetic(
    url: str,
    leads: int,
    *,
    seed: int = 7,
    end: datetime,
    days: int = 540,
    dirt: bool = True,
    progress: Progress | None = None,
) -> Loaded:
    """Generate a funnel and hand it to the door, batch by batch, in bounded memory.

    A second call with the same arguments changes nothing: every row is there already.

    Args:
        url: PostgreSQL, migrated.
        leads: how many.
        seed: of all chance.
        end: the moment at which the data ends; a day past the present at most, as the door
            refuses what lies in the future.
        days: length of the period.
        dirt: whether to hand over some rows that the door refuses.
        progress: told after every batch.
    """
    from leadml_pipelines.sources.synthetic import generate

    door = Door(url)
    tables: dict[str, Admitted] = {}
    for batch in generate(leads, seed=seed, end=end, days=days, dirt=dirt):
        admitted = door.admit(batch.table, batch.frame, ORIGIN)
        tables[batch.table] = tables.get(batch.table, Admitted()) + admitted
        if progress is not None:
            progress(batch.done, leads, batch.table)
    return Loaded(tables)
