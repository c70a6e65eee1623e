"""Numbers with their units, as people say them."""

from __future__ import annotations

import math

_MINUTES = {"minutes": 1.0, "hours": 60.0, "days": 1440.0}
_SPOKEN = {
    "edges": "relations",
    "nodes": "members",
    "events per day in 30 days": "a day",
}
"""Units of the catalogue that people would not say."""
_GREATEST = 1e15
"""From here on a number's digits say nothing any more."""


def quantity(value: float, unit: str) -> str:
    """A number with its unit, rounded to what one wants to know of it.

    Spans of time take the unit that fits their length, shares are per cent, ratios are times.

    Args:
        value: Any finite number.
        unit: As in the catalogue.
    """
    if unit in _MINUTES:
        return _span(value * _MINUTES[unit])
    match unit:
        case "share":
            return f"{rounded(value * 100)}%"
        case "ratio":
            # "1 times" is no English.
            return f"{'1.0' if (number := rounded(value)) == '1' else number} times"
        case "currency":
            return _amount(value)
        case "currency per year":
            return f"{_amount(value)} a year"
        case "events per day":
            return _rate(value)
        case "hour":
            return f"{value:.0f} o'clock UTC"
        case "":
            return rounded(value)
    number = rounded(value)
    return f"{number} {_plural(unit, number)}"


def rounded(value: float) -> str:
    """A number with no more digits than one reads: whole from 100 on, two significant below 10."""
    size = abs(value)
    if size >= _GREATEST:
        return f"{value:.1e}"
    if value == int(value) or size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return _trimmed(f"{value:.1f}")
    digits = max(0, 1 - math.floor(math.log10(size)))
    if digits > 6:
        return "almost 0"
    return _trimmed(f"{value:.{digits}f}")


def _rate(daily: float) -> str:
    """A rate over the span in which one can count it: of a rare thing nobody has 0.03 a day."""
    if daily >= 1:
        return f"{(number := rounded(daily))} {_plural('events', number)} a day"
    if daily * 7 >= 1:
        return f"{(number := rounded(daily * 7))} {_plural('events', number)} a week"
    if daily * 90 < 0.5:
        return "less than 1 event in 90 days"
    return f"{(number := rounded(round(daily * 90)))} {_plural('events', number)} in 90 days"


def _amount(value: float) -> str:
    if abs(value) >= _GREATEST:
        return rounded(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"


def _span(minutes: float) -> str:
    minutes = max(-_GREATEST, min(minutes, _GREATEST))
    if minutes < 0:
        return f"minus {_span(-minutes)}"
    if minutes < 1:
        return "less than a minute"
    if minutes < 59.5:
        return _times(minutes, "minute")
    if minutes < 47.5 * 60:
        return _times(minutes / 60, "hour")
    if minutes < 730 * 1440:
        return _times(minutes / 1440, "day")
    years = rounded(round(minutes / (365.25 * 1440), 1))
    return f"{years} years"


def _times(count: float, noun: str) -> str:
    whole = round(count)
    return f"{whole} {noun}" if whole == 1 else f"{whole:,} {noun}s"


def _plural(unit: str, number: str) -> str:
    """The unit as it follows a number; units of the catalogue are in the plural."""
    many = _SPOKEN.get(unit, unit)
    if number not in ("1", "-1"):
        return many
    first, *rest = many.split(" ")
    if first.endswith("ies"):
        first = f"{first[:-3]}y"
    elif first.endswith("s"):
        first = first[:-1]
    return " ".join((first, *rest))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
