"""The answer of whoever has too little to go by: not a failure, and not a made-up number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotEnough:
    """There is nothing to judge yet.

    Attributes:
        reason: What there is too little of, and what will change that.
    """

    reason: str

    def __str__(self) -> str:
        return f"not enough yet: {self.reason}"
