"""From what happened on a day to events with a time: still numbers only, one element per event."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from leadml_pipelines.sources.synthetic import record as kinds
from leadml_pipelines.sources.synthetic import vocabulary as words
from leadml_pipelines.sources.synthetic.births import Births
from leadml_pipelines.sources.synthetic.calendar import DAY, HOUR, Array
from leadml_pipelines.sources.synthetic.record import Record
from leadml_pipelines.sources.synthetic.world import World

SECOND = 1_000_000
_AGENTS_HOURS = (
    kinds.EMAIL,
    kinds.CALL,
    kinds.HANDED_OVER,
    kinds.BOUND_POLICY,
    kinds.SECOND_POLICY,
    kinds.CLOSED,
    words.QUOTE_SENT,
    words.MEETING,
    words.NOTE,
    words.RENEWAL_NOTICE,
)
_BY_AGENT = (
    words.EMAIL_SENT,
    words.CALL_ATTEMPT,
    words.CALL_CONNECTED,
    words.CALL_INBOUND,
    words.QUOTE_SENT,
    words.MEETING,
    words.NOTE,
    words.RENEWAL_NOTICE,
)


@dataclass(frozen=True)
class Events:
    """Events of a chunk.

    Attributes:
        lead: position among the births.
        kind: position in `EVENT_TYPES`.
        at: when it happened, in microseconds.
        agent: who took part, -1 for nobody.
        value: a number with it (premium of a quote, seconds of a call), or NaN.
        properties: position in `PROPERTIES`.
    """

    lead: Array
    kind: Array
    at: Array
    agent: Array
    value: Array
    properties: Array

    def __len__(self) -> int:
        return len(self.lead)

    def take(self, rows: Array) -> Events:
        """The events at the given positions (or where a mask is true)."""
        return Events(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Changes:
    """What else happened to leads: one element per change, with `kind` from `record`."""

    lead: Array
    kind: Array
    at: Array
    agent: Array
    detail: Array

    def of(self, kind: int) -> Changes:
        """The changes of one kind."""
        rows = self.kind == kind
        return Changes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def lay_out(
    births: Births, record: Record, world: World, rng: np.random.Generator
) -> tuple[Events, Changes]:
    """Give everything that happened its time.

    On the day of a lead's creation things happen soon after it (the fraction of the rest of the day
    is the square of a uniform number); on other days by the hours of consumers or agents.
    """
    noted = record.columns()
    lead, kind, day, detail = noted["lead"], noted["kind"], noted["day"], noted["detail"]
    at = _times(births, lead, kind, day, world, rng)
    is_change = (kind >= kinds.HANDED_OVER) & (kind < 0)
    changes = Changes(
        lead[is_change],
        kind[is_change],
        at[is_change],
        noted["agent"][is_change],
        detail[is_change],
    )
    rest = ~is_change
    parts = _expand(
        births,
        lead[rest],
        kind[rest],
        at[rest],
        world.calendar.start + (day[rest] + 1).astype(np.int64) * DAY,
        noted["agent"][rest],
        detail[rest],
        rng,
    )
    parts.append(_first_events(births))
    joined = Events(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Events)}
    )
    return joined, changes


def _times(
    births: Births, lead: Array, kind: Array, day: Array, world: World, rng: np.random.Generator
) -> Array:
    uniform = rng.random(len(lead))
    business = np.isin(kind, _AGENTS_HOURS)
    begins = world.calendar.start + day.astype(np.int64) * DAY
    at = begins + world.calendar.time_of_day(day, births.zone[lead], business, uniform)
    first = np.flatnonzero(day == births.day[lead])
    created = births.created[lead[first]]
    left = begins[first] + DAY - 1 - created
    at[first] = created + np.minimum((uniform[first] ** 2 * left).astype(np.int64) + 1, left)
    return np.asarray(at)


def _first_events(births: Births) -> Events:
    """What brought each lead: at the very moment of its creation."""
    n = len(births)
    kind = np.asarray(words.BIRTH_EVENT)[births.source]
    return Events(
        lead=np.arange(n),
        kind=kind.astype(np.int8),
        at=births.created,
        agent=np.full(n, -1, dtype=np.int32),
        value=np.full(n, np.nan),
        properties=np.full(n, words.AT_CREATION, dtype=np.int16),
    )


def _expand(
    births: Births,
    lead: Array,
    kind: Array,
    at: Array,
    day_end: Array,
    agent: Array,
    detail: Array,
    rng: np.random.Generator,
) -> list[Events]:
    """E-mails, calls and visits into their single events; everything else as it is."""
    parts: list[Events] = []

    def add(rows: Array, event: int, when: Array, properties: Array | int, value: Array) -> None:
        n = len(rows)
        parts.append(
            Events(
                lead=lead[rows],
                kind=np.full(n, event, dtype=np.int8),
                at=when,
                agent=agent[rows] if event in _BY_AGENT else np.full(n, -1, dtype=np.int32),
                value=value,
                properties=np.broadcast_to(np.asarray(properties, dtype=np.int16), (n,)),
            )
        )

    def later(rows: Array, when: Array, scale: int) -> Array:
        """A while after `when`, but on the same day."""
        left = day_end[rows] - 1 - when
        lag = np.minimum(rng.exponential(scale, len(rows)).astype(np.int64) + SECOND, left)
        return np.asarray(when + np.maximum(lag, 0))

    none = np.full(len(lead), np.nan)
    mails = np.flatnonzero(kind == kinds.EMAIL)
    add(mails, words.EMAIL_SENT, at[mails], words.TEMPLATE_NURTURE, none[mails])
    opens_at = at.copy()
    opens_at[mails] = later(mails, at[mails], 3 * HOUR)
    bits = np.where((kind == kinds.EMAIL) | (kind == kinds.LATE_OPEN), detail, 0).astype(np.int8)
    opened = np.flatnonzero(bits & kinds.OPENED)
    add(opened, words.EMAIL_OPEN, opens_at[opened], words.NO_PROPERTIES, none[opened])
    clicked = np.flatnonzero(bits & kinds.CLICKED)
    when = later(clicked, opens_at[clicked], 90 * SECOND)
    add(clicked, words.EMAIL_CLICK, when, words.NO_PROPERTIES, none[clicked])
    replied = np.flatnonzero(bits & kinds.REPLIED)
    when = later(replied, opens_at[replied], HOUR)
    add(replied, words.EMAIL_REPLY, when, words.NO_PROPERTIES, none[replied])

    calls = np.flatnonzero(kind == kinds.CALL)
    spoke = calls[detail[calls] > 0]
    said = np.where(detail[calls] > 0, words.SPOKE, words.NO_ANSWER)
    add(calls, words.CALL_ATTEMPT, at[calls], said, none[calls])
    when = np.minimum(at[spoke] + rng.integers(4, 31, len(spoke)) * SECOND, day_end[spoke] - 1)
    seconds = np.rint(rng.lognormal(5.2, 0.8, len(spoke)))
    add(spoke, words.CALL_CONNECTED, when, words.NO_PROPERTIES, seconds)

    visits = np.flatnonzero(kind == words.PAGE_VIEW)
    pages = np.repeat(visits, np.maximum(detail[visits], 1).astype(np.int64))
    fresh = np.concatenate([[True], pages[1:] != pages[:-1]]) if len(pages) else pages == 0
    # Pages of one visit follow each other by seconds to minutes.
    gap = np.where(fresh, 0, rng.integers(5, 200, len(pages))) * SECOND
    total = np.cumsum(gap)
    since = total - np.maximum.accumulate(np.where(fresh, total, 0))
    when = np.minimum(at[pages] + since, day_end[pages] - 1)
    product = births.product[lead[pages]]
    of_lead = np.where(rng.random(len(pages)) < 0.3, words.PRICES_OF_PRODUCT, words.PAGE_OF_PRODUCT)
    shown = np.where(detail[pages] == -2, words.PAGE_CANCEL, words.PAGE_ACCOUNT)
    add(
        pages,
        words.PAGE_VIEW,
        when,
        np.where(detail[pages] < 0, shown, of_lead + product),
        none[pages],
    )

    premium = births.premium[lead]
    for event in (
        words.CALL_INBOUND,
        words.QUOTE_REQUEST,
        words.FORM_SUBMIT,
        words.QUOTE_SENT,
        words.DOCUMENT_RECEIVED,
        words.MEETING,
        words.NOTE,
        words.RENEWAL_NOTICE,
    ):
        rows = np.flatnonzero(kind == event)
        value, properties = none[rows], np.zeros(len(rows), dtype=np.int16)
        if event == words.CALL_INBOUND:
            angry = detail[rows] == 2
            properties = np.where(angry, words.TOPIC_COMPLAINT, words.TOPIC_QUESTION)
        elif event in (words.QUOTE_REQUEST, words.QUOTE_SENT):
            properties = words.PRODUCT_NAMED + births.product[lead[rows]]
            value = np.round(premium[rows], 2) if event == words.QUOTE_SENT else value
        elif event == words.RENEWAL_NOTICE:
            value = np.round(premium[rows] * (1.0 + detail[rows]), 2)
            properties = np.full(len(rows), words.TEMPLATE_CUSTOMER)
        add(rows, event, at[rows], properties, value)
    return parts
