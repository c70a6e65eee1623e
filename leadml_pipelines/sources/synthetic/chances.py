"""The chances that only the simulation knows, so that a model can be held against the best one.

For a lead and a moment, the hidden state at that moment is found by living through the lead's chunk
again, and the future is simulated many times from there by the very steps that made the data. For
what can end a lead or a policy, what counts is not how often it came about but how likely it was on
each simulated day, which has the same expectation and less noise:

    conversion, lead_score   sum over days of P(bound that day), while the lead is open
    churn of a customer      sum over days of P(cancelled that day)
    churn of an open lead    share of futures in which it is lost, or open and silent

The last is a plain share: were the daily chances of being lost added to the share of silent
futures, one future could count for more than 1, and chances near 1 would be the noisier for it.

A moment within a day starts from the state at the beginning of that day, takes in what has happened
since, and leaves ahead the part of the day's activity that comes later. Approximations, all small:
on that one day the events since the morning count at once (the data lets intent change at night),
and an e-mail sent since the morning is not opened any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from leadml_pipelines.sources.synthetic import record as kinds
from leadml_pipelines.sources.synthetic import vocabulary as words
from leadml_pipelines.sources.synthetic.births import Births, take_births
from leadml_pipelines.sources.synthetic.calendar import DAY, Array
from leadml_pipelines.sources.synthetic.customers import (
    Customers,
    advance_customers,
    customers_from,
)
from leadml_pipelines.sources.synthetic.dynamics import (
    INTENT_RANGE,
    KICK,
    LOST,
    SPOKEN,
    STAYS,
    OpenLeads,
    advance_open,
    newborn,
)
from leadml_pipelines.sources.synthetic.generator import (
    Lives,
    chunk_births,
    chunk_lives,
    prepare,
)
from leadml_pipelines.sources.synthetic.rows import ids
from leadml_pipelines.sources.synthetic.world import CHUNK, World

if TYPE_CHECKING:
    import pandas as pd

Model = Literal["conversion", "churn", "lead_score"]
HORIZON_DAYS: dict[str, int] = {"conversion": 30, "churn": 60, "lead_score": 90}
_PATHS = 400_000

State = TypeVar("State", OpenLeads, Customers)


def hidden_chance(
    spine: pd.DataFrame,
    model: Model,
    *,
    leads: int,
    seed: int = 7,
    end: datetime,
    days: int = 540,
    horizon_days: int | None = None,
    futures: int = 64,
) -> pd.Series:
    """The chance of a model's label, given all that is known and all that is hidden at a moment.

    Args:
        spine: `entity_id` (or `lead_id`) and `as_of` (UTC); any index.
        model: `conversion` and `churn` give a chance, `lead_score` the expected premium.
        leads: as given to `generate`, like the following three.
        seed: see `leads`.
        end: see `leads`.
        days: see `leads`.
        horizon_days: how far the label looks ahead; by default 30, 60 and 90 days.
        futures: simulated futures per row; the standard error of a churn chance is at most
            0.5 / sqrt(futures), that of a conversion chance far less.

    Returns:
        float64 with the spine's index; NaN where the lead is not there yet, is closed, or (for
        conversion and lead_score) is a customer.

    Raises:
        ValueError: an unknown model, or an id that is not of this funnel.
    """
    import pandas as pd

    from leadml_pipelines.times import require_utc_column

    if model not in HORIZON_DAYS:
        raise ValueError(f"{model} has no hidden chance; there are {', '.join(HORIZON_DAYS)}")
    world = prepare(leads, seed, end, days)
    name = "entity_id" if "entity_id" in spine.columns else "lead_id"
    index = _indices(spine[name], leads)
    as_of = require_utc_column(spine["as_of"], "as_of").astype("int64").to_numpy()
    horizon = horizon_days or HORIZON_DAYS[model]
    answer = np.full(len(spine), np.nan)
    for chunk, births in enumerate(chunk_births(world)):
        rows = np.flatnonzero(index // CHUNK == chunk)
        if not len(rows):
            continue
        asked = _Asked(rows, index[rows] - chunk * CHUNK, as_of[rows])
        open_leads, customers = _states(world, births, chunk, asked)
        rng = world.random(6, chunk)
        chance = _in_blocks(open_leads, futures, partial(_open_chances, world, rng, model, horizon))
        if model == "lead_score":
            chance *= births.premium[asked.lead[open_leads.lead]]
        answer[rows[open_leads.lead]] = chance
        if model == "churn":
            leaving = partial(_customer_chances, world, rng, horizon)
            answer[rows[customers.lead]] = _in_blocks(customers, futures, leaving)
    return pd.Series(answer, index=spine.index, name=f"hidden_{model}")


def truth(leads: int, *, seed: int = 7, end: datetime, days: int = 540) -> Iterator[pd.DataFrame]:
    """What is hidden about each lead for good, chunk by chunk.

    Args:
        leads: as given to `generate`, like the following three.
        seed: see `leads`.
        end: see `leads`.
        days: see `leads`.

    Yields:
        `lead_id`, `quality` (lasting worth), `hidden` (the part of it that no column shows),
        `patience` (days in which intent fades to 1/e), `premium` (annual, if a policy is bound),
        `agent_skill` (of the first agent) and `campaign_worth`; ordered by creation.
    """
    import pandas as pd

    world = prepare(leads, seed, end, days)
    for births in chunk_births(world):
        yield pd.DataFrame(
            {
                "lead_id": pd.Series(ids("lead_", births.index).to_pandas(), dtype="str"),
                "quality": births.quality,
                "hidden": births.hidden,
                "patience": births.patience,
                "premium": births.premium,
                "agent_skill": world.agents.skill[births.agent],
                "campaign_worth": world.campaigns.worth[births.campaign],
            }
        )


@dataclass(frozen=True)
class _Asked:
    """Rows of the spine that fall into a chunk: row, lead (position among the births), moment."""

    row: Array
    lead: Array
    at: Array


def _indices(entity: pd.Series, leads: int) -> Array:
    import pandas as pd

    digits = entity.astype("str").str.removeprefix("lead_")
    numbers = pd.to_numeric(digits, errors="coerce")
    wrong = ~(numbers < leads).to_numpy(dtype=bool)
    if wrong.any():
        raise ValueError(
            f"{entity.iloc[int(np.flatnonzero(wrong)[0])]} is not a lead of this funnel; "
            f"they are lead_0 to lead_{leads - 1}"
        )
    return numbers.to_numpy(dtype=np.int64)


def _states(world: World, births: Births, chunk: int, asked: _Asked) -> tuple[OpenLeads, Customers]:
    """The states at the asked moments; `lead` is then the position in `asked`."""
    day = (asked.at - world.calendar.start) // DAY
    found_open: list[OpenLeads] = []
    found_customers: list[Customers] = []
    place = np.full(len(births), -1)

    def pick(state: State, wanted: Array) -> State:
        place[state.lead] = np.arange(len(state))
        here = place[asked.lead[wanted]]
        place[state.lead] = -1
        picked = state.take(here[here >= 0])
        picked.lead = wanted[here >= 0]
        return picked

    def watch(today: int, open_leads: OpenLeads, customers: Customers) -> None:
        wanted = np.flatnonzero(day == today)
        if not len(wanted):
            return
        found_open.append(pick(open_leads, wanted))
        found_customers.append(pick(customers, wanted))

    lives = chunk_lives(world, births, chunk, watch)
    alive = asked.at >= births.created[asked.lead]
    today = np.flatnonzero(alive & (day == births.day[asked.lead]))
    new = newborn(take_births(births, asked.lead[today]), world)
    new.lead = today
    open_leads = new
    for some in found_open:
        open_leads = open_leads.join(some)
    customers = customers_from(open_leads.take(slice(0, 0)))
    for more in found_customers:
        customers = customers.join(more)

    closed, bound = _moments(births, lives)
    open_leads = open_leads.take(closed[asked.lead[open_leads.lead]] > asked.at[open_leads.lead])
    buys = bound[asked.lead[open_leads.lead]] <= asked.at[open_leads.lead]
    # Bound this very day, before the moment: a customer from now on.
    fresh = customers_from(open_leads.take(buys))
    customers = customers.take(closed[asked.lead[customers.lead]] > asked.at[customers.lead])
    customers = customers.join(fresh)
    open_leads = open_leads.take(~buys)
    _leave_ahead(open_leads, customers, world, births, asked)
    _take_in(open_leads, world, births, lives, asked)
    return open_leads, customers


def _moments(births: Births, lives: Lives) -> tuple[Array, Array]:
    """When each lead was closed and bound; never is the largest number."""
    never = np.iinfo(np.int64).max
    closed, bound = np.full(len(births), never), np.full(len(births), never)
    for at, kind in ((closed, kinds.CLOSED), (bound, kinds.BOUND_POLICY)):
        changes = lives.changes.of(kind)
        at[changes.lead] = changes.at
    return closed, bound


def _leave_ahead(
    open_leads: OpenLeads, customers: Customers, world: World, births: Births, asked: _Asked
) -> None:
    """Set the shares of the day's activity that lie after the moment."""
    calendar = world.calendar
    for state in (open_leads, customers):
        time = (asked.at[state.lead] - calendar.start) % DAY
        ahead = 1 - calendar.elapsed(state.day, state.zone, time, business=True)
        state.business_share = ahead.astype(np.float32)
    time = (asked.at[open_leads.lead] - calendar.start) % DAY
    ahead = 1 - calendar.elapsed(open_leads.day, open_leads.zone, time, business=False)
    lead = asked.lead[open_leads.lead]
    begins = calendar.start + births.day[lead] * DAY
    left = np.maximum(begins + DAY - births.created[lead], 1)
    gone = np.clip((asked.at[open_leads.lead] - births.created[lead]) / left, 0, 1)
    first = births.day[lead] == open_leads.day
    on_first = left / DAY * (1 - np.sqrt(gone))
    open_leads.consumer_share = np.where(first, on_first, ahead).astype(np.float32)
    open_leads.business_share = np.where(first, on_first, open_leads.business_share).astype(
        np.float32
    )


def _take_in(state: OpenLeads, world: World, births: Births, lives: Lives, asked: _Asked) -> None:
    """Let the events since the morning have their effect."""
    events = lives.events
    serial = events.properties != words.AT_CREATION
    day = (events.at - world.calendar.start) // DAY
    key = events.lead * world.calendar.days + day
    order = np.flatnonzero(serial)
    order = order[np.argsort(key[order], kind="stable")]
    key = key[order]
    lead = asked.lead[state.lead]
    mine = lead * world.calendar.days + state.day
    low, high = np.searchsorted(key, mine), np.searchsorted(key, mine, side="right")
    row = np.repeat(np.arange(len(state)), high - low)
    at = order[np.arange(len(row)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
               + np.repeat(low, high - low)]  # fmt: skip
    before = events.at[at] <= asked.at[state.lead][row]
    row, kind = row[before], events.kind[at[before]]
    n = len(state)
    power = world.agents.power(state.agent, state.product)
    gain = KICK[kind] + SPOKEN * power[row] * (kind == words.CALL_CONNECTED)
    intent = state.intent + np.bincount(row, gain, n)
    state.intent = np.clip(intent, *INTENT_RANGE).astype(np.float32)
    steps = np.isin(kind, (words.QUOTE_REQUEST, words.QUOTE_SENT, words.DOCUMENT_RECEIVED))
    state.stage = np.minimum(state.stage + np.bincount(row, steps, n), 3).astype(np.int8)
    asks = np.bincount(row, kind == words.QUOTE_REQUEST, n) > 0
    state.warm = state.warm | asks
    inbound = np.asarray([t.direction == "inbound" for t in words.EVENT_TYPES])[kind]
    heard = np.bincount(row, inbound, n) > 0
    state.silence = np.where(heard, np.int16(-1), state.silence)
    late = np.bincount(row, kind == words.EMAIL_OPEN, n) > 0
    state.mailed = state.mailed & ~late


def _in_blocks(state: State, futures: int, chances: Callable[[State], Array]) -> Array:
    """Mean over many futures of each row; a bounded number of them at a time."""
    size = max(1, _PATHS // futures)
    parts = [np.empty(0)]
    for start in range(0, len(state), size):
        block = state.take(slice(start, start + size))
        copies = block.take(np.repeat(np.arange(len(block)), futures))
        copies.lead = np.arange(len(copies))
        parts.append(chances(copies).reshape(len(block), futures).mean(axis=1).clip(0.0, 1.0))
    return np.concatenate(parts)


def _open_chances(
    world: World, rng: np.random.Generator, model: Model, horizon: int, state: OpenLeads
) -> Array:
    """By future: the sum of the daily chances of binding, or for churn whether it came about."""
    chance = np.zeros(len(state))
    silent = np.ones(len(state), dtype=bool)
    last = (1 - state.consumer_share, 1 - state.business_share)
    first_day = state.age == 0
    for step in range(horizon + 1):
        if step == horizon:
            # The horizon ends at the time of day at which it began.
            state.consumer_share = np.where(first_day, 0.5, last[0])[state.lead]
            state.business_share = np.where(first_day, 0.5, last[1])[state.lead]
        lead = state.lead
        day = advance_open(state, world, rng)
        stays = day.outcome == STAYS
        if model == "churn":
            silent[lead[day.inbound | ~stays]] = False
            chance[lead[day.outcome == LOST]] = 1.0
        else:
            chance[lead] += day.bind_chance
        state = state.take(stays)
    return chance + silent if model == "churn" else chance


def _customer_chances(
    world: World, rng: np.random.Generator, horizon: int, state: Customers
) -> Array:
    chance = np.zeros(len(state))
    last = 1 - state.business_share
    for step in range(horizon + 1):
        if step == horizon:
            state.business_share = last[state.lead]
        lead = state.lead
        left, leaving = advance_customers(state, world, rng)
        chance[lead] += leaving
        state = state.take(~left)
    return chance
