"""What a day does to an open lead: the one step that both the simulation and the chances use.

The state of an open lead at the beginning of a day (see `OpenLeads`) is all that the future depends
on. With `x` the intent, `q` the quality, `e` the agent's power on this product, `care` what the
agent's load leaves, `f` and `g` how busy consumers and agents are that day, and
`grip(x) = x / (x + 0.12)`, a day goes as follows.

1. How it ends, if it ends (one draw):

       bound      BIND[stage] * grip(x) * exp(0.25 q + 0.15 e) * care * g
       lost       ELSEWHERE[stage] * f  +  GIVEN_UP * g  once 45 days silent
       declined   DECLINE[stage] * risk(credit) * g
       duplicate  0.004 * g  in the first three days

2. What happens, if it stays: e-mails are sent by age and silence, and are opened with chance
   `1 - exp(-1.5 x)` that day or the next; calls are tried by age and after activity, and connect
   more often with more intent; pages are viewed `Poisson(PAGES * x * f)`; the lead calls, fills in
   forms, asks for a quote (stage 0 -> 1, `ASK * x * f`), the agent sends it (1 -> 2), documents
   come (2 -> 3). Now and then another agent takes over.

3. What it does to intent. A lead that has asked for a quote is warm: its intent is held near
   `hold = 0.75 exp(0.3 q)` until it cools off (`COOL_OFF * exp(-0.3 q)`; intent then falls to 35 %
   at once). Every other lead's intent fades:

       warm   x' = x + 0.15 (hold - x)  + kicks
       else   x' = x exp(-1 / patience) + kicks
       kicks  = what inbound events add (a click more than an open)  +  0.3 e per conversation

So calls by skilled agents raise intent, and by poor ones lower it; the visible events carry most of
what there is to know, because they move the intent themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from leadml_pipelines.sources.synthetic import vocabulary as words
from leadml_pipelines.sources.synthetic.births import Births
from leadml_pipelines.sources.synthetic.calendar import DAY, Array, wrap
from leadml_pipelines.sources.synthetic.record import (
    CALL,
    CLICKED,
    EMAIL,
    HANDED_OVER,
    LATE_OPEN,
    OPENED,
    REPLIED,
    Record,
)
from leadml_pipelines.sources.synthetic.world import World

STAYS, BOUND, LOST, DECLINED, DUPLICATE = range(5)
"""How a day ends for an open lead."""

BIND = np.asarray([0.0022, 0.0034, 0.0066, 0.0140], dtype=np.float32)
ELSEWHERE = np.asarray([0.0020, 0.0020, 0.0025, 0.0015], dtype=np.float32)
DECLINE = np.asarray([0.0002, 0.0004, 0.0010, 0.0030], dtype=np.float32)
"""Chances a day of binding, of buying elsewhere and of being declined, by stage."""
PAGES = np.float32(0.26)
"""Pages viewed a day, for each unit of intent."""
ASK = np.float32(0.035)
"""Chance a day of asking for a quote, for each unit of intent."""
GIVEN_UP = np.float32(0.10)
"""Chance a day that an agent closes a lead that has been silent for `PATIENT_SILENCE` days."""
COOL_OFF = np.float32(0.010)
PATIENT_SILENCE = 45
INTENT_RANGE = (np.float32(1e-4), np.float32(4.0))
KICK = np.zeros(len(words.EVENT_TYPES), dtype=np.float32)
"""What an event adds to intent, by type."""
KICK[words.EMAIL_OPEN], KICK[words.EMAIL_CLICK], KICK[words.EMAIL_REPLY] = 0.02, 0.05, 0.15
KICK[words.PAGE_VIEW], KICK[words.CALL_INBOUND], KICK[words.FORM_SUBMIT] = 0.05, 0.20, 0.20
KICK[words.DOCUMENT_RECEIVED] = KICK[words.MEETING] = 0.25
SPOKEN = np.float32(0.3)
"""What a conversation adds to intent, for each unit of the agent's power."""
_RISK = np.asarray([2.6, 1.2, 0.7, 0.4], dtype=np.float32)


@dataclass
class OpenLeads:
    """Open leads at the beginning of a day, one array element per lead.

    Attributes:
        lead: position among the births of the chunk (the chances use it as they like).
        day: day of the period that begins.
        consumer_share: of this day's activity of consumers that still lies ahead: less than 1 on
            the day of creation, and where a chance is asked for in the middle of a day.
        business_share: the same for agents.
        zone: position in `ZONES`.
        product: position in `PRODUCTS`.
        agent: who works it.
        quality: `q`.
        hold: intent that a warm lead keeps.
        keep: `exp(-1 / patience)`.
        risk: factor of the hazard of being declined.
        intent: `x`.
        stage: 0 new, 1 quote asked for, 2 quote sent, 3 documents in.
        warm: whether it has asked for a quote and not cooled off.
        silence: days since the last inbound event.
        age: days since creation.
        mailed: whether an e-mail of the day before may still be opened.
    """

    lead: Array
    day: Array
    consumer_share: Array
    business_share: Array
    zone: Array
    product: Array
    agent: Array
    quality: Array
    hold: Array
    keep: Array
    risk: Array
    intent: Array
    stage: Array
    warm: Array
    silence: Array
    age: Array
    mailed: Array

    def __len__(self) -> int:
        return len(self.lead)

    def take(self, rows: Array | slice) -> Self:
        """The leads at the given positions (or where a mask is true)."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, other: OpenLeads) -> OpenLeads:
        """These leads, then the others."""
        if not len(other):
            return self
        return OpenLeads(
            **{
                f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )


def newborn(births: Births, world: World) -> OpenLeads:
    """The state of all leads of a chunk at the beginning of their lives."""
    n = len(births)
    begun = world.calendar.start + births.day * DAY
    share = (1.0 - (births.created - begun) / DAY).astype(np.float32)
    impulse = np.asarray([1.1, 0.75, 1.2, 0.55, 0.8, 1.5], dtype=np.float32)[births.source]
    return OpenLeads(
        lead=np.arange(n),
        day=births.day,
        consumer_share=share,
        business_share=share,
        zone=births.zone,
        product=births.product,
        agent=births.agent,
        quality=births.quality,
        hold=(0.75 * np.exp(0.3 * births.quality)).astype(np.float32),
        keep=np.exp(-1.0 / births.patience).astype(np.float32),
        risk=_RISK[births.credit],
        intent=(0.75 * impulse * np.exp(0.5 * births.quality)).astype(np.float32),
        stage=np.zeros(n, dtype=np.int8),
        warm=np.zeros(n, dtype=bool),
        silence=np.zeros(n, dtype=np.int16),
        age=np.zeros(n, dtype=np.int16),
        mailed=np.zeros(n, dtype=bool),
    )


@dataclass(frozen=True)
class OpenDay:
    """What a day brought to open leads.

    Attributes:
        outcome: how it ended, by lead (`STAYS`, `BOUND` ...).
        bind_chance: the chance of `BOUND` that the lead had at the beginning of the day.
        inbound: whether there was an inbound event.
    """

    outcome: Array
    bind_chance: Array
    inbound: Array


def advance_open(
    state: OpenLeads, world: World, rng: np.random.Generator, record: Record | None = None
) -> OpenDay:
    """Let a day pass; `state` becomes that of the next morning (leads that ended are still in it).

    Args:
        state: changed in place.
        world: calendar and agents.
        rng: the only source of chance.
        record: takes down what happened; requires that all leads are at the same day.
    """
    n = len(state)
    x, stage, e = state.intent, state.stage, world.agents.power(state.agent, state.product)
    day = wrap(state.day, world.calendar.days)
    f = world.calendar.consumer[day, state.zone] * state.consumer_share
    g = world.calendar.business[day, state.zone] * state.business_share
    care = world.agents.care[day, state.agent]
    grip = x / (x + np.float32(0.12))
    r = rng.random((15, n), dtype=np.float32)

    fit = np.exp(np.float32(0.25) * state.quality + np.float32(0.15) * e)
    bind = np.minimum(BIND[stage] * grip * fit * care * g, np.float32(0.5))
    lost = ELSEWHERE[stage] * f + (state.silence >= PATIENT_SILENCE) * GIVEN_UP * g
    declined = DECLINE[stage] * state.risk * g
    duplicate = np.float32(0.004) * g * (state.age <= 2)
    outcome = _endings(r[0], bind, lost, declined, duplicate)
    stays = outcome == STAYS

    recent = state.silence <= 1
    mail = 0.42 * np.exp(state.age / np.float32(-5)) + 0.022 + 0.05 * (state.silence < 21)
    sent = stays & (r[1] < mail.astype(np.float32) * g)
    opens = 1 - np.exp(np.float32(-1.5) * x)
    open_now = sent & (r[2] < np.float32(0.65) * opens)
    open_late = state.mailed & stays & (r[3] < np.float32(0.35) * opens)
    click_now, click_late = open_now & (r[4] < 0.28), open_late & (r[4] < 0.28)
    reply_now, reply_late = open_now & (r[5] < 0.10 * grip), open_late & (r[5] < 0.10 * grip)
    urge = 0.60 * np.exp(state.age / np.float32(-2.5)) + 0.008 + (0.06 + 0.14 * state.warm) * recent
    tried = stays & (r[6] < urge.astype(np.float32) * g * care)
    spoke = tried & (r[7] < 0.15 + 0.35 * grip)
    pages = rng.poisson(np.minimum(PAGES * x * f, np.float32(4.0))) * stays
    called = stays & (r[8] < 0.03 * x * f)
    form = stays & (r[9] < 0.03 * x * f)
    asked = stays & (stage == 0) & (r[10] < ASK * x * f)
    quoted = stays & (stage == 1) & (r[11] < 0.45 * g * care)
    papers = stays & (stage == 2) & (r[12] < 0.055 * grip * g)
    met = stays & (stage >= 1) & (r[12] > 1 - 0.025 * g)
    cooled = state.warm & stays & (r[13] < COOL_OFF * np.exp(-state.quality * 0.3))
    moved = stays & (state.age > 2) & (r[14] < 0.0025 * g)

    if record is not None:
        when = int(state.day[0]) if n else 0
        for kind, happened, detail in (
            (EMAIL, sent, open_now * OPENED + click_now * CLICKED + reply_now * REPLIED),
            (LATE_OPEN, open_late, OPENED + click_late * CLICKED + reply_late * REPLIED),
            (CALL, tried, spoke * 1),
            (words.CALL_INBOUND, called, None),
            (words.FORM_SUBMIT, form, None),
            (words.QUOTE_REQUEST, asked, None),
            (words.QUOTE_SENT, quoted, None),
            (words.DOCUMENT_RECEIVED, papers, None),
            (words.MEETING, met, None),
            (words.NOTE, spoke & (r[7] < 0.12), None),
            (words.PAGE_VIEW, pages > 0, pages),
        ):
            rows = np.flatnonzero(happened)
            record.add(
                kind,
                when,
                state.lead[rows],
                state.agent[rows],
                None if detail is None else detail[rows].astype(np.float32),
            )

    opened = (open_now | open_late).astype(np.float32)
    clicked, replied = click_now | click_late, reply_now | reply_late
    kick = (
        KICK[words.EMAIL_OPEN] * opened
        + KICK[words.EMAIL_CLICK] * clicked
        + KICK[words.EMAIL_REPLY] * replied
        + KICK[words.PAGE_VIEW] * pages.astype(np.float32)
        + KICK[words.CALL_INBOUND] * called
        + KICK[words.FORM_SUBMIT] * form
        + KICK[words.MEETING] * (papers | met)
        + SPOKEN * e * spoke
    )
    inbound = (pages > 0) | open_now | open_late | called | form | asked | papers
    warm = (state.warm | asked) & ~cooled
    held = x + np.float32(0.15) * (state.hold - x)
    faded = x * state.keep
    intent = np.where(warm, held, faded) + kick
    intent = np.where(cooled, intent * np.float32(0.35), intent)
    state.intent = np.clip(intent, *INTENT_RANGE)
    state.warm = warm
    state.stage = stage + (asked | quoted | papers)
    state.silence = np.where(inbound, np.int16(0), state.silence + np.int16(1))
    state.mailed = sent & ~open_now
    rows = np.flatnonzero(moved)
    if len(rows):
        state.agent = state.agent.copy()
        state.agent[rows] = world.agents.choose(
            day[rows], state.product[rows], rng.random(len(rows))
        )
        if record is not None:
            record.add(HANDED_OVER, when, state.lead[rows], state.agent[rows])
    state.age = state.age + np.int16(1)
    state.day = state.day + 1
    state.consumer_share = state.business_share = np.ones(n, dtype=np.float32)
    return OpenDay(outcome, bind, inbound)


def _endings(uniform: Array, bind: Array, lost: Array, declined: Array, duplicate: Array) -> Array:
    """How the day ends for each lead: one draw decides between all endings and staying."""
    outcome = np.full(len(uniform), STAYS, dtype=np.int8)
    ends = np.flatnonzero(uniform < bind + lost + declined + duplicate)
    u, limit = uniform[ends], bind[ends]
    outcome[ends] = BOUND
    for more in (lost, declined, duplicate):
        outcome[ends] += u >= limit
        limit = limit + more[ends]
    return outcome
