"""The generator: batches of rows in an order that is safe for loading, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from leadml_pipelines.sources.synthetic import rows
from leadml_pipelines.sources.synthetic.births import (
    NOBODY,
    Births,
    Remembered,
    make_births,
    take_births,
)
from leadml_pipelines.sources.synthetic.calendar import DAY
from leadml_pipelines.sources.synthetic.dirt import dirty_assignments, dirty_events
from leadml_pipelines.sources.synthetic.funnel import Watch, live
from leadml_pipelines.sources.synthetic.timeline import Changes, Events, lay_out
from leadml_pipelines.sources.synthetic.world import World, make_world
from leadml_pipelines.times import to_micros

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 25_000
"""The largest batch."""


@dataclass(frozen=True)
class Batch:
    """Rows of one table.

    Attributes:
        table: its name in the contract.
        frame: the contract's columns; times are `datetime64[us, UTC]`, JSON is text. Batches of
            dirt hold Python objects.
        done: leads of the whole run that are through once this batch is in (for progress bars).
    """

    table: str
    frame: pd.DataFrame
    done: int = 0


def generate(
    leads: int, *, seed: int = 7, end: datetime, days: int = 540, dirt: bool = True
) -> Iterator[Batch]:
    """Simulate an insurance lead funnel and yield its rows.

    Agents come first; of every chunk of leads, the leads come before everything that happened to
    them, and later versions of leads come last. The same arguments give the same rows.

    Args:
        leads: how many.
        seed: of all chance.
        end: the moment at which the data ends, with a time zone; nothing is later.
        days: length of the period; leads come in until its end.
        dirt: whether to add rows that break the contract, in batches of their own.

    Raises:
        ValueError: `leads`, `seed` or `days` is too small.
        NaiveTimeError: `end` has no time zone.
    """
    world = prepare(leads, seed, end, days)
    return _batches(world, dirt)


def prepare(leads: int, seed: int, end: datetime, days: int) -> World:
    """The world for the arguments of `generate`, after looking them over."""
    for name, value, least in (("leads", leads, 1), ("seed", seed, 0), ("days", days, 7)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    return make_world(leads, seed, to_micros(end), days)


@dataclass(frozen=True)
class Lives:
    """A chunk of leads and all that happened to them."""

    births: Births
    events: Events
    changes: Changes


def chunk_births(world: World) -> Iterator[Births]:
    """The leads, chunk by chunk."""
    remembered: Remembered = NOBODY
    for chunk in range(world.chunks):
        births, remembered = make_births(world, chunk, remembered)
        yield births


def chunk_lives(world: World, births: Births, chunk: int, watch: Watch | None = None) -> Lives:
    """What happens to the leads of a chunk: always the same, whoever watches."""
    record = live(births, world, world.random(2, chunk), watch)
    events, changes = lay_out(births, record, world, world.random(3, chunk))
    return Lives(births, events, changes)


def _batches(world: World, dirt: bool) -> Iterator[Batch]:
    yield Batch("agents", rows.agent_rows(world))
    for chunk, births in enumerate(chunk_births(world)):
        tables = _chunk_tables(world, births, chunk, dirt)
        total = sum(len(frame) for _, frame in tables)
        through = 0
        before = int(births.index[0])
        for table, frame in tables:
            for start in range(0, len(frame), MAX_ROWS):
                part = frame.iloc[start : start + MAX_ROWS].reset_index(drop=True)
                through += len(part)
                yield Batch(table, part, before + len(births) * through // total)


def _chunk_tables(
    world: World, births: Births, chunk: int, dirt: bool
) -> list[tuple[str, pd.DataFrame]]:
    rng = world.random(4, chunk)
    lives = chunk_lives(world, births, chunk)
    changes = lives.changes
    assignments = rows.assignment_rows(births, changes, world, rng)
    events = rows.event_rows(births, lives.events, world, chunk, rng)
    tables = [
        ("leads", rows.lead_rows(births)),
        ("assignments", assignments),
        ("lead_events", events),
        ("policies", rows.policy_rows(births, changes, rng)),
        ("closures", rows.closure_rows(births, changes)),
        ("referrals", rows.referral_rows(births)),
        ("leads", _updates(world, births, rng)),
    ]
    if dirt:
        mud = world.random(5, chunk)
        tables.append(("lead_events", dirty_events(events, chunk, mud)))
        tables.append(("assignments", dirty_assignments(assignments, mud)))
    return tables


def _updates(world: World, births: Births, rng: np.random.Generator) -> pd.DataFrame:
    """Leads that told later what they had left out, one or two weeks after they came."""
    n = len(births)
    wait = (rng.exponential(10 * DAY, n) + 600_000_000).astype(np.int64)
    updated = births.created + wait
    told = (births.missing > 0) & (rng.random(n) < 0.15) & (updated < world.calendar.end)
    return rows.lead_rows(take_births(births, told), updated[told])
