"""The expressions that views are made of: equal on every engine, to the last bit.

These are THE primitives a view may use, together with comparisons, `&`, `|`, `isNull`, `isin` over
text, `F.coalesce`, `F.when(...).otherwise(...)`, and `+ - * /` between doubles. Why nothing else:

- Sums run over integers and decimals, which are exact in any order. A sum of floats is not.
- A number is always `number(x)`, a double. A bare `0.5` is a decimal in DuckDB and `numeric` in
  PostgreSQL, whose division and rounding differ.
- Lengths of time are differences of whole microseconds, divided once. Intervals count hours, never
  days: a day has 23 or 25 hours twice a year in a session that is not in UTC.
- `exp`, `log`, `power`, `round`, `%` and casts of text that was not checked are left out: their
  last bit, their rounding of halves, their sign and their errors depend on the engine.
  `saturating` bends a curve without them.
- `min` and `max` of text depend on the collation; they run over times and numbers only.

Columns are those of the PySpark API, from SQLFrame. Functions named LEADML_* become each engine's
own expression in the compiler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlframe.standalone import functions as F  # noqa: N812

Column = Any
"""A column of the DataFrame API; SQLFrame brings no type hints that mypy could follow."""
Frame = Any
"""A DataFrame of the same."""

_KEYS = ("entity_id", "as_of")

DAY_MICROS = 86_400_000_000
HOUR_MICROS = 3_600_000_000

MONEY_LIMIT = 900_000_000_000
"""Sums of money saturate here: up to it, the way from decimal to double is exact on each engine."""

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]*")
_NUMBER = (
    r"^-?([0-9]{1,250}([.][0-9]{1,250})?"
    r"|[0-9]([.][0-9]{1,20})?[eE][+-]?([0-9]{1,2}|[12][0-9]{2}))$"
)
"""Text that every engine casts to a double without an error, and to the same one.

The second form is how DuckDB spells a number of JSON that is very large or very small."""


def number(value: float) -> Column:
    """A constant double."""
    return F.lit(repr(float(value))).cast("double")


def double(column: Column) -> Column:
    """An integer, or a boolean made by `flag`, as a double."""
    return column.cast("double")


def flag(condition: Column) -> Column:
    """1 where a condition holds, else 0 (also where it is null)."""
    return F.when(condition, F.lit(1)).otherwise(F.lit(0))


def hours_before(moment: Column, hours: int) -> Column:
    """The moment that many hours earlier: the open, older end of a window."""
    return moment - F.expr(f"interval '{int(hours)}' hour")


def days_between(later: Column, earlier: Column) -> Column:
    """Days from the earlier to the later time, as a double; null when either is null."""
    return _elapsed(later, earlier) / number(DAY_MICROS)


def hours_between(later: Column, earlier: Column) -> Column:
    """Hours from the earlier to the later time, as a double; null when either is null."""
    return _elapsed(later, earlier) / number(HOUR_MICROS)


def milliseconds_between(later: Column, earlier: Column) -> Column:
    """Whole milliseconds from the earlier to the later time, as an integer, rounded down."""
    return whole(_elapsed(later, earlier) / number(1000))


def _elapsed(later: Column, earlier: Column) -> Column:
    return (_micros(later) - _micros(earlier)).cast("double")


def _micros(moment: Column) -> Column:
    return F.call_function("LEADML_MICROS", moment)


def hour_of_day(moment: Column) -> Column:
    """Hour in UTC, 0 to 23, as an integer; times before 1970 count rightly too."""
    hours = F.floor(_micros(moment).cast("double") / number(HOUR_MICROS))
    return whole(hours - number(24) * F.floor(hours / number(24)))


def day_of_week(moment: Column) -> Column:
    """Day in UTC, 1 (Monday) to 7 (Sunday), as an integer."""
    # 1970-01-01 was a Thursday, the fourth day.
    days = F.floor(_micros(moment).cast("double") / number(DAY_MICROS)) + number(3)
    return whole(days - number(7) * F.floor(days / number(7)) + number(1))


def whole(column: Column) -> Column:
    """The greatest integer that is not above a double (of at most 15 digits)."""
    return F.floor(column).cast("bigint")


def beside(left: Frame, *others: Frame) -> Frame:
    """Left-join frames on `entity_id` and `as_of`, keeping every row of the first.

    This is the way to join in a view: names must differ, and the keys are those of the first frame
    (after a bare `join`, a second mention of `as_of` could mean the right side's, which is null
    where nothing matched).

    Raises:
        ValueError: a column other than the keys is in two frames.
    """
    joined, names = left, list(left.columns)
    for other in others:
        new = [name for name in other.columns if name not in _KEYS]
        if twice := set(new) & set(names):
            raise ValueError(f"{', '.join(sorted(twice))} is in two of the frames to join")
        names += new
        joined = joined.join(other, on=list(_KEYS), how="left")
    # Each name once: a first mention is the first frame's.
    return joined.select(*names)


def extend(frame: Frame, **columns: Column) -> Frame:
    """Add columns, all in one step: each step costs time when a statement is compiled."""
    names = [name for name in frame.columns if name not in columns]
    return frame.select(*names, *(column.alias(name) for name, column in columns.items()))


def count_if(condition: Column) -> Column:
    """Aggregate: how many rows meet a condition; 0 when none."""
    return F.count(F.when(condition, F.lit(1)))


def money_sum_if(condition: Column, amount: Column) -> Column:
    """Aggregate: exact sum of a decimal over the rows that meet a condition, as a double.

    Null when no such row has an amount. Saturates at plus and minus `MONEY_LIMIT`.
    """
    total = F.sum(F.when(condition, amount))
    low = F.lit(str(-MONEY_LIMIT)).cast("decimal(38,4)")
    high = F.lit(str(MONEY_LIMIT)).cast("decimal(38,4)")
    # `least` skips nulls on every engine, so that a missing sum must be kept missing by hand.
    return F.when(total.isNotNull(), F.greatest(F.least(total, high), low)).cast("double")


def whole_sum_if(condition: Column, amount: Column) -> Column:
    """Aggregate: sum of an integer over the rows that meet a condition, as a double.

    Exact while it stays below 2^53; null when no such row has an amount.
    """
    return F.sum(F.when(condition, amount)).cast("double")


def latest_if(condition: Column, moment: Column) -> Column:
    """Aggregate: the newest time among the rows that meet a condition; null when none."""
    return F.max(F.when(condition, moment))


def earliest_if(condition: Column, moment: Column) -> Column:
    """Aggregate: the oldest time among the rows that meet a condition; null when none."""
    return F.min(F.when(condition, moment))


def ratio(numerator: Column, denominator: Column) -> Column:
    """Quotient of two doubles; null unless the denominator is positive."""
    return F.when(denominator > number(0), numerator / denominator)


def share(part: Column, total: Column) -> Column:
    """`ratio`, at most 1."""
    return at_most(ratio(part, total), 1)


def smoothed_share(part: Column, total: Column, *, prior: float, weight: float) -> Column:
    """Share that starts at `prior`, which counts as much as `weight` observations.

    `(min(part, total) + prior * weight) / (total + weight)`, so always between 0 and 1.
    """
    capped = F.when(part > total, total).otherwise(part)
    return (capped + number(prior * weight)) / (total + number(weight))


def saturating(column: Column, half: float) -> Column:
    """From 0 at 0 through 1/2 at `half` towards 1, as a double; the column must not be negative."""
    return column / (column + number(half))


def fading(column: Column, half: float) -> Column:
    """From 1 at 0 through 1/2 at `half` towards 0; the column must not be negative."""
    return number(half) / (column + number(half))


def at_most(column: Column, high: float) -> Column:
    """The double, or the bound where it is above; null stays null."""
    return F.when(column > number(high), number(high)).otherwise(column)


def clamp(column: Column, low: float, high: float) -> Column:
    """The double, kept between two bounds; null stays null."""
    return F.when(column < number(low), number(low)).otherwise(at_most(column, high))


def points(column: Column, worth: Sequence[tuple[str, float]], otherwise: float) -> Column:
    """A double per category: `worth` lists them, everything else and null counts `otherwise`."""
    chain = None
    for value, points_ in worth:
        test = column == F.lit(value)
        chain = (
            F.when(test, number(points_)) if chain is None else chain.when(test, number(points_))
        )
    return number(otherwise) if chain is None else chain.otherwise(number(otherwise))


def attribute_number(attributes: Column, name: str, low: float, high: float) -> Column:
    """A number out of JSON, as a double; null when absent, not a number, or out of bounds."""
    text = _attribute(attributes, name)
    value = F.when(text.rlike(_NUMBER), text).cast("double")
    return F.when((value >= number(low)) & (value <= number(high)), value)


def attribute_boolean(attributes: Column, name: str) -> Column:
    """A boolean out of JSON; null when absent or neither true nor false."""
    text = _attribute(attributes, name)
    return F.when(text == F.lit("true"), F.lit(True)).when(text == F.lit("false"), F.lit(False))


def attribute_category(attributes: Column, name: str, values: Sequence[str]) -> Column:
    """A text out of JSON; null when absent or not one of the values."""
    text = _attribute(attributes, name)
    return F.when(text.isin(list(values)), text)


def _attribute(attributes: Column, name: str) -> Column:
    if not _ATTRIBUTE.fullmatch(name):
        raise ValueError(f"attribute name {name!r} must be lower-case words joined by _")
    return F.call_function("LEADML_JSON_TEXT", attributes, F.lit(name))
