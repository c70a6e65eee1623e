"""Leads at the moment they come into being: who they are, and what is hidden about them.

Quality `q` is a lead's lasting worth: what shows of it (campaign, credit, income, insurer) plus a
hidden part `h`. `h` is shared within a household and resembles the referrer's:

    h = rho * h(other) + sqrt(1 - rho^2) * noise,   rho = 0.8 in a household, 0.7 for a referral

and a referral's whole quality leans on its referrer's too, as better leads know better leads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from leadml_pipelines.sources.synthetic.calendar import DAY, Array
from leadml_pipelines.sources.synthetic.vocabulary import (
    PRODUCT_PATIENCE,
    PRODUCT_PREMIUM,
    SOURCES,
    STATES,
)
from leadml_pipelines.sources.synthetic.world import CAMPAIGNS_PER_SOURCE, CHUNK, World

HIDDEN = 0.25
"""Standard deviation of the hidden part of quality."""
_REMEMBERED = 2_000
_REFERRAL = SOURCES.index("referral")


@dataclass(frozen=True)
class Births:
    """The leads of a chunk, in order of creation; one array element per lead.

    `index` numbers the leads of the whole run; `created` is in microseconds; `household` and
    `referrer` hold the index of another lead (-1: none; a household is named after its founder).
    Positions in the vocabulary: `source`, `product`, `state`, `income`, `credit`. `missing` has a
    bit per attribute that the lead has not told. `quality`, `hidden`, `patience` and
    `premium` can't be seen in the data.
    """

    index: Array
    created: Array
    day: Array
    state: Array
    zone: Array
    campaign: Array
    source: Array
    product: Array
    agent: Array
    age: Array
    income: Array
    credit: Array
    insured: Array
    requested: Array
    missing: Array
    household: Array
    referrer: Array
    hidden: Array
    quality: Array
    patience: Array
    premium: Array

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Remembered:
    """The latest leads of earlier chunks, whom newcomers may know: a bounded memory."""

    index: Array
    created: Array
    state: Array
    hidden: Array
    quality: Array
    household: Array


NOBODY = Remembered(*(np.empty(0, dtype=t) for t in ("i8", "i8", "i8", "f4", "f4", "i8")))


def make_births(world: World, chunk: int, before: Remembered) -> tuple[Births, Remembered]:
    """Create the leads of one chunk, and the memory to hand to the next chunk."""
    rng = world.random(1, chunk)
    calendar = world.calendar
    index = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, world.leads), dtype=np.int64)
    n = len(index)
    day = np.searchsorted(world.arrived, index, side="right") - 1
    state = rng.choice(len(STATES), n, p=_normal([s.share for s in STATES]))
    zone = np.asarray([s.zone for s in STATES])[state]
    time = calendar.time_of_day(day, zone, np.zeros(n, dtype=bool), rng.random(n))
    created = calendar.start + day * DAY + time
    order = np.argsort(created, kind="stable")  # days are in order already: sorts within them
    created, state, zone = created[order], state[order], zone[order]

    known_index = np.concatenate([before.index, index])
    known_created = np.concatenate([before.created, created])
    campaign = _by_row(world.campaigns.cumulative[day], rng.random(n))
    source = world.campaigns.source[campaign]
    product = _by_row(
        np.cumsum(calendar.demand[day] * world.campaigns.tilt[campaign], axis=1), rng.random(n)
    )
    member, friend = _ties(rng, known_created, len(before.index), source)
    known_state = np.concatenate([before.state, state])
    for position in np.flatnonzero(member >= 0):  # founders before members: states pass on
        known_state[len(before.index) + position] = known_state[member[position]]
    state = known_state[len(before.index) :]
    zone = np.asarray([s.zone for s in STATES])[state]

    age = np.clip(np.rint(rng.normal(44, 14, n)), 18, 85).astype(np.int64)
    income = _by_row(np.cumsum([[0.32, 0.46, 0.22]] * n, axis=1), rng.random(n))
    credit = _by_row(np.cumsum([[0.14, 0.27, 0.37, 0.22]] * n, axis=1), rng.random(n))
    insured = rng.random(n) < np.where(age < 26, 0.35, 0.62)
    shown = (
        world.campaigns.worth[campaign]
        + 0.28 * (credit - 1.67)
        + 0.25 * (income - 0.9)
        - 0.25 * (insured - 0.58)
    ).astype(np.float32)
    hidden, quality = _share_quality(
        rng.standard_normal(n, dtype=np.float32), shown, member, friend, before
    )
    known_household = np.concatenate([before.household, np.where(rng.random(n) < 0.55, index, -1)])
    offset = len(before.index)
    for position in np.flatnonzero(member >= 0):
        known_household[offset + position] = known_household[member[position]]
    # A founder without a household of its own takes none in.
    household = known_household[offset:]
    premium = _premium(rng, product, state, age, income, credit)
    births = Births(
        index=index,
        created=created,
        day=day,
        state=state,
        zone=zone,
        campaign=campaign,
        source=source,
        product=product,
        agent=world.agents.choose(day, product, rng.random(n)),
        age=age,
        income=income,
        credit=credit,
        insured=insured,
        requested=np.rint(premium * rng.lognormal(2.9, 0.35, n) / 500) * 500,
        missing=_missing(rng, n, source),
        household=household,
        referrer=np.where(friend >= 0, known_index[friend], -1),
        hidden=hidden,
        quality=quality,
        patience=(np.asarray(PRODUCT_PATIENCE)[product] * np.where(insured, 1.15, 0.9)).astype(
            np.float32
        ),
        premium=premium,
    )
    return births, _remember(births, before)


def take_births(births: Births, rows: Array) -> Births:
    """The births at the given positions (or where a mask is true)."""
    return Births(**{f.name: getattr(births, f.name)[rows] for f in fields(births)})


def _normal(weights: list[float]) -> Array:
    return np.asarray(weights) / np.sum(weights)


def _by_row(cumulative: Array, uniform: Array) -> Array:
    """Draw a column per row by the row's cumulative weights."""
    target = uniform * cumulative[:, -1]
    return np.asarray((target[:, None] >= cumulative[:, :-1]).sum(axis=1))


def _ties(
    rng: np.random.Generator, known_created: Array, offset: int, source: Array
) -> tuple[Array, Array]:
    """Whose household a lead joins and who referred it: positions among the known, -1 for none."""
    n = len(source)
    position = offset + np.arange(n)
    reach = np.minimum(position, _REMEMBERED)
    possible = (reach > 0) & (known_created[np.maximum(position - 1, 0)] < known_created[position])
    near = position - 1 - (rng.random(n) ** 2 * np.maximum(reach, 1)).astype(np.int64)
    member = np.where(possible & (rng.random(n) < 0.16), np.maximum(near, 0), -1)
    far = position - 1 - (rng.random(n) * np.maximum(reach, 1)).astype(np.int64)
    friend = np.where(possible & (source == _REFERRAL), np.maximum(far, 0), -1)
    return member, friend


def _share_quality(
    noise: Array, shown: Array, member: Array, friend: Array, before: Remembered
) -> tuple[Array, Array]:
    """Hidden part and quality; a lead that knows nobody is settled first, then those it knows."""
    offset = len(before.index)
    hidden = np.concatenate([before.hidden, np.float32(HIDDEN) * noise])
    quality = np.concatenate([before.quality, shown + np.float32(HIDDEN) * noise])
    settled = np.concatenate([np.ones(offset, dtype=bool), (member < 0) & (friend < 0)])
    other = np.where(member >= 0, member, friend)
    rho = np.where(member >= 0, 0.8, 0.7).astype(np.float32)
    lean = np.where(friend >= 0, 0.35, 0.0).astype(np.float32)
    while not settled.all():
        ready = np.flatnonzero(~settled[offset:] & settled[np.maximum(other, 0)])
        of = other[ready]
        fresh = HIDDEN * np.sqrt(1 - rho[ready] ** 2) * noise[ready]
        hidden[offset + ready] = rho[ready] * hidden[of] + fresh
        quality[offset + ready] = (
            shown[ready]
            + hidden[offset + ready]
            + lean[ready] * np.clip(quality[of] - hidden[of], -1.5, 1.5)
        )
        settled[offset + ready] = True
    return hidden[offset:].astype(np.float32), quality[offset:].astype(np.float32)


def _premium(
    rng: np.random.Generator, product: Array, state: Array, age: Array, income: Array, credit: Array
) -> Array:
    """Annual premium by product, state, age, income and credit, with a hidden spread of 12 %."""
    by_age = np.choose(
        product,
        [
            1.0 + 0.9 * np.exp(-(age - 18) / 6.0) + 0.004 * np.maximum(age - 65, 0),  # auto
            np.full(len(age), 1.0),  # home
            np.exp(0.028 * (age - 44)),  # life
            np.exp(0.016 * (age - 44)),  # health
        ],
    )
    price = np.asarray([s.price for s in STATES])[state]
    wealth = np.asarray([0.85, 1.0, 1.35])[income]
    risk = np.asarray([1.25, 1.08, 0.97, 0.90])[credit]
    base = np.asarray(PRODUCT_PREMIUM)[product]
    return np.round(base * by_age * price * wealth * risk * rng.lognormal(0, 0.12, len(age)), 2)


def _missing(rng: np.random.Generator, n: int, source: Array) -> Array:
    """A bit for each of age, income, credit, amount, insurer (0-4) and product (6) not told."""
    careless = np.asarray([0.08, 0.10, 0.12, 0.30, 0.18, 0.15])[source]
    untold = rng.random((5, n)) < careless
    vague = (rng.random(n) < careless / 3) * (1 << 6)
    return np.asarray((untold * (1 << np.arange(5))[:, None]).sum(axis=0) + vague)


def _remember(births: Births, before: Remembered) -> Remembered:
    def latest(name: str) -> Array:
        joined = np.concatenate([getattr(before, name), getattr(births, name)])
        return joined[-_REMEMBERED:]

    return Remembered(**{f.name: latest(f.name) for f in fields(Remembered)})


def campaign_id(campaign: int) -> str | None:
    """The name of a campaign; organic traffic has none."""
    source, number = divmod(campaign, CAMPAIGNS_PER_SOURCE)
    return f"{SOURCES[source]}_{number}" if number else None
