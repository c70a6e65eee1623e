"""What the lead did and what was done to reach it, over several windows, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from leadml_pipelines.features.functions import (
    Count,
    Diversity,
    Ratio,
    Recency,
    ResponseTime,
    Total,
    Trend,
    with_functions,
)
from leadml_pipelines.features.functions.events import window_text
from leadml_pipelines.features.functions.views import aggregated
from leadml_pipelines.features.phrase import RECENT_DAYS, SLOT, Phrase, counted
from leadml_pipelines.features.view import KEYS, Dimension, Feature, feature_view

WINDOWS = ("1d", "7d", "30d", "90d")
"""A window of a day is the last 24 hours, `(as_of - 24 h, as_of]`."""

_DIRECTIONS: tuple[tuple[str, str, Dimension], ...] = (
    ("inbound", "Things the lead did, of any type,", "engagement"),
    ("outbound", "Attempts to reach the lead, of any type,", "relationship"),
    ("internal", "Internal steps (notes, meetings, work items)", "relationship"),
)
_EVENT_TYPES: tuple[tuple[str, tuple[str, ...], Dimension], ...] = (
    ("email_sent", ("7d", "30d", "90d"), "relationship"),
    ("email_open", ("7d", "30d", "90d"), "engagement"),
    ("email_click", ("30d", "90d"), "engagement"),
    ("email_reply", ("30d",), "engagement"),
    ("call_attempt", ("7d", "30d"), "relationship"),
    ("call_connected", ("30d", "90d"), "relationship"),
    ("call_inbound", ("30d",), "intent"),
    ("page_view", ("7d", "30d"), "intent"),
    ("quote_request", ("30d", "90d"), "intent"),
    ("form_submit", ("30d",), "intent"),
    ("quote_sent", ("30d",), "intent"),
    ("document_received", ("30d",), "intent"),
)
CHANNELS = ("email", "phone", "web")
COMPLAINT = "complaint"
"""What an event is about (`topic` in its `properties`) when somebody complains."""

FUNCTIONS = (
    *(
        Count(
            direction=direction,
            window=window,
            dimension=dimension,
            description=f"{text} in the last {window_text(window)}.",
        )
        for direction, text, dimension in _DIRECTIONS
        for window in WINDOWS
    ),
    *(
        Count(event_type=kind, window=window, dimension=dimension)
        for kind, windows, dimension in _EVENT_TYPES
        for window in windows
    ),
    Ratio(name="email_open_rate", of="email_open", per="email_sent", window="90d"),
    Ratio(of="email_open", per="email_sent", window="30d", prior=0.2, weight=5),
    Ratio(of="email_click", per="email_sent", window="30d", prior=0.05, weight=5),
    Ratio(
        of="call_connected",
        per="call_attempt",
        window="90d",
        prior=0.3,
        weight=3,
        dimension="relationship",
    ),
    Total(window="90d", dimension="value"),
    Diversity(direction="inbound", window="30d"),
    Diversity(
        direction="inbound",
        window="90d",
        over="event_type",
        kinds=("email_open", "email_click", "call_inbound", "page_view", "quote_request"),
    ),
    ResponseTime(window="90d"),
    Trend(direction="inbound"),
    Trend(direction="outbound", dimension="relationship"),
    Count(
        name="complaint_count_90d",
        topic=COMPLAINT,
        direction="inbound",
        window="90d",
        dimension="relationship",
    ),
    Recency(
        name="complaint_recency_90d",
        topic=COMPLAINT,
        direction="inbound",
        window="90d",
        dimension="relationship",
    ),
    Recency(event_type="renewal_notice", window="90d", dimension="relationship"),
)

# fmt: off
_HABITS = (
    ("night", "between 0 and 6 o'clock UTC", 0, 6),
    ("morning", "between 6 and 12 o'clock UTC", 6, 12),
    ("afternoon", "between 12 and 18 o'clock UTC", 12, 18),
    ("evening", "between 18 and 24 o'clock UTC", 18, 24),
)
_OTHERS = (
    Feature("agent_event_count_90d", "integer", "events", 0, None, 0,
            "Events with an agent in the last 90 days.", "relationship",
            phrase=counted("event with an agent", "events with an agent", "in the last 90 days")),
    Feature("renewal_premium_ratio_90d", "double", "ratio", 0, None, None,
            "Mean annual premium that the renewal notices of the last 90 days ask for (their "
            "`value`) over that of the active policies; missing without either.", "relationship",
            phrase=Phrase("The premium asked for at the last renewal, {value} the present one,",
                          missing="There was no renewal in the last 90 days")),
    Feature("inbound_channel_count_30d", "integer", "channels", 0, 4, 0,
            "Channels the lead used in the last 30 days: e-mail, phone, web, any other.",
            "engagement",
            phrase=counted("channel used by the lead", "channels used by the lead",
                           "in the last 30 days")),
    *(
        Feature(f"inbound_{name}_share_90d", "double", "share", 0, 1, None,
                f"Share of what the lead did in the last 90 days that it did {text}; "
                "missing when it did nothing.", "intent",
                phrase=Phrase(f"Activity {text}, {SLOT} of all in the last 90 days,",
                              none=f"No activity {text} in the last 90 days",
                              missing="There was no sign of life in the last 90 days"))
        for name, text, _, _ in _HABITS
    ),
    Feature("inbound_weekend_share_90d", "double", "share", 0, 1, None,
            "Share of what the lead did in the last 90 days that it did on a Saturday or Sunday "
            "(UTC); missing when it did nothing.", "intent",
            phrase=Phrase("Activity at weekends, {value} of all in the last 90 days,",
                          none="No activity at weekends in the last 90 days",
                          missing="There was no sign of life in the last 90 days")),
    Feature("inbound_weekday_count_90d", "integer", "days", 0, 7, 0,
            "Days of the week (UTC) on which the lead did something in the last 90 days.",
            "engagement",
            phrase=counted("day of the week with a sign of life",
                           "days of the week with a sign of life", "in the last 90 days")),
)
# fmt: on

_NO_EMAIL = "We have sent the lead no e-mail in the last 90 days"
_PHRASES = {
    "email_open_rate": Phrase(
        "An opening rate of {value} for our e-mails of the last 90 days", missing=_NO_EMAIL
    ),
    "email_open_ratio_30d": Phrase(
        "An opening rate of {value} for our e-mails of the last 30 days",
        missing="The opening rate of our e-mails is not known",
    ),
    "email_click_ratio_30d": Phrase(
        "A click rate of {value} for our e-mails of the last 30 days",
        missing="The click rate of our e-mails is not known",
    ),
    "call_connected_ratio_90d": Phrase(
        "An answering rate of {value} for our calls of the last 90 days",
        missing="We have never reached the lead by phone",
    ),
    "complaint_count_90d": counted("complaint", "complaints", "in the last 90 days"),
    "complaint_recency_90d": Phrase(
        "No complaint for {value}",
        below=(RECENT_DAYS, "The last complaint, {value} ago,"),
        missing="There was no complaint in the last 90 days",
    ),
    "outbound_response_hours_90d": Phrase(
        "An average answering time of {value} in the last 90 days",
        missing="The lead has answered none of our attempts in the last 90 days",
    ),
}
"""Of functions whose own phrase is right, but can be said more simply of these events."""


def _features() -> tuple[Feature, ...]:
    made = (function.feature for function in FUNCTIONS)
    return (*(replace(f, phrase=_PHRASES.get(f.name, f.phrase)) for f in made), *_OTHERS)


FEATURES = _features()


@feature_view(
    name="engagement",
    entity="lead",
    description="Counts, ratios, habits and trends of a lead's events.",
    features=FEATURES,
    reads=("recent_events", "known_policies"),
)
def engagement(read: Mapping[str, Any]) -> Any:
    """One row per lead with events in the last 90 days."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    at = F.col("occurred_at")
    inbound = F.col("direction") == F.lit("inbound")
    month = at > p.hours_before(F.col("as_of"), 24 * 30)
    events = p.extend(
        read["recent_events"],
        hour=F.when(inbound, p.hour_of_day(at)),
        weekday=F.when(inbound, p.day_of_week(at)),
    )
    hour, weekday = F.col("hour"), F.col("weekday")
    renewal = F.col("event_type") == F.lit("renewal_notice")
    asked = F.col("value")
    counted = (
        *(
            p.count_if(inbound & (F.col("channel") == F.lit(channel)) & month).alias(
                f"used_{channel}"
            )
            for channel in CHANNELS
        ),
        *(
            p.count_if((hour >= F.lit(start)) & (hour < F.lit(end))).alias(f"in_{name}")
            for name, _, start, end in _HABITS
        ),
        *(p.count_if(weekday == F.lit(day)).alias(f"on_{day}") for day in range(1, 8)),
        p.count_if(F.col("agent_id").isNotNull()).alias("agent_event_count_90d"),
        p.count_if(renewal & asked.isNotNull()).alias("renewals"),
        p.money_sum_if(renewal, asked).alias("renewal_premium"),
    )
    frame = aggregated(events, FUNCTIONS, *counted)
    names = [name for name in frame.columns if name.startswith(("used_", "in_", "on_"))]
    more = ("agent_event_count_90d", "renewals", "renewal_premium")
    active = F.col("cancelled_at").isNull()
    policies = (
        read["known_policies"]
        .groupBy(*KEYS)
        .agg(
            p.count_if(active).alias("active"),
            p.money_sum_if(active, F.col("annual_premium")).alias("premium"),
        )
    )
    featured = p.beside(with_functions(frame, FUNCTIONS, *more, *names), policies)

    def n(name: str) -> Any:
        return p.double(F.col(name))

    used = sum((F.col(f"used_{channel}") for channel in CHANNELS[1:]), F.col("used_email"))
    channels = sum(
        (p.flag(F.col(f"used_{channel}") > F.lit(0)) for channel in CHANNELS),
        p.flag(F.col("inbound_count_30d") > used),
    )
    weekdays = sum(
        (p.flag(F.col(f"on_{day}") > F.lit(0)) for day in range(2, 8)),
        p.flag(F.col("on_1") > F.lit(0)),
    )
    return p.extend(
        featured,
        renewal_premium_ratio_90d=p.ratio(
            p.ratio(F.greatest(F.col("renewal_premium"), p.number(0)), n("renewals")),
            p.ratio(F.col("premium"), n("active")),
        ),
        inbound_channel_count_30d=channels,
        inbound_weekend_share_90d=p.share(n("on_6") + n("on_7"), n("inbound_count_90d")),
        inbound_weekday_count_90d=weekdays,
        **{
            f"inbound_{name}_share_90d": p.share(n(f"in_{name}"), n("inbound_count_90d"))
            for name, _, _, _ in _HABITS
        },
    )
