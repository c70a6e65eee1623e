"""The night's deletion of old models' files, so that the artifact store does not grow for ever."""

import dagster as dg

from leadml_pipelines.assets.metadata import markdown_table
from leadml_pipelines.resources.connections import PostgresResource, SettingsResource, registry


@dg.op(description="Deletes the files of models that neither answer nor answered lately.")
def delete_old_models(
    context: dg.OpExecutionContext, postgres: PostgresResource, settings: SettingsResource
) -> None:
    """Delete by the retention of the settings; what could not be deleted fails the run.

    The next night tries that again.
    """
    from leadml_pipelines.learning.registry.retention import Retention

    found = registry(postgres, settings).prune(Retention.of(settings.load()))
    context.log.info(
        "%d deleted, %d bytes freed, %d models keep their files",
        len(found.deleted),
        found.freed,
        found.kept,
    )
    for folder in found.unknown:
        context.log.warning(
            "%s (%d bytes) is not registered here and stays; `leadml models prune --unknown` "
            "deletes it, if no other registry uses this store",
            folder.name,
            folder.size,
        )
    context.add_output_metadata(
        {
            "freed_bytes": found.freed,
            "kept": found.kept,
            "deleted": markdown_table(
                ["name", "what", "bytes"], [[one.name, one.kind, one.size] for one in found.deleted]
            ),
        }
    )
    if found.failed:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.failed.items())
        raise dg.Failure(f"{len(found.failed)} could not be deleted: {reasons}")


@dg.job(
    description="Delete the files of old models; LEADML_MODEL_RETENTION_DAYS says how old.",
    executor_def=dg.in_process_executor,
    tags={"leadml/exclusive": "model_retention"},
)
def model_retention() -> None:
    """Delete the files of old models."""
    delete_old_models()


every_night_retention = dg.ScheduleDefinition(
    name="every_night_retention",
    job=model_retention,
    # After the training, which may have promoted.
    cron_schedule="0 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
