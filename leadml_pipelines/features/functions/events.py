"""What functions over events share: which events, in which window, and how they are aggregated."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from leadml_pipelines.features.functions.base import (
    Column,
    FeatureFunction,
    FunctionSpecError,
)
from leadml_pipelines.times import parse_duration

Words = str | tuple[str, ...]
"""One word or several."""

_HOUR = timedelta(hours=1)
_CHOICES = ("event_type", "channel", "direction", "topic")
_DIRECTIONS = {
    "inbound": ("sign of life", "signs of life"),
    "outbound": ("attempt to reach the lead", "attempts to reach the lead"),
    "internal": ("internal step", "internal steps"),
}
_TYPES = {
    "email_sent": ("e-mail to the lead", "e-mails to the lead"),
    "email_open": ("opened e-mail", "opened e-mails"),
    "email_click": ("click in an e-mail", "clicks in e-mails"),
    "email_reply": ("reply by e-mail", "replies by e-mail"),
    "call_attempt": ("call attempt", "call attempts"),
    "call_connected": ("answered call", "answered calls"),
    "call_inbound": ("call from the lead", "calls from the lead"),
    "page_view": ("page view", "page views"),
    "quote_request": ("quote request", "quote requests"),
    "quote_sent": ("quote sent to the lead", "quotes sent to the lead"),
    "form_submit": ("submitted form", "submitted forms"),
    "document_received": ("received document", "received documents"),
    "renewal_notice": ("renewal notice", "renewal notices"),
}


@dataclass(frozen=True)
class Events:
    """Which events: all those that meet every condition that is given.

    Attributes:
        event_type: One type or several.
        channel: One channel or several.
        direction: `inbound`, `outbound` or `internal`, or several.
        topic: What they were about, `topic` in their `properties`, or several.
    """

    event_type: Words = ()
    channel: Words = ()
    direction: Words = ()
    topic: Words = ()

    @classmethod
    def of(cls, what: Events | Words) -> Events:
        """The events of some types, where only the types are given."""
        return what if isinstance(what, Events) else cls(event_type=what)

    def condition(self) -> Column:
        """Whether a row is one of these events."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        tests = [
            p.attribute_category(F.col("properties"), name, words).isNotNull()
            if name == "topic"
            else F.col(name).isin([*words])
            if len(words) > 1
            else F.col(name) == F.lit(words[0])
            for name, words in self._given()
        ]
        if not tests:
            return F.col("occurred_at").isNotNull()
        condition = tests[0]
        for test in tests[1:]:
            condition = condition & test
        return condition

    @property
    def what(self) -> str:
        """The events in the name of a feature: `email_open`, `inbound`, `phone_inbound`."""
        words = ["_or_".join(words) for _, words in self._given()]
        return _slug("_".join(words)) or "event"

    @property
    def noun(self) -> str:
        """The events in a sentence."""
        named = dict(self._given())
        text = " ".join(" or ".join(named[n]) for n in ("direction", "channel") if n in named)
        text = f"{text} events".strip()
        if "event_type" in named:
            text += f" of type {' or '.join(named['event_type'])}"
        if "topic" in named:
            text += f" about {' or '.join(named['topic'])}"
        return text

    @property
    def spoken(self) -> tuple[str, str]:
        """The events as people call them, one and several: `quote request`, `quote requests`."""
        named = dict(self._given())
        if list(named) == ["direction"] and len(named["direction"]) == 1:
            direction = named["direction"][0]
            if direction in _DIRECTIONS:
                return _DIRECTIONS[direction]
        if list(named) == ["event_type"] and len(named["event_type"]) == 1:
            kind = named["event_type"][0]
            if kind in _TYPES:
                return _TYPES[kind]
        adjectives = " ".join(
            " or ".join(named[n]) for n in ("direction", "channel") if n in named
        ).replace("_", " ")
        kinds = " or ".join(named.get("event_type", ())).replace("_", " ")
        topics = " or ".join(named.get("topic", ())).replace("_", " ")
        ending = f" of type {kinds}" if kinds else ""
        ending += f" about {topics}" if topics else ""
        one, many = (f"{adjectives} {noun}{ending}".strip() for noun in ("event", "events"))
        return one, many

    def _given(self) -> list[tuple[str, tuple[str, ...]]]:
        listed = []
        for name in _CHOICES:
            value = getattr(self, name)
            words = (value,) if isinstance(value, str) else value
            if not isinstance(words, tuple) or not all(isinstance(w, str) and w for w in words):
                raise ValueError(f"{name} is {value!r}; it must be a word or a list of words")
            if words:
                listed.append((name, words))
        return listed


@dataclass(frozen=True, kw_only=True)
class EventFunction(FeatureFunction):
    """A function over the events of an entity, in one pass with all others of its view.

    A subclass says in `aggregates` what is computed over the events that are seen, and in `value`
    what becomes of the aggregates; both are made of `features/primitives.py`.

    Attributes:
        event_type: Only events of this type, or of one of these.
        channel: Only events over this channel.
        direction: Only events of this direction.
        topic: Only events about this, by `topic` in their `properties`.
        window: How far back, as in `30d` or `12h`; whole hours. None: as far as there is history.
    """

    how: ClassVar[str] = ""
    """The part of the feature's name that says what is done with the events."""
    of_one_lead: ClassVar[bool] = False
    """Whether it looks at how events follow each other, which are one story for a lead alone."""

    event_type: Words = ()
    channel: Words = ()
    direction: Words = ()
    topic: Words = ()
    window: str | None = None

    def __post_init__(self) -> None:
        """Refuse a window that can't be one."""
        if self.window is not None:
            window_hours(self.window)

    @classmethod
    def check_spec(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Events may come as objects.

        Raises:
            FunctionSpecError: as above, or such an object has other members.
        """
        checked = super().check_spec(arguments)
        for name, value in checked.items():
            if isinstance(value, Mapping):
                if unknown := set(value) - set(_CHOICES):
                    raise FunctionSpecError(
                        f"{name} of {cls.function} has {', '.join(sorted(unknown))}; events are "
                        f"chosen by {', '.join(_CHOICES)}"
                    )
                words = {k: tuple(w) if isinstance(w, list) else w for k, w in value.items()}
                checked[name] = Events(**words)
        return checked

    @property
    def events(self) -> Events:
        """Which events it is about."""
        return Events(self.event_type, self.channel, self.direction, self.topic)

    @property
    def derived_name(self) -> str:
        """`<what>_<how>_<window>`."""
        return "_".join(part for part in (self.events.what, self.how, self.window) if part)

    @property
    def lasting(self) -> str:
        """The window in a sentence."""
        return "ever" if self.window is None else f"in the last {window_text(self.window)}"

    @property
    def longest_hours(self) -> int | None:
        """Hours that it looks back; None for all of history."""
        return None if self.window is None else window_hours(self.window)

    def rows(self) -> Mapping[str, Column]:
        """Columns to be added to each event before anything is aggregated; none by default."""
        return {}

    @abstractmethod
    def aggregates(self) -> Mapping[str, Column]:
        """Name -> aggregate over the events, with the columns of `known_events` and of `rows`."""

    @abstractmethod
    def value(self, columns: Mapping[str, Column]) -> Column:
        """The feature out of its aggregates, which are null for an entity without events."""

    def chosen(self, *, window: str | None = None, events: Events | None = None) -> Column:
        """Whether an event is one of these, in the window.

        Args:
            window: Another window than the function's own.
            events: Other events than the function's own.
        """
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        condition = (events or self.events).condition()
        length = window or self.window
        if length is None:
            return condition
        since = p.hours_before(F.col("as_of"), window_hours(length))
        return condition & (F.col("occurred_at") > since)


def window_hours(window: str) -> int:
    """A window in hours.

    Raises:
        ValueError: it is no whole number of hours, at least one.
    """
    if not isinstance(window, str):
        raise ValueError(f"the window is {window!r}; write it as text, as in '30d'")
    length = parse_duration(window)
    if length < _HOUR or length % _HOUR:
        raise ValueError(f"the window {window} must be whole hours, as in 12h or 30d")
    return length // _HOUR


def window_text(window: str) -> str:
    """A window in a sentence: `30 days`, `day`."""
    days, hours = divmod(window_hours(window), 24)
    count, unit = (days, "day") if not hours else (window_hours(window), "hour")
    return unit if count == 1 else f"{count} {unit}s"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
