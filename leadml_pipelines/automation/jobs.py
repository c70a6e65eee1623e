"""Jobs, named by purpose. Their steps run in one process: they are short, or one is long."""

import dagster as dg

from leadml_pipelines.assets.models import TUNER_TAG
from leadml_pipelines.assets.online import online_assets

# These five read or replace the newest extract: one at a time, the others wait in the queue.
ONE_AT_A_TIME = {"leadml/exclusive": "extract"}
LONGEST = "dagster/max_runtime"
"""Tag of a run: the seconds after which Dagster's daemon ends it."""

nightly_features = dg.define_asset_job(
    "nightly_features",
    selection=dg.AssetSelection.groups("sources", "graph", "features"),
    description="Extract, graph, all views, and the check that lets a snapshot be published.",
    executor_def=dg.in_process_executor,
    tags=ONE_AT_A_TIME,
)

nightly_training = dg.define_asset_job(
    "nightly_training",
    selection=dg.AssetSelection.groups("training", "models"),
    description="Training sets, candidates, and the promotion of those that pass their gate.",
    executor_def=dg.in_process_executor,
    # The night has time: a search with a budget instead of the grid.
    tags={**ONE_AT_A_TIME, TUNER_TAG: "optuna"},
)

publish_features = dg.define_asset_job(
    "publish_features",
    selection=dg.AssetSelection.assets(*online_assets),
    description="Push the newest checked snapshot of each entity type to Redis.",
    executor_def=dg.in_process_executor,
    tags={"leadml/exclusive": "publish_features"},
)

publish_models = dg.define_asset_job(
    "publish_models",
    selection=dg.AssetSelection.assets("online_models"),
    description="Push the champions' pointers to Redis.",
    executor_def=dg.in_process_executor,
    tags={"leadml/exclusive": "publish_models"},
)

backfill_features = dg.define_asset_job(
    "backfill_features",
    selection=dg.AssetSelection.groups("history"),
    description="The history of past days: every view as of the end of each day chosen.",
    executor_def=dg.in_process_executor,
    tags=ONE_AT_A_TIME,
)

everything = dg.define_asset_job(
    "everything",
    # Past days have partitions, which one run of the present can't choose; and what is watched is
    # what was served since.
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups("history", "monitoring"),
    description="The whole asset graph, from the source tables to Redis, in one run.",
    executor_def=dg.in_process_executor,
    tags=ONE_AT_A_TIME,
)

daily_monitoring = dg.define_asset_job(
    "daily_monitoring",
    selection=dg.AssetSelection.groups("monitoring"),
    description="Drift of every model, live performance, and the alerts that follow.",
    executor_def=dg.in_process_executor,
    # Bulk reading has no limit of its own: a server that freezes under it would hold the extract.
    tags={**ONE_AT_A_TIME, LONGEST: "7200"},
)

watch_alerts = dg.define_asset_job(
    "watch_alerts",
    selection=dg.AssetSelection.assets("alerts"),
    description="The alert rules alone, by what the log and the last daily run tell.",
    executor_def=dg.in_process_executor,
    tags={"leadml/exclusive": "watch_alerts", LONGEST: "1800"},
)

JOBS = [
    backfill_features,
    daily_monitoring,
    everything,
    nightly_features,
    nightly_training,
    publish_features,
    publish_models,
    watch_alerts,
]
