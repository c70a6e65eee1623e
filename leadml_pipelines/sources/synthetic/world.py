"""What is there before any lead: the calendar, campaigns of different worth, agents, arrivals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leadml_pipelines.sources.synthetic.calendar import Array, Calendar, make_calendar
from leadml_pipelines.sources.synthetic.vocabulary import (
    PRODUCTS,
    SOURCE_SHARE,
    SOURCE_WORTH,
    SOURCES,
)

CHUNK = 20_000
"""Leads that are simulated together; fixed, so that the data does not depend on who asks."""
CAMPAIGNS_PER_SOURCE = 6
_BUCKET = 30
_AGENT_MATCH = 6.0


@dataclass(frozen=True)
class Campaigns:
    """Campaigns; the first of each source is nameless (organic traffic).

    Attributes:
        source: position in `SOURCES`.
        worth: hidden mean quality of its leads.
        cumulative: (days, campaigns) cumulative shares on each day; flights begin and end.
        tilt: (campaigns, products) how much it draws each product; 1 on average.
    """

    source: Array
    worth: Array
    cumulative: Array
    tilt: Array


@dataclass(frozen=True)
class Agents:
    """Agents.

    Attributes:
        specialty: position in `PRODUCTS`.
        skill: hidden, about -0.6 to 1.6; what a conversation adds to a lead's intent.
        capacity: leads that can be looked after well at a time.
        hired: day of the period (negative: before it).
        care: (days, agents) 1 when not overloaded, less the more the load exceeds the capacity.
        cumulative: flattened (30-day buckets x products, agents) shares of the new leads.
    """

    specialty: Array
    skill: Array
    capacity: Array
    hired: Array
    care: Array
    cumulative: Array

    def __len__(self) -> int:
        return len(self.skill)

    def choose(self, day: Array, product: Array, uniform: Array) -> Array:
        """Pick an agent for each lead: hired by then, often a specialist of the product."""
        row = (day // _BUCKET).astype(np.int64) * len(PRODUCTS) + product
        found = np.searchsorted(self.cumulative, row + np.maximum(uniform, 1e-9), side="left")
        return (np.minimum(found, len(self.cumulative) - 1) % len(self)).astype(np.int32)

    def power(self, agent: Array, product: Array) -> Array:
        """Skill, plus a bonus on the agent's own field and a malus elsewhere."""
        match = self.specialty[agent] == product
        return self.skill[agent] + np.where(match, np.float32(0.25), np.float32(-0.15))


@dataclass(frozen=True)
class World:
    """Everything that a chunk of leads needs to know of its surroundings.

    Attributes:
        leads: how many leads there are in all.
        seed: the seed of every random stream.
        calendar: days, hours and seasons.
        campaigns: where leads come from.
        agents: who works them.
        arrived: (days + 1,) how many leads were created before each day.
    """

    leads: int
    seed: int
    calendar: Calendar
    campaigns: Campaigns
    agents: Agents
    arrived: Array

    @property
    def chunks(self) -> int:
        """The number of chunks that the leads are simulated in."""
        return -(-self.leads // CHUNK)

    def random(self, purpose: int, chunk: int = 0) -> np.random.Generator:
        """The stream of random numbers for one purpose in one chunk."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, purpose, chunk]))


def make_world(leads: int, seed: int, end: int, days: int) -> World:
    """Set the scene: the same arguments give the same world.

    Args:
        leads: number of leads, at least 1.
        seed: a whole number, not negative.
        end: end of the period in microseconds since 1970-01-01 UTC.
        days: length of the period, at least 1.
    """
    calendar = make_calendar(end, days)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0, 0]))
    per_day = rng.multinomial(leads, calendar.demand.sum(axis=1))
    campaigns = _campaigns(rng, days)
    return World(
        leads=leads,
        seed=seed,
        calendar=calendar,
        campaigns=campaigns,
        agents=_agents(rng, calendar, leads),
        arrived=np.concatenate([[0], np.cumsum(per_day)]),
    )


def _campaigns(rng: np.random.Generator, days: int) -> Campaigns:
    count = len(SOURCES) * CAMPAIGNS_PER_SOURCE
    source = np.repeat(np.arange(len(SOURCES)), CAMPAIGNS_PER_SOURCE)
    organic = np.arange(count) % CAMPAIGNS_PER_SOURCE == 0
    worth = np.asarray(SOURCE_WORTH)[source] + np.where(organic, 0.0, rng.normal(0, 0.22, count))
    weight = np.asarray(SOURCE_SHARE)[source] * np.where(
        organic, 2.0, rng.gamma(3.0, 1 / 3.0, count)
    )
    length = rng.integers(90, 360, count)
    first = rng.integers(-120, max(days - 45, 1), count)
    first = np.where(organic, -1, first)
    length = np.where(organic, days + 2, length)
    day = np.arange(days)[:, None]
    running = (day >= first) & (day < first + length)
    share = np.where(running, weight, 0.0)
    # A source keeps its share of the leads however many of its campaigns are running.
    for position, wanted in enumerate(SOURCE_SHARE):
        mine = source == position
        share[:, mine] *= wanted / share[:, mine].sum(axis=1, keepdims=True)
    tilt = rng.gamma(2.0, 0.5, (count, len(PRODUCTS))) + 0.15
    tilt[organic] = 1.0
    return Campaigns(source, worth.astype(np.float32), np.cumsum(share, axis=1), tilt)


def _agents(rng: np.random.Generator, calendar: Calendar, leads: int) -> Agents:
    count = max(12, round(leads / calendar.days / 2.5))
    specialty = np.concatenate([np.arange(4), rng.choice(4, count - 4, p=[0.42, 0.24, 0.16, 0.18])])
    skill = np.clip(rng.normal(0.35, 0.5, count), -0.6, 1.6).astype(np.float32)
    # A lead is on an agent's desk for about a month; most agents can carry what they get.
    fair = max(leads / calendar.days * 30 / count, 4.0)
    capacity = np.maximum(np.rint(fair * rng.gamma(12.0, 1.25 / 12.0, count)), 3).astype(np.int64)
    hired = np.where(rng.random(count) < 0.75, -rng.integers(30, 3000, count), 0)
    hired = np.where(hired < 0, hired, rng.integers(0, max(calendar.days - 30, 1), count))
    hired[:4] = -rng.integers(365, 3000, 4)  # every product has somebody from the beginning
    appeal = capacity * rng.gamma(10.0, 0.1, count)
    buckets = -(-calendar.days // _BUCKET) + 1
    shares = np.zeros((buckets, len(PRODUCTS), count))
    for bucket in range(buckets):
        present = hired < bucket * _BUCKET
        for product in range(len(PRODUCTS)):
            fit = np.where(specialty == product, _AGENT_MATCH, 1.0) * appeal * present
            shares[bucket, product] = fit / fit.sum()
    rows = np.arange(buckets * len(PRODUCTS)).reshape(buckets, len(PRODUCTS), 1)
    load = _load(calendar, leads, shares) / capacity
    return Agents(
        specialty=specialty,
        skill=skill,
        capacity=capacity,
        hired=hired,
        care=(1.0 / (1.0 + 0.5 * np.maximum(load - 1.0, 0.0))).astype(np.float32),
        cumulative=(rows + np.cumsum(shares, axis=2)).reshape(-1),
    )


def _load(calendar: Calendar, leads: int, shares: Array) -> Array:
    """Leads expected on each agent's desk by day: those that came in the 30 days before."""
    recent = np.cumsum(calendar.demand, axis=0)
    recent[_BUCKET:] -= recent[:-_BUCKET].copy()
    bucket = np.arange(calendar.days) // _BUCKET
    return np.asarray(leads * np.einsum("dp,dpa->da", recent, shares[bucket]))
