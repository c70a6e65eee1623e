"""The days of a chunk of leads, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from leadml_pipelines.sources.synthetic.births import Births
from leadml_pipelines.sources.synthetic.calendar import Array
from leadml_pipelines.sources.synthetic.customers import (
    Customers,
    advance_customers,
    customers_from,
)
from leadml_pipelines.sources.synthetic.dynamics import (
    BOUND,
    LOST,
    OpenLeads,
    advance_open,
    newborn,
)
from leadml_pipelines.sources.synthetic.record import BOUND_POLICY, CLOSED, Record
from leadml_pipelines.sources.synthetic.vocabulary import CANCELLED
from leadml_pipelines.sources.synthetic.world import World

Watch = Callable[[int, OpenLeads, Customers], None]
"""Called at the beginning of every day with the states of those who were there before it."""


def live(births: Births, world: World, rng: np.random.Generator, watch: Watch | None) -> Record:
    """Let the leads of a chunk live until the end of the period.

    Args:
        births: the leads of one chunk.
        world: their surroundings.
        rng: the chunk's own stream: the same stream gives the same lives.
        watch: sees the states each morning; it must not change them.

    Returns:
        What happened.
    """
    record = Record()
    everyone = newborn(births, world)
    open_leads = everyone.take(np.empty(0, dtype=np.int64))
    customers = customers_from(open_leads)
    first = int(births.day[0])
    begins = np.searchsorted(births.day, np.arange(first, world.calendar.days + 1))
    for day in range(first, world.calendar.days):
        if watch is not None:
            watch(day, open_leads, customers)
        start, stop = begins[day - first], begins[day - first + 1]
        open_leads = open_leads.join(everyone.take(slice(start, stop)))
        bought = None
        if len(open_leads):
            outcome = advance_open(open_leads, world, rng, record).outcome
            ended = np.flatnonzero(outcome)
            if len(ended):
                bought = _end(open_leads, outcome, ended, day, record)
                open_leads = open_leads.take(outcome == 0)
        if len(customers):
            left, _ = advance_customers(customers, world, rng, record)
            if left.any():
                rows = np.flatnonzero(left)
                reason = np.full(len(rows), CANCELLED, dtype=np.float32)
                record.add(CLOSED, day, customers.lead[rows], customers.agent[rows], reason)
                customers = customers.take(~left)
        if bought is not None:
            customers = customers.join(bought)
    if watch is not None:
        watch(world.calendar.days, open_leads, customers)
    return record


def _end(leads: OpenLeads, outcome: Array, ended: Array, day: int, record: Record) -> Customers:
    """Take down who bought and who was closed; return the new customers."""
    bound = ended[outcome[ended] == BOUND]
    closed = ended[outcome[ended] != BOUND]
    record.add(BOUND_POLICY, day, leads.lead[bound], leads.agent[bound])
    reason = (outcome[closed] - LOST).astype(np.float32)
    record.add(CLOSED, day, leads.lead[closed], leads.agent[closed], reason)
    return customers_from(leads.take(bound))
