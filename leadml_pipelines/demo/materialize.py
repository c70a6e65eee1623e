"""The whole asset graph in this process, with its progress told step by step."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from leadml_pipelines.errors import UserError

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

_INTERRUPTIONS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}

Steps = Callable[[int, int | None, str], None]
"""Called with steps done, steps in all, and the step that runs now."""


class MaterializationError(UserError):
    """An asset failed; the message names it and gives its error."""


def materialize_everything(progress: Steps) -> None:
    """Run the job `everything` against the instance of `DAGSTER_HOME`.

    The run is stored like any other: `leadml up` shows it afterwards.

    Raises:
        MaterializationError: a step failed.
    """
    import dagster as dg

    from leadml_pipelines.definitions import defs

    job = defs.resolve_job_def("everything")
    total = len(job.graph.nodes)
    done = 0

    def follow(entry: dg.EventLogEntry, _cursor: str) -> None:
        nonlocal done
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        if event.is_step_start:
            progress(done, total, event.step_key)
        elif event.is_step_success or event.is_step_failure or event.is_step_skipped:
            done += 1
            progress(done, total, event.step_key)

    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.get() as instance:
        instance.watch_event_logs(run_id, None, follow)
        try:
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        finally:
            instance.end_watch_event_logs(run_id, follow)
    if result.success:
        return
    errors = _root_errors(result)
    if any(error.cls_name in _INTERRUPTIONS for error in errors.values()):
        # Dagster turns Ctrl-C into the failure of a step.
        raise KeyboardInterrupt
    lines = [f"{step}: {error.message.strip()}" for step, error in errors.items()]
    raise MaterializationError("\n".join(lines) or "the run failed before its first step")


def _root_errors(result: dg.ExecuteInProcessResult) -> dict[str, SerializableErrorInfo]:
    """The innermost error of each step that failed."""
    errors = {}
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            while error.cause is not None:
                error = error.cause
            errors[event.step_key or ""] = error
    return errors
