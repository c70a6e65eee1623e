"""A sensor that asks for a retraining when drift over its limit was recorded."""

from datetime import timedelta

import dagster as dg

# As in sensors.py: before Dagster evaluates sensors in threads.
import psycopg  # noqa: F401

from leadml_pipelines.automation.jobs import everything, nightly_training
from leadml_pipelines.automation.sensors import UNDER_WAY
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource, registry
from leadml_pipelines.times import utc_now

REASON = "leadml/reason"
"""Tag of a run that tells why it was asked for."""
_LONGEST_REASON = 200


@dg.sensor(
    job=nightly_training,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a retraining of the models that have drifted since the last one.",
)
def drift_retraining_sensor(
    context: dg.SensorEvaluationContext, postgres: PostgresResource, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a training of the drifted models, unless one has begun since or is under way."""
    from leadml_pipelines.monitoring.alerts import unexpected
    from leadml_pipelines.monitoring.records import newest_drift
    from leadml_pipelines.monitoring.watch import FRESH, expected_drift

    config = settings.load()
    now = utc_now()
    models = registry(postgres, settings)
    expected = expected_drift(config)
    drifted = {}
    for name in SPECS:
        champion = models.champion(name)
        # Only what the next training would learn from: by a selection that callers make, or a fault
        # in serving, another training mends nothing.
        found = champion and newest_drift(
            postgres.url, name, champion.model_id, "snapshot", now - FRESH
        )
        if found and unexpected(found, expected):
            drifted[name] = found
    if not drifted:
        return dg.SkipReason("no champion has drifted over its limit")
    began = 0.0
    for job in (nightly_training.name, everything.name):
        for record in context.instance.get_run_records(dg.RunsFilter(job_name=job), limit=1):
            if record.dagster_run.status in UNDER_WAY:
                return dg.SkipReason(f"run {record.dagster_run.run_id} is training")
            began = max(began, record.start_time or record.create_timestamp.timestamp())
    pause = timedelta(hours=config.retraining_cooldown_hours).total_seconds()
    if now.timestamp() - began < pause:
        return dg.SkipReason(
            f"a training began less than {config.retraining_cooldown_hours:g} hours ago"
        )
    pending = {n: f for n, f in drifted.items() if f.recorded_at.timestamp() > began}
    if not pending:
        return dg.SkipReason("a training has begun since drift was recorded")
    reason = "; ".join(
        f"drift of {name}: {', '.join(unexpected(found, expected))}"
        for name, found in pending.items()
    )
    newest = max(found.recorded_at for found in pending.values())
    return dg.RunRequest(
        run_key=f"drift {newest.isoformat()}",
        asset_selection=[
            dg.AssetKey(f"{name}_{part}")
            for name in pending
            for part in ("training_set", "model", "champion")
        ],
        tags={
            REASON: reason
            if len(reason) <= _LONGEST_REASON
            else reason[: _LONGEST_REASON - 3] + "..."
        },
    )
