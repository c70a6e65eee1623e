"""Sentences about values of features, for people who have never heard of a feature.

A feature brings its own phrase; of one that does not, a phrase is made of its name and its window.
"""

from __future__ import annotations

import re
from typing import Protocol

from leadml_pipelines.features.phrase import AGE, SLOT, Phrase
from leadml_pipelines.features.quantities import quantity, rounded

Value = float | int | bool | str | None

_WINDOW = re.compile(r"_(\d+)([dh])$")
_EVER = re.compile(r"_total$")


class Speakable(Protocol):
    """What is needed to speak of a feature."""

    @property
    def name(self) -> str:
        """Its name in the catalogue."""

    @property
    def type(self) -> str:
        """`double`, `integer`, `boolean` or `category`."""

    @property
    def unit(self) -> str:
        """What a number counts."""

    @property
    def phrase(self) -> Phrase | None:
        """Its own phrase, if it has one."""


def phrase_of(feature: Speakable) -> Phrase:
    """How a feature is spoken of: its own phrase, or one made of its name."""
    return feature.phrase or derived_phrase(feature.name, feature.type)


def derived_phrase(name: str, type: str) -> Phrase:
    """A phrase made of a feature's name and type alone.

    Args:
        name: `<what>_<how>_<window>`, as in `note_count_7d`.
        type: `double`, `integer`, `boolean` or `category`.
    """
    label, lasting = _label(name)
    missing = f"The {label}{lasting} is not known"
    if type == "boolean":
        return Phrase(
            yes=f"The answer to '{label}{lasting}' is yes",
            no=f"The answer to '{label}{lasting}' is no",
            missing=f"The answer to '{label}{lasting}' is not known",
        )
    if type == "category":
        return Phrase(f"The {label}{lasting} is {SLOT}", missing=missing)
    if type == "integer" and label.endswith(" count"):
        label = f"number of {label.removesuffix(' count')} events"
        missing = f"The {label}{lasting} is not known"
        return Phrase(f"The {label}{lasting}, {SLOT},", missing=missing)
    return Phrase(f"The {label} of {SLOT}{lasting}", missing=missing)


def sentence(
    feature: Speakable,
    value: Value,
    *,
    raises: bool,
    outcome: str,
    age_days: float | None = None,
) -> str:
    """A sentence that says what a value does.

    Args:
        feature: The feature.
        value: Its value in its own type; None when it is missing. An infinite number or NaN is
            missing too.
        raises: Whether the value raises the outcome, or lowers it.
        outcome: What is predicted, as in `the risk`.
        age_days: Days since the lead came, where that is known: of a lead of five minutes nobody
            says what it did in the last 90 days.

    Returns:
        As in "No sign of life for 23 days raises the risk."
    """
    phrase = phrase_of(feature)
    return spoken(
        at_age(phrase, age_days),
        feature.unit,
        value,
        raises=raises,
        outcome=outcome,
        age_days=age_days,
    )


def at_age(phrase: Phrase, age_days: float | None) -> Phrase:
    """The phrase as it is about a lead of that age."""
    young = age_days is not None and age_days < phrase.window_days
    return phrase.without_window() if young else phrase


def spoken(
    phrase: Phrase,
    unit: str,
    value: Value,
    *,
    raises: bool,
    outcome: str,
    age_days: float | None = None,
) -> str:
    """As `sentence`, of a phrase that is at hand, the one for this age."""
    verb = "raises" if raises else "lowers"
    if isinstance(value, str):
        text = phrase.by_word.get(value) or phrase.text.replace(SLOT, _word(value))
        return f"{text}, which {verb} {outcome}."
    if isinstance(value, bool):
        return f"{phrase.yes if value else phrase.no}, which {verb} {outcome}."
    if value is None or not abs(value) < float("inf"):
        return f"{phrase.missing}, which {verb} {outcome}."
    if phrase.words and (text := phrase.by_word.get(f"{value:.0f}", "")):
        return f"{text}, which {verb} {outcome}."
    text, plural = _about_number(phrase, unit, value, age_days)
    if phrase.clause:
        return f"{text}, which {verb} {outcome}."
    return f"{text} {verb[:-1] if plural else verb} {outcome}."


def _about_number(
    phrase: Phrase, unit: str, value: float, age_days: float | None
) -> tuple[str, bool]:
    """The text about a number, and whether it is in the plural."""
    if value == 0 and phrase.none:
        return phrase.none, False
    if phrase.share_of_life and age_days is not None:
        part, whole = phrase.share_of_life
        span, age = quantity(value * age_days, "days"), quantity(age_days, "days")
        return (whole if span == age else part).replace(SLOT, span).replace(AGE, age), False
    if phrase.below is not None and value < phrase.below[0]:
        return phrase.below[1].replace(SLOT, quantity(abs(value), unit)), False
    if not phrase.one:
        return phrase.text.replace(SLOT, quantity(value, unit)), False
    if value == 1:
        return phrase.one.replace(SLOT, "1"), False
    return phrase.text.replace(SLOT, rounded(value)), True


def _word(word: str) -> str:
    """A word of a vocabulary as people write it."""
    return " ".join(word.replace("_", " ").split()) or "empty"


def _label(name: str) -> tuple[str, str]:
    """What a name is about, and its window in words, after a space."""
    lasting = ""
    if found := _WINDOW.search(name):
        count, unit = int(found[1]), "day" if found[2] == "d" else "hour"
        lasting = f" in the last {unit}" if count == 1 else f" in the last {count} {unit}s"
        name = name[: found.start()]
    elif found := _EVER.search(name):
        lasting = " so far"
        name = name[: found.start()]
    return name.replace("_", " ").strip(), lasting
