"""Why a row was refused: the reasons, and their collection row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MISSING_KEY = "missing_key"
MISSING_VALUE = "missing_value"
WRONG_TYPE = "wrong_type"
NAIVE_TIME = "naive_time"
IMPOSSIBLE_TIME = "impossible_time"
END_BEFORE_START = "end_before_start"
UNKNOWN_DIRECTION = "unknown_direction"
UNKNOWN_LEAD = "unknown_lead"
DUPLICATE_KEY = "duplicate_key"

REASONS: dict[str, str] = {
    MISSING_KEY: "a column of the key is empty",
    MISSING_VALUE: "a required column is empty",
    WRONG_TYPE: "a value is not of its column's type, or does not fit",
    NAIVE_TIME: "a time has no time zone",
    IMPOSSIBLE_TIME: "a time is not a time, lies before 1990, or lies in the future",
    END_BEFORE_START: "the end of something lies before its start",
    UNKNOWN_DIRECTION: "a direction is none of inbound, outbound, internal",
    UNKNOWN_LEAD: "the row belongs to a lead that is not there (yet)",
    DUPLICATE_KEY: "the key is there already, with other content",
}
"""Reason -> what it means. In order of rank: a row with several faults is filed under the first."""

_RANK = {reason: rank for rank, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Fault:
    """Why one row was refused: a reason, and a sentence that names the column and the value."""

    reason: str
    message: str


@dataclass
class Faults:
    """The faults of a batch, by the position of the row in it."""

    by_row: dict[int, Fault] = field(default_factory=dict)

    def add(self, position: int, reason: str, message: str) -> None:
        """Note a fault. Of several in one row the reason of highest rank is kept, and all texts."""
        new = Fault(reason, message)
        old = self.by_row.get(position)
        if old is not None:
            first, second = (old, new) if _RANK[old.reason] <= _RANK[reason] else (new, old)
            new = Fault(first.reason, f"{first.message}; {second.message}")
        self.by_row[position] = new

    def add_all(self, positions: Iterable[int], reason: str, message: str) -> None:
        """Note the same fault for many rows."""
        for position in positions:
            self.add(int(position), reason, message)

    def __len__(self) -> int:
        return len(self.by_row)

    def __contains__(self, position: object) -> bool:
        return position in self.by_row

    def __iter__(self) -> Iterator[tuple[int, Fault]]:
        return iter(sorted(self.by_row.items()))
