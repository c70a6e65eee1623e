"""Functions that count, add up and date events."""

from __future__ import annotations

from collections.abc import Mapping

from leadml_pipelines.features.functions.base import Column, feature_function
from leadml_pipelines.features.functions.events import EventFunction, Events, Words
from leadml_pipelines.features.phrase import RECENT_DAYS, SLOT, Phrase, counted
from leadml_pipelines.features.view import Dimension, Value


@feature_function("count")
class Count(EventFunction):
    """How many events there were in a window: an integer from 0, in events."""

    how = "count"
    type = "integer"
    unit = "events"
    low = 0

    @property
    def default(self) -> Value:
        """No event is known of: none."""
        return 0

    @property
    def derived_description(self) -> str:
        """What is counted."""
        return f"Number of {self.events.noun} {self.lasting}."

    @property
    def derived_phrase(self) -> Phrase:
        """`3 quote requests in the last 30 days`."""
        return counted(*self.events.spoken, self.lasting)

    def aggregates(self) -> Mapping[str, Column]:
        """The number."""
        from leadml_pipelines.features import primitives as p

        return {"n": p.count_if(self.chosen())}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The number."""
        return columns["n"]


@feature_function("total")
class Total(EventFunction):
    """Sum of the value of the events in a window, in currency, exact to the cent.

    Between plus and minus 9e11, where it saturates; 0 when no event has a value.
    """

    how = "value_sum"
    unit = "currency"
    low = -9e11
    high = 9e11

    @property
    def default(self) -> Value:
        """No value is known of: nothing."""
        return 0.0

    @property
    def derived_description(self) -> str:
        """What is added up."""
        return f"Sum of the value of {self.events.noun} {self.lasting}."

    @property
    def derived_phrase(self) -> Phrase:
        """`A total amount of 1,200 in the events in the last 30 days`."""
        what = f"the {self.events.spoken[1]} {self.lasting}"
        return Phrase(
            f"A total amount of {SLOT} in {what}",
            none=f"No amount in {what}",
            missing=f"The total amount in {what} is not known",
        )

    def aggregates(self) -> Mapping[str, Column]:
        """The sum."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        return {"sum": p.money_sum_if(self.chosen(), F.col("value"))}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The sum."""
        return columns["sum"]


@feature_function("ratio")
class Ratio(EventFunction):
    """Events of one kind per event of another in a window, smoothed: a share from 0 to 1.

    `(min(of, per) + prior * weight) / (per + weight)`: it starts at `prior`, which counts as much
    as `weight` events. Without weight it is missing where there is nothing to divide by.

    Attributes:
        of: Types of the events that are counted, or `Events`.
        per: Types of the events they are set against, or `Events`.
        prior: The share before anything is known.
        weight: How many events the prior is worth.
    """

    how = "ratio"
    unit = "share"
    low = 0
    high = 1

    of: Events | Words
    per: Events | Words
    prior: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a prior that is no share."""
        super().__post_init__()
        if not 0 <= self.prior <= 1 or self.weight < 0:
            raise ValueError(
                f"prior is {self.prior} and weight {self.weight}; "
                "the prior lies in 0 to 1, and the weight is not negative"
            )
        if self.event_type or self.channel or self.direction or self.topic:
            raise ValueError("a ratio takes `of` and `per`, no other choice of events")

    @property
    def default(self) -> Value:
        """The prior, or missing without one."""
        return float(self.prior) if self.weight else None

    @property
    def derived_name(self) -> str:
        """After the events that are counted."""
        parts = (Events.of(self.of).what, self.how, self.window)
        return "_".join(part for part in parts if part)

    @property
    def derived_description(self) -> str:
        """What is divided by what."""
        noun = Events.of(self.of).noun
        text = f"{noun[0].upper()}{noun[1:]} per {Events.of(self.per).noun} {self.lasting}"
        if not self.weight:
            return f"{text}, at most 1; missing when there was none of the latter."
        return (
            f"{text}, at most 1, smoothed: {self.prior:g} when there was none of the latter, "
            f"weighing {self.weight:g} events."
        )

    @property
    def derived_phrase(self) -> Phrase:
        """`The ratio of opened e-mails to e-mails to the lead in the last 30 days, 35%,`."""
        of, per = Events.of(self.of).spoken, Events.of(self.per).spoken
        return Phrase(
            f"The ratio of {of[1]} to {per[1]} {self.lasting}, {SLOT},",
            missing=f"There was no {per[0]} {self.lasting}",
        )

    def aggregates(self) -> Mapping[str, Column]:
        """Both numbers."""
        from leadml_pipelines.features import primitives as p

        return {
            "of": p.count_if(self.chosen(events=Events.of(self.of))),
            "per": p.count_if(self.chosen(events=Events.of(self.per))),
        }

    def value(self, columns: Mapping[str, Column]) -> Column:
        """Their quotient."""
        from leadml_pipelines.features import primitives as p

        part, total = p.double(columns["of"]), p.double(columns["per"])
        if not self.weight:
            return p.share(part, total)
        return p.smoothed_share(part, total, prior=self.prior, weight=self.weight)


@feature_function("recency")
class Recency(EventFunction):
    """Days since the last event, from 0; missing when there was none in the window, or ever."""

    how = "recency"
    unit = "days"
    low = 0

    dimension: Dimension = "urgency"

    @property
    def derived_description(self) -> str:
        """Since what."""
        none = "ever" if self.window is None else self.lasting
        return f"Days since the last of the {self.events.noun}; missing when there was none {none}."

    @property
    def derived_phrase(self) -> Phrase:
        """`The last quote request, 5 days ago,`, and `No quote request for 23 days`."""
        one = self.events.spoken[0]
        return Phrase(
            f"No {one} for {SLOT}",
            below=(RECENT_DAYS, f"The last {one}, {SLOT} ago,"),
            missing=f"There was no {one} {self.lasting}",
        )

    def aggregates(self) -> Mapping[str, Column]:
        """The newest time."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        return {"last": p.latest_if(self.chosen(), F.col("occurred_at"))}

    def value(self, columns: Mapping[str, Column]) -> Column:
        """Its distance to the moment."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        return p.days_between(F.col("as_of"), columns["last"])


@feature_function("delay")
class Delay(EventFunction):
    """Hours until something happened for the first time, from 0; missing while it did not.

    Counted from the first event of another kind; without `after`, from the first of any kind.
    Missing too while there was none of that kind, or when it came later.

    Attributes:
        after: Types of the events from the first of which it is counted, or `Events`.
    """

    how = "delay_hours"
    unit = "hours"
    low = 0

    dimension: Dimension = "urgency"
    after: Events | Words = ()

    def __post_init__(self) -> None:
        """Refuse a choice of events that is none."""
        super().__post_init__()
        _ = Events.of(self.after).noun

    @property
    def derived_description(self) -> str:
        """From what to what."""
        return (
            f"Hours from the first of the {Events.of(self.after).noun} {self.lasting} to the first "
            f"of the {self.events.noun}; missing while there was none."
        )

    def aggregates(self) -> Mapping[str, Column]:
        """Both times."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        at = F.col("occurred_at")
        return {
            "first": p.earliest_if(self.chosen(), at),
            "after": p.earliest_if(self.chosen(events=Events.of(self.after)), at),
        }

    def value(self, columns: Mapping[str, Column]) -> Column:
        """The distance between them."""
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        first, after = columns["first"], columns["after"]
        return F.when(first >= after, p.hours_between(first, after))
