"""The night: features at two, training at three, both UTC."""

import dagster as dg

from leadml_pipelines.automation.jobs import nightly_features, nightly_training

SCHEDULES = [
    dg.ScheduleDefinition(
        name="every_night_features",
        job=nightly_features,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
    dg.ScheduleDefinition(
        name="every_night_training",
        job=nightly_training,
        cron_schedule="0 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
]
