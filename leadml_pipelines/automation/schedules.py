"""The night, all UTC: features at two, training at three, the day that ended at half past four.

At five the files of old models are deleted, at half past five it is asked whether the models still
fit; the alert rules are judged every hour.
"""

from datetime import timedelta

import dagster as dg

from leadml_pipelines.automation.jobs import (
    backfill_features,
    daily_monitoring,
    nightly_features,
    nightly_training,
    watch_alerts,
)
from leadml_pipelines.automation.model_retention import every_night_retention
from leadml_pipelines.resources.connections import SettingsResource


@dg.schedule(
    job=backfill_features,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The history of the day that ended at midnight.",
)
def every_day_history(
    context: dg.ScheduleEvaluationContext, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
    """Write yesterday's history, once the nightly extract knows the whole day."""
    if settings.load().clock == "data":
        return dg.SkipReason("the data are of the past (LEADML_CLOCK=data): no day ends in them")
    yesterday = f"{context.scheduled_execution_time - timedelta(days=1):%Y-%m-%d}"
    return dg.RunRequest(run_key=yesterday, partition_key=yesterday)


SCHEDULES = [
    every_day_history,
    every_night_retention,
    *(
        dg.ScheduleDefinition(
            name=name,
            job=job,
            cron_schedule=cron_schedule,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for name, job, cron_schedule in (
            ("every_night_features", nightly_features, "0 2 * * *"),
            ("every_night_training", nightly_training, "0 3 * * *"),
            ("every_day_monitoring", daily_monitoring, "30 5 * * *"),
            ("every_hour_alerts", watch_alerts, "15 * * * *"),
        )
    ),
]
