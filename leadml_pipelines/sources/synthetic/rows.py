"""From numbers to rows of the contract, column by column, without a loop over events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from leadml_pipelines.sources.synthetic import record as kinds
from leadml_pipelines.sources.synthetic import vocabulary as words
from leadml_pipelines.sources.synthetic.births import Births, campaign_id
from leadml_pipelines.sources.synthetic.calendar import DAY, HOUR, Array
from leadml_pipelines.sources.synthetic.timeline import SECOND, Changes, Events
from leadml_pipelines.sources.synthetic.world import World

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NEVER = np.iinfo(np.int64).max
"""Stands for a time that does not come."""

_EMAILS = (words.EMAIL_SENT, words.EMAIL_OPEN, words.EMAIL_CLICK, words.EMAIL_REPLY)


def agent_rows(world: World) -> pd.DataFrame:
    """Rows of `agents`."""
    agents = world.agents
    hired = world.calendar.start + agents.hired.astype(np.int64) * DAY + 14 * HOUR
    return _frame(
        {
            "agent_id": ids("agent_", np.arange(len(agents))),
            "hired_at": times(np.minimum(hired, world.calendar.end - 1)),
            "specialty": _pick(words.PRODUCTS, agents.specialty),
            "capacity": agents.capacity,
        }
    ).astype({"capacity": "Int64"})


def lead_rows(births: Births, updated: Array | None = None) -> pd.DataFrame:
    """Rows of `leads`: as they came in, or completed by an update at `updated` (microseconds)."""
    first = updated is None
    n = len(births)
    vague = births.missing >= 1 << 6 if first else np.zeros(n, dtype=bool)
    missing = births.missing if first else np.zeros(n, dtype=np.int64)
    names = [campaign_id(c) for c in range(int(births.campaign.max(initial=0)) + 1)]
    return _frame(
        {
            "lead_id": ids("lead_", births.index),
            "created_at": times(births.created),
            "source": _pick(words.SOURCES, births.source),
            "campaign_id": _pick(names, births.campaign),
            "product_interest": _pick(words.PRODUCTS, births.product, ~vague),
            "state": _pick([s.code for s in words.STATES], births.state),
            "household_id": ids("household_", births.household, births.household >= 0),
            "attributes": _attributes(births, missing),
            "updated_at": times(births.created if updated is None else updated),
        }
    )


def referral_rows(births: Births) -> pd.DataFrame:
    """Rows of `referrals`: known at the moment the referred lead comes in."""
    rows = births.referrer >= 0
    return _frame(
        {
            "from_lead_id": ids("lead_", births.referrer[rows]),
            "to_lead_id": ids("lead_", births.index[rows]),
            "referred_at": times(births.created[rows]),
        }
    )


def event_rows(
    births: Births, events: Events, world: World, chunk: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of `lead_events` in the order of their arrival; what arrives after the end is not there.

    Most events arrive within seconds; an eighth of the e-mail events with the provider's next batch
    (every six hours); one in 150 after hours or days.
    """
    n = len(events)
    lag = (rng.lognormal(1.1, 1.1, n) * SECOND).astype(np.int64)
    batched = np.isin(events.kind, _EMAILS) & (rng.random(n) < 0.125)
    arrived = events.at + lag
    arrived[batched] = (events.at[batched] // (6 * HOUR) + 1) * 6 * HOUR + lag[batched]
    tardy = np.flatnonzero(rng.random(n) < 1 / 150)
    arrived[tardy] += (rng.exponential(1.2 * DAY, len(tardy))).astype(np.int64) + HOUR
    order = np.argsort(arrived, kind="stable")
    order = order[arrived[order] < world.calendar.end]
    kept = events.take(order)
    types = words.EVENT_TYPES
    serial = np.arange(len(kept)) + chunk * 10_000_000
    return _frame(
        {
            "event_id": ids("event_", serial),
            "lead_id": ids("lead_", births.index[kept.lead]),
            "event_type": _pick([t.name for t in types], kept.kind),
            "channel": _pick([t.channel for t in types], kept.kind),
            "direction": _pick([t.direction for t in types], kept.kind),
            "agent_id": ids("agent_", kept.agent, kept.agent >= 0),
            "value": kept.value,
            "properties": _pick(words.PROPERTIES, kept.properties),
            "occurred_at": times(kept.at),
            "ingested_at": times(arrived[order]),
        }
    )


def closed_at(births: Births, changes: Changes) -> Array:
    """When each lead was closed, in microseconds, or `NEVER`."""
    at = np.full(len(births), NEVER)
    closed = changes.of(kinds.CLOSED)
    at[closed.lead] = closed.at
    return at


def closure_rows(births: Births, changes: Changes) -> pd.DataFrame:
    """Rows of `closures`."""
    closed = changes.of(kinds.CLOSED)
    return _frame(
        {
            "lead_id": ids("lead_", births.index[closed.lead]),
            "closed_at": times(closed.at),
            "reason": _pick(words.CLOSURE_REASONS, closed.detail.astype(np.int64)),
        }
    )


def policy_rows(births: Births, changes: Changes, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of `policies`: the first of each customer, then the second ones; all end together."""
    first, second = changes.of(kinds.BOUND_POLICY), changes.of(kinds.SECOND_POLICY)
    lead = np.concatenate([first.lead, second.lead])
    extra = np.repeat([0, 1], [len(first.lead), len(second.lead)])
    product = births.product[lead]
    other = (product + 1 + rng.integers(0, 3, len(lead))) % len(words.PRODUCTS)
    usual = np.asarray(words.PRODUCT_PREMIUM)
    premium = births.premium[lead] * np.where(extra, usual[other] / usual[product], 1.0)
    ended = closed_at(births, changes)[lead]
    return _frame(
        {
            "policy_id": ids("policy_", births.index[lead] * 2 + extra),
            "lead_id": ids("lead_", births.index[lead]),
            "product": _pick(words.PRODUCTS, np.where(extra, other, product)),
            "annual_premium": np.round(premium, 2),
            "bound_at": times(np.concatenate([first.at, second.at])),
            "cancelled_at": times(ended, ended < NEVER),
        }
    )


def assignment_rows(
    births: Births, changes: Changes, world: World, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of `assignments`: minutes after creation (later with a busy agent), and hand-overs."""
    n = len(births)
    care = world.agents.care[births.day, births.agent]
    delay = (rng.lognormal(2.2, 0.9, n) / care * 60 * SECOND).astype(np.int64)
    handed = changes.of(kinds.HANDED_OVER)
    lead = np.concatenate([np.arange(n), handed.lead])
    agent = np.concatenate([births.agent, handed.agent])
    begins = np.concatenate([births.created + np.minimum(delay, DAY), handed.at])
    order = np.lexsort((begins, lead))
    lead, agent, begins = lead[order], agent[order], begins[order]
    ends = closed_at(births, changes)[lead]
    next_one = np.flatnonzero(lead[1:] == lead[:-1])
    ends[next_one] = np.minimum(ends[next_one], begins[next_one + 1])
    kept = begins < np.minimum(ends, world.calendar.end)
    lead, agent, begins, ends = lead[kept], agent[kept], begins[kept], ends[kept]
    return _frame(
        {
            "lead_id": ids("lead_", births.index[lead]),
            "agent_id": ids("agent_", agent),
            "assigned_at": times(begins),
            "ended_at": times(ends, ends < NEVER),
        }
    )


def ids(prefix: str, numbers: Array, present: Array | None = None) -> pa.Array:
    """Ids such as `lead_12`; null where not `present`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = None if present is None else ~present
    digits = pc.cast(pa.array(numbers, mask=mask), pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), digits, "")


def times(micros: Array, present: Array | None = None) -> pa.Array:
    """UTC times from microseconds; null where not `present`."""
    import pyarrow as pa

    mask = None if present is None else ~present
    return pa.array(micros, mask=mask).cast(pa.timestamp("us", tz="UTC"))


def _pick(texts: Sequence[str | None], positions: Array, present: Array | None = None) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = None if present is None else ~present
    return pc.take(pa.array(texts, pa.string()), pa.array(positions, mask=mask))


def _frame(columns: Mapping[str, Array | pa.Array]) -> pd.DataFrame:
    import pyarrow as pa

    return pa.table(
        {
            name: pa.array(column) if isinstance(column, np.ndarray) else column
            for name, column in columns.items()
        }
    ).to_pandas()


def _attributes(births: Births, missing: Array) -> list[str]:
    told = [(missing >> bit) & 1 == 0 for bit in range(5)]
    rows = zip(
        births.age.tolist(),
        births.income.tolist(),
        births.credit.tolist(),
        births.requested.tolist(),
        births.insured.tolist(),
        *(t.tolist() for t in told),
        strict=True,
    )
    texts = []
    for (
        age,
        income,
        credit,
        amount,
        insured,
        has_age,
        has_income,
        has_credit,
        has_amount,
        has,
    ) in rows:
        parts = []
        if has_age:
            parts.append(f'"age": {age}')
        if has_income:
            parts.append(f'"income_band": "{words.INCOME_BANDS[income]}"')
        if has_credit:
            parts.append(f'"credit_band": "{words.CREDIT_BANDS[credit]}"')
        if has_amount:
            parts.append(f'"requested_amount": {amount:.0f}')
        if has:
            parts.append(f'"has_current_insurer": {"true" if insured else "false"}')
        texts.append("{" + ", ".join(parts) + "}")
    return texts
