"""What the lead did and what was done to reach it, over several windows, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadml_pipelines.features.view import Dimension, Feature, feature_view

WINDOWS = (1, 7, 30, 90)
"""Days. A window of `w` days is the last `24 w` hours, `(as_of - w, as_of]`."""

DIRECTIONS: tuple[tuple[str, str, Dimension], ...] = (
    ("inbound", "Things the lead did, of any type,", "engagement"),
    ("outbound", "Attempts to reach the lead, of any type,", "relationship"),
)
EVENT_COUNTS: tuple[tuple[str, tuple[int, ...], Dimension], ...] = (
    ("email_sent", (7, 30, 90), "relationship"),
    ("email_open", (7, 30, 90), "engagement"),
    ("email_click", (30, 90), "engagement"),
    ("email_reply", (30,), "engagement"),
    ("call_attempt", (7, 30), "relationship"),
    ("call_connected", (30, 90), "relationship"),
    ("call_inbound", (30,), "intent"),
    ("page_view", (7, 30), "intent"),
    ("quote_request", (30, 90), "intent"),
    ("form_submit", (30,), "intent"),
    ("quote_sent", (30,), "intent"),
    ("document_received", (30,), "intent"),
)
CHANNELS = ("email", "phone", "web")


def _declare() -> tuple[Feature, ...]:
    counts = [
        Feature(
            f"{direction}_count_{days}d", "integer", "events", 0, None, 0,
            f"{text} in the last {days} days.", dimension,
        )
        for direction, text, dimension in DIRECTIONS
        for days in WINDOWS
    ] + [
        Feature(
            f"{kind}_count_{days}d", "integer", "events", 0, None, 0,
            f"Events of type {kind} in the last {days} days.", dimension,
        )
        for kind, windows, dimension in EVENT_COUNTS
        for days in windows
    ]  # fmt: skip
    return (*counts, *_OTHERS)


# fmt: off
_OTHERS = (
    Feature("internal_count_1d", "integer", "events", 0, None, 0,
            "Internal steps (notes, meetings, work items) in the last day.", "relationship"),
    Feature("internal_count_7d", "integer", "events", 0, None, 0,
            "Internal steps (notes, meetings, work items) in the last 7 days.", "relationship"),
    Feature("internal_count_30d", "integer", "events", 0, None, 0,
            "Internal steps (notes, meetings, work items) in the last 30 days.", "relationship"),
    Feature("agent_event_count_90d", "integer", "events", 0, None, 0,
            "Events with an agent in the last 90 days.", "relationship"),
    Feature("event_count_total", "integer", "events", 0, None, 0,
            "Events of any kind, ever.", "engagement"),
    Feature("email_open_rate", "double", "share", 0, 1, None,
            "E-mails opened per e-mail sent in the last 90 days; missing when none was sent.",
            "engagement"),
    Feature("email_open_ratio_30d", "double", "share", 0, 1, 0.2,
            "E-mails opened per e-mail sent in the last 30 days, smoothed: "
            "0.2 when none was sent, weighing five e-mails.", "engagement"),
    Feature("email_click_ratio_30d", "double", "share", 0, 1, 0.05,
            "E-mails clicked per e-mail sent in the last 30 days, smoothed: "
            "0.05 when none was sent, weighing five e-mails.", "engagement"),
    Feature("call_connected_ratio_90d", "double", "share", 0, 1, 0.3,
            "Calls that got through per attempt in the last 90 days, smoothed: "
            "0.3 when none was made, weighing three calls.", "relationship"),
    Feature("inbound_channel_count_30d", "integer", "channels", 0, 4, 0,
            "Channels the lead used in the last 30 days: e-mail, phone, web, any other.",
            "engagement"),
    Feature("event_value_sum_90d", "double", "currency", -9e11, 9e11, 0.0,
            "Sum of the value of all events in the last 90 days.", "value"),
    Feature("days_since_last_inbound", "double", "days", 0, None, None,
            "Days since the lead last did something; missing when it never did.", "urgency"),
    Feature("days_since_last_outbound", "double", "days", 0, None, None,
            "Days since the last attempt to reach the lead; missing without one.", "relationship"),
    Feature("days_since_last_event", "double", "days", 0, None, None,
            "Days since anything happened; missing when nothing ever did.", "urgency"),
    Feature("first_outbound_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first attempt to reach it; missing before.",
            "relationship"),
    Feature("first_agent_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first event with an agent; missing before.",
            "relationship"),
    Feature("first_inbound_delay_hours", "double", "hours", None, None, None,
            "Hours from the lead's creation to the first thing it did; missing before.",
            "engagement"),
)
# fmt: on

FEATURES = _declare()


@feature_view(
    name="engagement",
    entity="lead",
    description="Counts, ratios and recency of a lead's events.",
    features=FEATURES,
    reads=("lead_created", "known_events"),
)
def engagement(read: Mapping[str, Any]) -> Any:
    """One row per lead that exists or has events at the time."""
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    keys = ["entity_id", "as_of"]
    at, as_of = F.col("occurred_at"), F.col("as_of")

    def within(days: int) -> Any:
        return at > p.hours_before(as_of, 24 * days)

    def is_(direction: str) -> Any:
        return F.col("direction") == F.lit(direction)

    def type_is(kind: str) -> Any:
        return F.col("event_type") == F.lit(kind)

    used = [
        p.count_if(is_("inbound") & (F.col("channel") == F.lit(channel)) & within(30)).alias(
            f"used_{channel}"
        )
        for channel in CHANNELS
    ]
    aggregates = (
        *(
            p.count_if(is_(direction) & within(days)).alias(f"{direction}_count_{days}d")
            for direction, _, _ in DIRECTIONS
            for days in WINDOWS
        ),
        *(
            p.count_if(type_is(kind) & within(days)).alias(f"{kind}_count_{days}d")
            for kind, windows, _ in EVENT_COUNTS
            for days in windows
        ),
        *(
            p.count_if(is_("internal") & within(days)).alias(f"internal_count_{days}d")
            for days in (1, 7, 30)
        ),
        *used,
        p.count_if(F.col("agent_id").isNotNull() & within(90)).alias("agent_event_count_90d"),
        p.count_if(type_is("call_attempt") & within(90)).alias("attempts_90d"),
        p.count_if(at.isNotNull()).alias("event_count_total"),
        p.money_sum_if(within(90), F.col("value")).alias("event_value_sum_90d"),
        p.latest_if(is_("inbound"), at).alias("last_inbound_at"),
        p.latest_if(is_("outbound"), at).alias("last_outbound_at"),
        p.latest_if(at.isNotNull(), at).alias("last_event_at"),
        p.earliest_if(is_("inbound"), at).alias("first_inbound_at"),
        p.earliest_if(F.col("agent_id").isNotNull(), at).alias("first_agent_at"),
        p.earliest_if(is_("outbound"), at).alias("first_outbound_at"),
    )
    events = read["known_events"].groupBy(*keys).agg(*aggregates)

    def n(name: str) -> Any:
        return p.double(F.col(name))

    all_used = sum((F.col(f"used_{channel}") for channel in CHANNELS[1:]), F.col("used_email"))
    channels = sum(
        (p.flag(F.col(f"used_{channel}") > F.lit(0)) for channel in CHANNELS),
        p.flag(F.col("inbound_count_30d") > all_used),
    )
    # Events may come before their lead's own row does, so that the creation may be missing.
    return p.extend(
        p.beside(events, read["lead_created"]),
        email_open_rate=p.share(n("email_open_count_90d"), n("email_sent_count_90d")),
        email_open_ratio_30d=p.smoothed_share(
            n("email_open_count_30d"), n("email_sent_count_30d"), prior=0.2, weight=5
        ),
        email_click_ratio_30d=p.smoothed_share(
            n("email_click_count_30d"), n("email_sent_count_30d"), prior=0.05, weight=5
        ),
        call_connected_ratio_90d=p.smoothed_share(
            n("call_connected_count_90d"), n("attempts_90d"), prior=0.3, weight=3
        ),
        inbound_channel_count_30d=channels,
        days_since_last_inbound=p.days_between(as_of, F.col("last_inbound_at")),
        days_since_last_outbound=p.days_between(as_of, F.col("last_outbound_at")),
        days_since_last_event=p.days_between(as_of, F.col("last_event_at")),
        first_outbound_delay_hours=p.hours_between(F.col("first_outbound_at"), F.col("created_at")),
        first_agent_delay_hours=p.hours_between(F.col("first_agent_at"), F.col("created_at")),
        first_inbound_delay_hours=p.hours_between(F.col("first_inbound_at"), F.col("created_at")),
    )
