"""What tests of the feature store tell it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.labels import SqlLabel
from leadml_pipelines.features.request_features import RequestFeature
from leadml_pipelines_tests.features.world import NOW, World

DAY = timedelta(days=1)
VIEWS = catalogue().views("lead")
ALL = [feature.name for view in VIEWS for feature in view.features]
BOUND = SqlLabel(
    "bound_7d",
    "SELECT m.row_id, count(p.policy_id) > 0 AS label FROM moments m LEFT JOIN policies p "
    "ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until GROUP BY 1",
    7 * DAY,
)


@dataclass(frozen=True)
class Told:
    """An extract, as far as the store cares."""

    extract_id: str = "20260412"
    as_of: datetime = NOW
    data_end: datetime = NOW


def lead(*events: timedelta) -> World:
    """A world with one lead and events of so long ago."""
    world = World().lead("a", NOW - 100 * DAY)
    for ago in events:
        world.event("a", NOW - ago)
    return world


def per_day(days: int) -> RequestFeature:
    """The requested amount for each of some days."""
    return RequestFeature(
        "amount_per_day",
        "double",
        ("amount",),
        lambda amount: amount / days,
        "Requested amount for each day.",
    )
