"""What happened, as compact columns, before it becomes rows of the contract."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from leadml_pipelines.sources.synthetic.calendar import Array

# Kinds that are not one event: an e-mail or a call with what follows it, and changes of a lead.
EMAIL, LATE_OPEN, CALL, HANDED_OVER, BOUND_POLICY, SECOND_POLICY, CLOSED = range(-7, 0)

OPENED, CLICKED, REPLIED = 1, 2, 4
"""Bits of the detail of `EMAIL` and `LATE_OPEN`."""


@dataclass
class Record:
    """Takes down what happens to the leads of a chunk.

    Attributes:
        kinds: one entry per call of `add`, as all the following.
        days: day of the period.
        leads: positions among the births.
        agents: who worked the lead.
        details: a number per lead, whose meaning depends on the kind.
    """

    kinds: list[int] = field(default_factory=list)
    days: list[int] = field(default_factory=list)
    leads: list[Array] = field(default_factory=list)
    agents: list[Array] = field(default_factory=list)
    details: list[Array] = field(default_factory=list)

    def add(
        self, kind: int, day: int, lead: Array, agent: Array, detail: Array | None = None
    ) -> None:
        """Note that something of one kind happened to some leads on a day.

        Args:
            kind: an event type of the vocabulary, or one of the negative kinds above.
            day: day of the period.
            lead: positions among the births.
            agent: who worked the leads.
            detail: a number per lead; 0 when left out.
        """
        if len(lead):
            self.kinds.append(kind)
            self.days.append(day)
            self.leads.append(lead)
            self.agents.append(agent)
            self.details.append(np.zeros(len(lead), dtype=np.float32) if detail is None else detail)

    def columns(self) -> dict[str, Array]:
        """Everything taken down: `kind`, `day`, `lead`, `agent`, `detail`, in order of calls."""
        lengths = [len(lead) for lead in self.leads]

        def joined(parts: list[Array], dtype: str) -> Array:
            return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype=dtype)

        return {
            "kind": np.repeat(np.asarray(self.kinds, dtype=np.int8), lengths),
            "day": np.repeat(np.asarray(self.days, dtype=np.int32), lengths),
            "lead": joined(self.leads, "i8"),
            "agent": joined(self.agents, "i4"),
            "detail": joined(self.details, "f4"),
        }
