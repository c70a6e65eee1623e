"""Functions that look at how events follow each other, change, and spread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from leadml_pipelines.features.functions.base import Column, feature_function
from leadml_pipelines.features.functions.events import (
    EventFunction,
    Events,
    Words,
    window_hours,
    window_text,
)
from leadml_pipelines.features.phrase import SLOT, Phrase
from leadml_pipelines.features.view import Dimension, Value


@feature_function("response_time")
class ResponseTime(EventFunction):
    """Mean time from a touch of ours in the window to the next answer, in hours from 0.

    A touch without an answer counts not at all, so that the value is missing while nothing was
    answered; several touches may share an answer. Times are cut to milliseconds, whose sums are
    exact.

    Attributes:
        answer: Types of the events that answer, or `Events`.
    """

    how = "response_hours"
    of_one_lead = True
    unit = "hours"
    low = 0

    direction: Words = "outbound"
    answer: Events | Words = Events(direction="inbound")

    def __post_init__(self) -> None:
        """Refuse an answer that is no choice of events."""
        super().__post_init__()
        _ = Events.of(self.answer).noun

    @property
    def _answered(self) -> str:
        """A column of its own for each kind of answer: two functions may share a view."""
        digest = hashlib.blake2s(repr(Events.of(self.answer)).encode(), digest_size=4)
        return f"answered_at_{digest.hexdigest()}"

    @property
    def derived_description(self) -> str:
        """From what to what."""
        return (
            f"Mean hours from {self.events.noun} {self.lasting} to the next of the "
            f"{Events.of(self.answer).noun}; missing while none was answered."
        )

    @property
    def derived_phrase(self) -> Phrase:
        """`The average time to an answer in the last 90 days, 5 hours,`."""
        one, many = self.events.spoken
        answer = Events.of(self.answer).spoken[0]
        return Phrase(
            f"The average time from {_article(one)} {self.lasting} to the next {answer}, {SLOT},",
            missing=f"None of the {many} {self.lasting} was followed by {_article(answer)}",
        )

    def rows(self) -> Mapping[str, Column]:
        """When the next answer after each event came."""
        from sqlframe.standalone import Window
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        answers = Events.of(self.answer).condition()
        # Backwards in time, so that the least time so far is that of the next answer. Of events at
        # one moment the answers come last: what comes at the same moment answers nothing.
        later_first = Window.partitionBy("entity_id", "as_of").orderBy(
            F.col("occurred_at").desc(), p.flag(answers).asc()
        )
        before = later_first.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        return {self._answered: p.earliest_if(answers, F.col("occurred_at")).over(before)}

    def aggregates(self) -> Mapping[str, Column]:
        """How many touches were answered, and the sum of the milliseconds it took."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        answered = self.chosen() & F.col(self._answered).isNotNull()
        took = p.milliseconds_between(F.col(self._answered), F.col("occurred_at"))
        return {"n": p.count_if(answered), "sum": p.whole_sum_if(answered, took)}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The mean."""
        from leadml_pipelines.features import primitives as p

        mean = p.ratio(p.double(columns["sum"]), p.double(columns["n"]))
        return mean / p.number(p.HOUR_MICROS / 1000)


@feature_function("trend")
class Trend(EventFunction):
    """Slope of activity over growing windows: change of the daily number of events in 30 days.

    The windows cut the past into stretches (last 7 days; 7 to 30; 30 to 90). Each has a rate, in
    events per day, and a middle; the value is the least-squares slope of rate over time, times 30.
    0 is steady, positive is growing.

    Attributes:
        windows: At least two, each longer than the one before.
    """

    how = "trend"
    unit = "events per day in 30 days"

    dimension: Dimension = "urgency"
    windows: tuple[str, ...] = ("7d", "30d", "90d")

    def __post_init__(self) -> None:
        """Refuse windows that cut nothing."""
        super().__post_init__()
        if self.window is not None:
            raise ValueError("a trend takes `windows`, as in ('7d', '30d', '90d'), not `window`")
        hours = [window_hours(window) for window in self.windows]
        if len(hours) < 2 or hours != sorted(set(hours)):
            raise ValueError(
                f"windows are {', '.join(self.windows)}; at least two, each longer than the last"
            )

    @property
    def default(self) -> Value:
        """Nothing ever happened: steady."""
        return 0.0

    @property
    def derived_name(self) -> str:
        """After the longest window."""
        return f"{self.events.what}_{self.how}_{self.windows[-1]}"

    @property
    def derived_description(self) -> str:
        """What changes."""
        windows = ", ".join(window_text(window) for window in self.windows)
        return (
            f"Slope of the daily number of {self.events.noun} over the last {windows}: "
            "its change in 30 days."
        )

    @property
    def derived_phrase(self) -> Phrase:
        """`A number of signs of life that grew by 2 a day each month in the last 90 days`."""
        many, longest = self.events.spoken[1], window_text(self.windows[-1])
        over = f"in the last {longest}"
        return Phrase(
            f"A number of {many} that grew by {SLOT} each month {over}",
            none=f"A steady number of {many} {over}",
            below=(0, f"A number of {many} that fell by {SLOT} each month {over}"),
            missing=f"It is not known how the number of {many} changes",
        )

    @property
    def longest_hours(self) -> int | None:
        """The longest window."""
        return window_hours(self.windows[-1])

    def aggregates(self) -> Mapping[str, Column]:
        """The number in each window."""
        from leadml_pipelines.features import primitives as p

        return {window: p.count_if(self.chosen(window=window)) for window in self.windows}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The slope: a weighted sum of the rates, with weights that depend on the windows alone."""
        from leadml_pipelines.features import primitives as p

        ends = [0.0, *(window_hours(window) / 24 for window in self.windows)]
        middles = [-(ends[i] + ends[i + 1]) / 2 for i in range(len(self.windows))]
        mean = sum(middles) / len(middles)
        spread = sum((middle - mean) ** 2 for middle in middles)
        total, before = p.number(0), p.number(0)
        for i, window in enumerate(self.windows):
            count = p.double(columns[window])
            weight = 30 * (middles[i] - mean) / spread / (ends[i + 1] - ends[i])
            total, before = total + (count - before) * p.number(weight), count
        return total


@feature_function("diversity")
class Diversity(EventFunction):
    """How evenly the events of a window spread over channels or types, from 0 to 1.

    The quadratic entropy (Tsallis of order 2, also known as the Gini-Simpson index)
    `1 - sum((n_i / n)^2)`, divided by its maximum `1 - 1/k` for `k` kinds: 0 when all are of one
    kind, 1 when all kinds are equally frequent. Shannon's would need a logarithm, whose last bit
    depends on the engine. Missing without events.

    Attributes:
        over: `channel` or `event_type`.
        kinds: The kinds that are told apart; all others together are one more.
    """

    how = "diversity"
    unit = "share"
    low = 0
    high = 1

    over: str = "channel"
    kinds: tuple[str, ...] = ("email", "phone", "web")

    def __post_init__(self) -> None:
        """Refuse what events can't be told apart by."""
        super().__post_init__()
        _check_kinds(self.over, self.kinds)

    @property
    def derived_name(self) -> str:
        """With what it is told apart by."""
        parts = (self.events.what, self.over, self.how, self.window)
        return "_".join(part for part in parts if part)

    @property
    def derived_description(self) -> str:
        """Over what."""
        over = "channels" if self.over == "channel" else "types"
        return (
            f"How evenly {self.events.noun} {self.lasting} spread over {over}: quadratic entropy, "
            "0 for one kind alone, 1 for all alike."
        )

    @property
    def derived_phrase(self) -> Phrase:
        """`The spread of the signs of life in the last 30 days over channels, 45% of even,`."""
        one, many = self.events.spoken
        kind = "channel" if self.over == "channel" else "kind"
        return Phrase(
            f"The spread of the {many} {self.lasting} over {kind}s, {SLOT} of an even one,",
            none=f"Only one {kind} among the {many} {self.lasting}",
            missing=f"There was no {one} {self.lasting}",
        )

    def aggregates(self) -> Mapping[str, Column]:
        """The number of each kind, and of all."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        chosen = self.chosen()
        kinds = {
            kind: p.count_if(chosen & (F.col(self.over) == F.lit(kind))) for kind in self.kinds
        }
        return {**kinds, "": p.count_if(chosen)}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The entropy: its numerator is a whole number, so that one division is all there is."""
        from leadml_pipelines.features import primitives as p

        total = p.double(columns[""])
        other, squares = total, p.number(0)
        for kind in self.kinds:
            count = p.double(columns[kind])
            other, squares = other - count, squares + count * count
        squares = squares + other * other
        number = len(self.kinds) + 1
        spread = p.ratio(total * total - squares, total * total)
        return p.at_most(spread * p.number(number / (number - 1)), 1)


@feature_function("last_kind")
class LastKind(EventFunction):
    """Which of several kinds of events came last: a category; missing when none of them did.

    Of kinds that came at one moment the first in the list counts.

    Attributes:
        over: `event_type` or `channel`.
        kinds: The kinds that are told apart; no other event counts.
    """

    how = "last"
    type = "category"

    dimension: Dimension = "relationship"
    over: str = "event_type"
    kinds: tuple[str, ...] = ("call_attempt", "call_connected", "call_inbound", "email_reply")

    def __post_init__(self) -> None:
        """Refuse what events can't be told apart by."""
        super().__post_init__()
        _check_kinds(self.over, self.kinds)

    @property
    def derived_name(self) -> str:
        """With what it is told apart by; without a choice of events that alone."""
        what = self.events.what
        parts = ("" if what == "event" else what, self.over, self.how, self.window)
        return "_".join(part for part in parts if part)

    @property
    def derived_description(self) -> str:
        """Over what."""
        over = "channels" if self.over == "channel" else "types"
        return (
            f"Which of the {over} {', '.join(self.kinds)} the last of the {self.events.noun} "
            f"{self.lasting} was of; missing when there was none of them."
        )

    def aggregates(self) -> Mapping[str, Column]:
        """The newest time of each kind."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        chosen, at = self.chosen(), F.col("occurred_at")
        return {
            kind: p.latest_if(chosen & (F.col(self.over) == F.lit(kind)), at) for kind in self.kinds
        }

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The kind whose newest time no other's is after."""
        from sqlframe.standalone import functions as F  # noqa: N812

        times = [columns[kind] for kind in self.kinds]
        # Skips nulls on every engine.
        newest = F.greatest(*times) if len(times) > 1 else times[0]
        chain = F.when(times[0] == newest, F.lit(self.kinds[0]))
        for kind, time in zip(self.kinds[1:], times[1:], strict=True):
            chain = chain.when(time == newest, F.lit(kind))
        return chain


def _check_kinds(over: str, kinds: tuple[str, ...]) -> None:
    if over not in ("channel", "event_type"):
        raise ValueError(f"over is {over!r}; it is channel or event_type")
    if not kinds or not all(kinds) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds are {kinds!r}; name at least one, and each only once")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
