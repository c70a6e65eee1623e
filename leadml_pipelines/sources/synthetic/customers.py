"""What a day does to a customer: satisfaction, renewals, complaints, a second policy, leaving.

The state is the dissatisfaction `y >= 0`. It fades by `exp(-1 / 25)` a day and grows by what
happens: a complaint adds 1, a renewal (every 182 days) with a rise of the premium over 10 % adds 5
times the rise. A dissatisfied customer calls, looks at the page on which one cancels, and leaves:

    cancelled  (0.0002 + 0.014 * min(y, 2.5)) * g      a day
    calls      0.003 + 0.15 * min(y, 2)                a day
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from leadml_pipelines.sources.synthetic import vocabulary as words
from leadml_pipelines.sources.synthetic.calendar import Array, wrap
from leadml_pipelines.sources.synthetic.dynamics import OpenLeads
from leadml_pipelines.sources.synthetic.record import EMAIL, SECOND_POLICY, Record
from leadml_pipelines.sources.synthetic.world import World

TERM = 182
"""Days between two renewals."""
_FADE = np.float32(np.exp(-1 / 25))


@dataclass
class Customers:
    """Customers at the beginning of a day, one array element per lead.

    Attributes:
        lead: position among the births of the chunk.
        day: day of the period that begins.
        zone: position in `ZONES`.
        product: of the first policy, position in `PRODUCTS`.
        agent: who looks after the customer.
        business_share: of this day's cancellations that still lie ahead (see `OpenLeads`).
        anger: the dissatisfaction `y`.
        tenure: days since the first policy was bound.
        second: whether there is a second policy.
    """

    lead: Array
    day: Array
    zone: Array
    product: Array
    agent: Array
    business_share: Array
    anger: Array
    tenure: Array
    second: Array

    def __len__(self) -> int:
        return len(self.lead)

    def take(self, rows: Array | slice) -> Self:
        """The customers at the given positions (or where a mask is true)."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, other: Customers) -> Customers:
        """These customers, then the others."""
        if not len(other):
            return self
        return Customers(
            **{
                f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )


def customers_from(leads: OpenLeads) -> Customers:
    """Leads whose policy was bound on the day before, as new customers."""
    n = len(leads)
    return Customers(
        lead=leads.lead,
        day=leads.day,
        zone=leads.zone,
        product=leads.product,
        agent=leads.agent,
        business_share=np.ones(n, dtype=np.float32),
        anger=np.zeros(n, dtype=np.float32),
        tenure=np.ones(n, dtype=np.int16),
        second=np.zeros(n, dtype=bool),
    )


def advance_customers(
    state: Customers, world: World, rng: np.random.Generator, record: Record | None = None
) -> tuple[Array, Array]:
    """Let a day pass; `state` becomes that of the next morning (those who left are still in it).

    Args:
        state: changed in place.
        world: calendar and agents.
        rng: the only source of chance.
        record: takes down what happened; requires that all customers are at the same day.

    Returns:
        Who cancelled, and the chance that each had of cancelling.
    """
    n = len(state)
    day = wrap(state.day, world.calendar.days)
    f = world.calendar.consumer[day, state.zone]
    g = world.calendar.business[day, state.zone]
    y = state.anger
    r = rng.random((9, n), dtype=np.float32)

    chance = (np.float32(0.0002) + np.float32(0.014) * np.minimum(y, np.float32(2.5))) * g
    chance = chance * state.business_share
    left = r[0] < chance
    stays = ~left
    upset = stays & (r[1] < 0.0011 * f)
    called = (stays & (r[2] < (0.003 + 0.15 * np.minimum(y, 2.0)) * f)) | upset
    looked = stays & (r[3] < (0.016 + 0.35 * np.minimum(y, 1.5)) * f)
    sent = stays & (r[4] < 0.03 * g)
    opened = sent & (r[5] < 0.45)
    renewed = stays & (state.tenure % TERM == 0)
    rise = np.where(renewed, np.float32(0.02) - np.float32(0.055) * np.log1p(-r[6]), np.float32(0))
    bought = stays & ~state.second & (state.tenure > 20) & (r[7] < 0.0006 * g)
    if record is not None:
        angry = y > 0.4
        quit_page = looked & angry & (r[8] < 0.5)
        for kind, happened, detail in (
            (EMAIL, sent, opened * 1.0),
            (words.CALL_INBOUND, called, np.where(upset | angry, 2.0, 1.0)),
            (words.PAGE_VIEW, looked, np.where(quit_page, -2.0, -1.0)),
            (words.RENEWAL_NOTICE, renewed, rise),
            (SECOND_POLICY, bought, None),
        ):
            rows = np.flatnonzero(happened)
            if len(rows):
                record.add(
                    kind,
                    int(state.day[0]),
                    state.lead[rows],
                    state.agent[rows],
                    None if detail is None else detail[rows].astype(np.float32),
                )
    state.anger = y * _FADE + upset + np.float32(5) * rise * (rise > 0.1)
    state.second = state.second | bought
    state.tenure = state.tenure + np.int16(1)
    state.day = state.day + 1
    state.business_share = np.ones(n, dtype=np.float32)
    return left, chance
