"""A champion with its training set, and snapshots of leads, without computing any feature."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.snapshots.checks import snapshot_id
from leadml_pipelines.features.snapshots.writing import write_snapshot
from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry
from leadml_pipelines.learning.spine import CALENDAR
from leadml_pipelines.learning.training.train import train
from leadml_pipelines.learning.training_set import (
    assemble,
    load_training_set,
    save_training_set,
)
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.frames import spec_for

START = datetime(2025, 1, 1, tzinfo=UTC)
TODAY = datetime(2026, 3, 1, 2, tzinfo=UTC)
VIEWS = catalogue().views("lead")
FEATURES = [feature for view in VIEWS for feature in view.features]
LEARNED = (
    Column("quality_score", "double"),
    Column("inbound_count_30d", "integer"),
    Column("is_open", "boolean"),
    Column("state", "category"),
    Column("lead_age_days", "double"),
)
Alter = Callable[[pd.DataFrame], None]


def leads(rows: int, seed: int) -> pd.DataFrame:
    """Values of the features that the model learns from."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "quality_score": rng.uniform(0, 100, rows),
            "inbound_count_30d": pd.Series(1 + rng.poisson(3, rows)).astype("Int64"),
            "is_open": pd.Series([True] * rows).astype("boolean"),
            "state": rng.choice(["CA", "NY", "TX"], rows),
            "lead_age_days": rng.gamma(2, 30, rows),
        }
    )


def add_champion(registry: Registry, training_sets: Path, rows: int = 2_000) -> ModelRecord:
    """Train a small model named churn on such leads, and promote it."""
    rng = np.random.default_rng(5)
    frame = leads(rows, 1)
    chance = 1 / (1 + np.exp(-(frame["quality_score"] - 50) / 15))
    as_of = (pd.Timestamp(START) + pd.to_timedelta(np.linspace(0, 300, rows), unit="D")).round("us")
    times = pd.Series(as_of).astype("datetime64[us, UTC]")
    frame = frame.assign(
        entity_id=[f"lead_{n}" for n in range(rows)],
        as_of=times,
        created_at=times - pd.Timedelta(1, "D"),
        moment=CALENDAR,
        label=(rng.random(rows) < chance).astype(float),
    )
    # So few rounds leave the chances near the base rate; that is not what is tested with it.
    spec = spec_for(name="churn", rounds=20, ages=(), max_calibration_error=0.5)
    end = START + timedelta(days=330)
    made = assemble(spec, frame, LEARNED, data_start=START, data_end=end, origin="test")
    saved = save_training_set(made, training_sets)
    trained = train(spec, load_training_set(saved.path), seed=7, threads=1)
    return registry.promote(registry.register(trained).model_id, by="test")


def add_snapshot(
    url: str, *, rows: int = 500, seed: int = 2, as_of: datetime = TODAY, alter: Alter | None = None
) -> None:
    """Write a checked snapshot of such leads; every other feature is missing."""
    known = leads(rows, seed)
    if alter is not None:
        alter(known)
    empty = {"double": "Float64", "integer": "Int64", "boolean": "boolean", "category": "object"}
    columns = {
        feature.name: known[feature.name]
        if feature.name in known
        else pd.Series([pd.NA] * rows, dtype=empty[feature.type])
        for feature in FEATURES
    }
    columns["entity_id"] = pd.Series([f"now_{n}" for n in range(rows)])
    columns["as_of"] = pd.Series([as_of] * rows, dtype="datetime64[us, UTC]")
    write_snapshot(url, VIEWS, pd.DataFrame(columns), as_of)
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.feature_snapshots (snapshot_id, entity, as_of, rows, checked_at)"
            " VALUES (%s, 'lead', %s, %s, now())",
            (snapshot_id("lead", as_of), as_of, rows),
        )
