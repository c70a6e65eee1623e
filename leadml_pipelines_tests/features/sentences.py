"""Sentences about sample values of every lead feature, to be read by people.

`python -m leadml_pipelines_tests.features.sentences` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.phrases import sentence
from leadml_pipelines.features.view import Feature, Value

SNAPSHOT = Path(__file__).with_name("sentences.txt")

_NUMBERS: dict[str, tuple[float, ...]] = {
    "share": (0.0, 0.0034, 0.35, 1.0),
    "ratio": (0.0, 0.25, 1.0, 2.6),
    "days": (0.0, 0.02, 0.5, 1.0, 3.2, 23.4, 412.0, 1300.0),
    "hours": (-30.0, 0.0, 0.4, 1.0, 5.3, 200.0),
    "points": (0.0, 1.0, 82.4),
    "currency": (0.0, 40.5, 25_000.0),
    "currency per year": (0.0, 1210.4),
    "events per day": (0.0, 1 / 90, 3 / 90, 0.4, 1.0, 3.4),
    "hour": (0, 14),
    "day": (1, 7),
    "years": (1, 47),
}
_WORDS = {
    "income_band": ("low", "high"),
    "credit_band": ("excellent",),
    "source": ("referral", "phone", "web", "email", "aggregator", "social", "trade_fair"),
    "campaign": ("spring_mailing",),
    "product_interest": ("auto",),
    "state": ("CA",),
    "stage": ("open", "customer", "closed"),
}


def samples(feature: Feature) -> Iterator[Value]:
    """Values to speak of: missing, none, one, some, many."""
    yield None
    if feature.type == "boolean":
        yield from (True, False)
    elif feature.type == "category":
        yield from _WORDS.get(feature.name, ("some_word",))
    elif feature.type == "integer":
        yield from (int(n) for n in _NUMBERS.get(feature.unit, (0, 1, 3, 1200)) if feature.holds(n))
    else:
        numbers = _NUMBERS.get(feature.unit, (-2.5, 0.0, 0.4, 1.0, 3.4))
        yield from (float(n) for n in numbers if feature.holds(n))


def spoken() -> Iterator[tuple[Feature, Value, str]]:
    """Every lead feature with sample values and a sentence about each."""
    for feature in catalogue().features("lead"):
        for number, value in enumerate(samples(feature)):
            raises = number % 2 == 0
            yield feature, value, sentence(feature, value, raises=raises, outcome="the chance")


NEW, GROWN = 5 / 1440, 23.0
"""Ages in days: five minutes, and some weeks."""


def spoken_at(age_days: float) -> Iterator[tuple[Feature, Value, str]]:
    """Every lead feature of which one speaks otherwise at that age, with sentences about it."""
    for feature in catalogue().features("lead"):
        for number, value in enumerate(islice(samples(feature), 4)):
            raises = number % 2 == 0
            said, plain = (
                sentence(feature, value, raises=raises, outcome="the chance", age_days=age)
                for age in (age_days, None)
            )
            if said != plain:
                yield feature, value, said


def page() -> str:
    """All sentences, by feature; then those about a new lead, and about one of some weeks."""
    return "".join(
        (
            _by_feature(spoken()),
            "\n\nof a lead that came 5 minutes ago\n\n",
            _by_feature(spoken_at(NEW)),
            "\n\nof a lead that came 23 days ago\n\n",
            _by_feature(spoken_at(GROWN)),
        )
    )


def _by_feature(said: Iterator[tuple[Feature, Value, str]]) -> str:
    lines, last = [], ""
    for feature, _, text in said:
        if feature.name != last:
            last = feature.name
            lines += ["", last]
        lines.append(f"    {text}")
    return "\n".join(lines[1:]) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(page(), encoding="utf-8")
