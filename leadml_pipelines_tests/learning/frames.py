"""Small frames and a bare engine, so that the learning room is tested without the other rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.learning.evaluation.baselines import RULE_THRESHOLD, heuristic_values
from leadml_pipelines.learning.evaluation.evaluate import evaluate
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines.learning.training_set import TrainingSet, assemble

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

FEATURES = (
    Column("quality_score", "double"),
    Column("inbound_count_30d", "integer"),
    Column("is_open", "boolean"),
    Column("source", "category"),
    Column("noise", "double"),
)

EMPTY: Mapping[str, str] = {
    "leads": "lead_id VARCHAR, created_at TIMESTAMP",
    "lead_events": "lead_id VARCHAR, direction VARCHAR, occurred_at TIMESTAMP,"
    " ingested_at TIMESTAMP",
    "policies": "policy_id VARCHAR, lead_id VARCHAR, annual_premium DECIMAL(18, 2),"
    " bound_at TIMESTAMP, cancelled_at TIMESTAMP",
    "closures": "lead_id VARCHAR, closed_at TIMESTAMP, reason VARCHAR",
}


class BareEngine:
    """DuckDB with the contract's tables; nothing of the feature engine."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        for name, columns in EMPTY.items():
            self.connection.execute(f"CREATE TABLE {name} ({columns})")

    def add(self, table: str, *rows: tuple[Any, ...]) -> None:
        for row in rows:
            values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in row]
            marks = ", ".join("?" * len(values))
            self.connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)

    def sql(self, query: str, params: Any = None, **frames: pd.DataFrame) -> pd.DataFrame:
        for name, frame in frames.items():
            self.connection.register(name, frame)
        try:
            return self.connection.execute(query, params).df()
        finally:
            for name in frames:
                self.connection.unregister(name)


def spec_for(objective: str = "classification", **changes: Any) -> ModelSpec:
    """A spec whose parts that matter to a test are given by the test."""
    classification = objective == "classification"
    base = ModelSpec(
        name="toy",
        description="A model for tests.",
        candidates="open",
        population="is_open",
        label="SELECT row_id, 0 AS label FROM moments",
        horizon=20 * DAY,
        objective="classification" if classification else "regression",
        ages=(timedelta(hours=1), DAY),
        grid=({"max_depth": 2}, {"max_depth": 4}),
        # Quick learners: a model that is stopped before it has learned is not calibrated.
        params={"learning_rate": 0.2, "reg_lambda": 1.0},
        rounds=60,
        metric="roc_auc" if classification else "spearman",
        heuristic="quality_threshold" if classification else "quality_rescaled",
    )
    return replace(base, **changes)


def rows_frame(
    leads: int = 600, *, days: int = 200, seed: int = 3, objective: str = "classification"
) -> pd.DataFrame:
    """Three moments per lead (1 h, 24 h, calendar) with a signal in three features."""
    rng = np.random.default_rng(seed)
    born = np.sort(rng.uniform(0, days * 86_400, leads))
    parts = []
    for moment, age in (("1h", 3_600.0), ("24h", 86_400.0), ("calendar", 500_000.0)):
        parts.append(pd.DataFrame({"lead": np.arange(leads), "born": born, "age": age}))
        parts[-1]["moment"] = moment
    frame = pd.concat(parts, ignore_index=True)
    n = len(frame)
    lead_quality = rng.uniform(0, 100, leads)
    quality = lead_quality[frame["lead"]]
    source = rng.choice(["web", "partner", "event"], n)
    inbound = rng.poisson(2, n)
    raw = (quality - 50) / 25 + (source == "partner") * 1.5 + 0.6 * (inbound - 2)
    chance = 1 / (1 + np.exp(-raw + 0.5))
    happened = rng.random(n) < chance
    start = pd.Timestamp(START)
    out = pd.DataFrame(
        {
            "entity_id": "lead_" + frame["lead"].astype("str"),
            "as_of": start + pd.to_timedelta((frame["born"] + frame["age"]).round(6), unit="s"),
            "created_at": start + pd.to_timedelta(frame["born"].round(6), unit="s"),
            "moment": frame["moment"].astype("str"),
            "label": happened.astype(float)
            if objective == "classification"
            else np.where(happened, rng.gamma(2, 300, n), 0.0),
            "quality_score": np.where(rng.random(n) < 0.05, np.nan, quality),
            "inbound_count_30d": pd.Series(inbound).astype("Int64"),
            "is_open": pd.Series(True, index=range(n)).astype("boolean"),
            "source": source,
            "noise": rng.normal(size=n),
        }
    )
    for name in ("as_of", "created_at"):
        out[name] = out[name].astype("datetime64[us, UTC]")
    return out.sort_values(["as_of", "entity_id"], ignore_index=True)


def toy_set(spec: ModelSpec, frame: pd.DataFrame | None = None, *, days: int = 200) -> TrainingSet:
    """A training set of such rows."""
    return assemble(
        spec,
        rows_frame(objective=spec.objective, days=days) if frame is None else frame,
        FEATURES,
        data_start=START,
        data_end=START + days * DAY,
        origin="test",
    )


def figures(trained: TrainedModel) -> dict[str, Any]:
    """What a trained model gets on its test rows."""
    model = trained.load()
    values = model.predict(model.encoder.encode(trained.test)).values
    labels = trained.test["label"].to_numpy(float)
    return evaluate(trained.spec, labels, values, trained.test["moment"], threshold=model.threshold)


def heuristic(trained: TrainedModel) -> dict[str, Any]:
    """What the rule gets on them that the model replaces."""
    spec, test = trained.spec, trained.test
    values = heuristic_values(spec, trained.train, test, seed=trained.seed)
    labels = test["label"].to_numpy(float)
    return evaluate(spec, labels, values, test["moment"], threshold=RULE_THRESHOLD)
