"""A cause that proposals must find: opened mails, in an extract and a saved training set."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.training_set import assemble, save_training_set
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines_tests.features.world import NOW, World


def planted_world(url: str, root: Path, *, leads: int = 300) -> pd.DataFrame:
    """Load and extract leads of which those who opened a mail in their last two weeks convert.

    Args:
        url: PostgreSQL, migrated.
        root: Home folder of the extract.
        leads: How many.

    Returns:
        A row per lead, 30 days after its creation: keys, label, and a column `x` of noise.
    """
    r = random.Random(4)  # noqa: S311 - repeatable, not secret
    world, rows = World(), []
    for number in range(leads):
        lead = f"lead_{number}"
        created = NOW - timedelta(days=600 - number)
        as_of = created + timedelta(days=30)
        world.lead(lead, created)
        opened = r.random() < 0.4
        if opened:
            world.event(lead, as_of - timedelta(days=r.uniform(1, 13)), event_type="email_open",
                        channel="email")  # fmt: skip
        for _ in range(4):
            kind = r.choice(("page_view", "note"))
            at = created + timedelta(days=r.uniform(1, 29))
            world.event(lead, at, event_type=kind, direction="internal")
        rows.append((lead, as_of, created, "30d", float(opened), r.random()))
    world.load(url)
    extract_sources(url, root / "extracts", clock="data")
    frame = pd.DataFrame(rows, columns=["entity_id", "as_of", "created_at", "moment", "label", "x"])
    for name in ("as_of", "created_at"):
        frame[name] = frame[name].astype("datetime64[us, UTC]")
    return frame


def save_planted(settings: Settings) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The world, and a training set of `conversion` saved from it; returns its rows and span."""
    frame = planted_world(settings.require_postgres(), settings.root)
    start: datetime = frame["created_at"].min()
    span = {"data_start": start, "data_end": NOW}
    made = assemble(SPECS["conversion"], frame, [Column("x", "double")], **span)
    save_training_set(made, settings.training_sets)
    return frame, span
