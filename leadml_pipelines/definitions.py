"""What Dagster loads: assets, automation, resources, and nothing else."""

from __future__ import annotations

import dagster as dg

from leadml_pipelines.assets import (
    audit,
    catalogue,
    features,
    graph,
    history,
    models,
    monitoring,
    online,
    sources,
)
from leadml_pipelines.automation.jobs import JOBS
from leadml_pipelines.automation.model_retention import model_retention
from leadml_pipelines.automation.retraining import drift_retraining_sensor
from leadml_pipelines.automation.schedules import SCHEDULES
from leadml_pipelines.automation.sensors import SENSORS
from leadml_pipelines.resources.connections import connections

ASSETS = dg.load_assets_from_modules(
    [sources, graph, features, catalogue, history, models, online, monitoring]
)

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[audit.no_skew],
    jobs=[*JOBS, model_retention],
    schedules=SCHEDULES,
    sensors=[*SENSORS, drift_retraining_sensor],
    resources=connections(),
    executor=dg.in_process_executor,
)
