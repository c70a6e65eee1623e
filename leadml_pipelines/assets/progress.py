"""What a long step shows of itself while it runs: log lines and observations in Dagster."""

from __future__ import annotations

import time
from collections.abc import Callable

import dagster as dg

QUIET_SECONDS = 5.0
"""Least seconds between two log lines about the same step."""
OBSERVED_SECONDS = 15.0
"""Least seconds between two observations: they stay in the asset's history."""


def live_progress(context: dg.AssetExecutionContext) -> Callable[[int, int, str], None]:
    """A function to call often with steps done, steps in all, and what is under way.

    It writes a log line when something new begins or some seconds have passed, and now and then an
    observation, which the asset's page shows while the run goes on.
    """
    said = ("", 0.0)
    observed = 0.0

    def tell(done: int, total: int, text: str) -> None:
        nonlocal said, observed
        now = time.monotonic()
        if text == said[0] and now - said[1] < QUIET_SECONDS:
            return
        said = (text, now)
        context.log.info("%d/%d %s", done, total, text)
        if now - observed >= OBSERVED_SECONDS:
            observed = now
            context.log_event(
                dg.AssetObservation(
                    asset_key=context.asset_key,
                    metadata={"step": text, "done": done, "of": total},
                )
            )

    return tell
