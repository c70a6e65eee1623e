"""How a feature is spoken of: the words of a sentence about one of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

SLOT = "{value}"
"""Where the value stands in a text, with its unit."""


AGE = "{age}"
"""Where the age of the lead stands in a text about a share of it."""

_WINDOW = re.compile(r"\b(?:in|of) the last (?:(\d+) )?(hour|day)s?\b")

RECENT_DAYS = 7.0
"""Up to when one says that something was a while ago, and not that nothing was for a while."""


class PhraseError(ValueError):
    """A phrase that no sentence could be made of; the message says why."""


@dataclass(frozen=True)
class Phrase:
    """Texts about the values of one feature, without the verb and the end of the sentence.

    A number is spoken of by the subject of a sentence (`No sign of life for {value}` becomes "No
    sign of life for 23 days raises the risk."), anything else by a clause (`The lead is a customer`
    becomes "The lead is a customer, which lowers the risk."). A comma that opens inside a text is
    closed in it.

    Attributes:
        text: About a known value; `{value}` stands for it.
        one: About the number 1. Where it is set, `text` is in the plural, and names what is
            counted, so that `{value}` is the bare number in both.
        none: About the number 0.
        below: From a limit downwards (exclusive) another text; `{value}` is without its sign there.
        missing: Clause about a value that is missing.
        yes: Clause about a boolean that is true.
        no: Clause about one that is false.
        words: Clauses about some words of a category, or about whole numbers that stand for words.
        clause: Whether the texts about numbers are clauses too.
        share_of_life: About a number that is a share of the lead's age, where that is known:
            `{value}` is that span of time and `{age}` the age. The second text is about all of it.
        young: Clause instead of all others, about a lead that is younger than the window.
    """

    text: str = ""
    one: str = ""
    none: str = ""
    below: tuple[float, str] | None = None
    missing: str = ""
    yes: str = ""
    no: str = ""
    words: tuple[tuple[str, str], ...] = ()
    clause: bool = False
    share_of_life: tuple[str, str] | None = None
    young: str = ""

    def __post_init__(self) -> None:
        for text in self.texts:
            if not text[0].isupper() and not text.startswith(SLOT):
                raise PhraseError(f"the text {text!r} must begin like a sentence")
            if text.rstrip() != text or text.endswith("."):
                raise PhraseError(f"the text {text!r} must end without a space or a full stop")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that is set."""
        plain = (getattr(self, field.name) for field in fields(self))
        below = () if self.below is None else (self.below[1],)
        life = self.share_of_life or ()
        return tuple(
            text
            for text in (*plain, *below, *life, *(text for _, text in self.words))
            if isinstance(text, str) and text
        )

    @cached_property
    def window_days(self) -> float:
        """The days of the shortest window that the texts speak of; 0 for none."""
        found = [
            int(count or 1) / (24 if unit == "hour" else 1)
            for text in self.texts
            for count, unit in _WINDOW.findall(text)
        ]
        return min(found, default=0.0)

    def without_window(self) -> Phrase:
        """The same about a lead that is younger than the window: nothing was before it came."""
        if self.young:
            return Phrase(text=self.young, missing=self.young, clause=True)

        def since(text: str) -> str:
            said = _WINDOW.sub("since the lead came", text)
            return said.replace("the lead since the lead came", "the lead since it came")

        return replace(
            self,
            text=since(self.text),
            one=since(self.one),
            none=since(self.none),
            below=None if self.below is None else (self.below[0], since(self.below[1])),
            missing=since(self.missing),
            yes=since(self.yes),
            no=since(self.no),
            words=tuple((word, since(text)) for word, text in self.words),
        )

    @cached_property
    def by_word(self) -> Mapping[str, str]:
        """`words` as a mapping."""
        return dict(self.words)


def counted(one: str, many: str, rest: str = "", missing: str = "") -> Phrase:
    """A phrase of a number of things.

    Args:
        one: What is counted, as in `quote request`.
        many: Several of them, as in `quote requests`.
        rest: What follows, as in `in the last 30 days`.
        missing: Clause about a number that is missing; made of the rest if empty.
    """
    rest = f" {rest}" if rest else ""
    return Phrase(
        text=f"{SLOT} {many}{rest}",
        one=f"{SLOT} {one}{rest}",
        none=f"No {one}{rest}",
        missing=missing or f"The number of {many}{rest} is not known",
    )
