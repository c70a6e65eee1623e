"""What PostgreSQL knows of the leads, for tests of what is read past the cache."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import PostgresEngine
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.world import NOW, World, random_world
from leadml_pipelines_tests.tables import empty_tables

VIEWS = catalogue().views("lead")
NAMES = [feature.name for view in VIEWS for feature in view.features]


def load_leads(url: str, *more: str, seed: int = 3, leads: int = 40) -> World:
    """Fill the source tables with `lead_0` and so on, and more leads; nothing else is there."""
    world = random_world(seed, leads=leads, events=10 * leads)
    for entity_id in more:
        world.lead(entity_id, NOW)
    world.load(url)
    with connect(url) as connection:
        empty_tables(
            connection,
            "leadml.invalidations",
            "leadml.data_clock",
            "leadml.quarantine",
            "leadml.feature_snapshots",
            "leadml.feature_view_snapshots",
        )
    return world


def row_of(url: str, entity_id: str, as_of: datetime | str) -> dict[str, Any]:
    """A lead's features as of a moment, as the engine alone computes them."""
    moment = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    with PostgresEngine(url) as engine:
        values = engine.rows(VIEWS, [entity_id], moment)[entity_id]
    return dict(zip(NAMES, values, strict=True))


def event(event_id: str, lead_id: str, occurred_at: datetime, **more: Any) -> dict[str, Any]:
    """A page view as it is posted, or another event."""
    return {
        "event_id": event_id,
        "lead_id": lead_id,
        "event_type": "page_view",
        "channel": "web",
        "direction": "inbound",
        "occurred_at": occurred_at.isoformat(),
        **more,
    }
