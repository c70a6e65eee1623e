"""What tells that a customer is unhappy: complaints, and what is asked for at renewal."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import NOW, World, spine

DAY = timedelta(days=1)


def customer() -> World:
    return World().lead("a", NOW - 300 * DAY)


def engagement(world: World, bulk: Bulk) -> Any:
    return bulk(world).compute([catalogue().view("engagement")], spine(("a", NOW))).iloc[0]


def policy(world: World, premium: str, **more: Any) -> None:
    bound = NOW - 200 * DAY
    world.add("policies", lead_id="a", bound_at=bound, annual_premium=Decimal(premium), **more)


def notice(world: World, days_ago: int, asked: str | None) -> None:
    world.event(
        "a",
        NOW - days_ago * DAY,
        event_type="renewal_notice",
        direction="outbound",
        value=None if asked is None else Decimal(asked),
    )


def test_a_complaint_counts_by_its_topic_whatever_the_channel(bulk: Bulk) -> None:
    world = customer()
    complaint = '{"topic": "complaint"}'
    world.event("a", NOW - 3 * DAY, event_type="call_inbound", properties=complaint)
    world.event("a", NOW - 5 * DAY, event_type="email_reply", properties=complaint)
    world.event("a", NOW - DAY, event_type="call_inbound", properties='{"topic": "question"}')
    # What we write about a complaint is none.
    world.event("a", NOW - DAY, direction="outbound", properties=complaint)
    world.event("a", NOW - 91 * DAY, properties=complaint)
    row = engagement(world, bulk)
    assert (row["complaint_count_90d"], row["complaint_recency_90d"]) == (2, 3.0)


def test_a_renewal_is_set_against_the_premium_paid_now(bulk: Bulk) -> None:
    world = customer()
    policy(world, "1000.00")
    policy(world, "5000.00", cancelled_at=NOW - 100 * DAY)
    notice(world, 10, "1250.00")
    row = engagement(world, bulk)
    assert row["renewal_premium_ratio_90d"] == 1.25
    assert row["renewal_notice_recency_90d"] == 10.0


def test_several_renewals_are_compared_in_the_mean(bulk: Bulk) -> None:
    world = customer()
    policy(world, "1000.00")
    policy(world, "3000.00")
    notice(world, 10, "1100.00")
    notice(world, 20, "3300.00")
    # A notice without a sum asks for nothing.
    notice(world, 5, None)
    assert engagement(world, bulk)["renewal_premium_ratio_90d"] == pytest.approx(1.1)


def test_without_a_policy_or_a_notice_there_is_no_ratio(bulk: Bulk) -> None:
    world = customer()
    notice(world, 10, "1250.00")
    assert pd.isna(engagement(world, bulk)["renewal_premium_ratio_90d"])
    world = customer()
    policy(world, "1000.00")
    notice(world, 95, "1250.00")
    assert pd.isna(engagement(world, bulk)["renewal_premium_ratio_90d"])
