"""`leadml alerts`: what fires now."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal


def alerts(
    home: Home = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """What fires now, since when, and what to do; judged every hour by Dagster."""
    from rich.markup import escape

    from leadml_pipelines.monitoring.alert_state import firing_alerts, last_judged

    with postgres(home) as url:
        firing, judged = firing_alerts(url), last_judged(url)
    if as_json:
        documents = [alert.document() for alert in firing]
        sys.stdout.write(json.dumps(documents, indent=2, ensure_ascii=False) + "\n")
        return
    console = terminal()
    if judged is None:
        console.print(
            "no rule was judged yet; the jobs watch_alerts and daily_monitoring judge them",
            soft_wrap=True,
        )
        return
    console.print(
        f"{'' if firing else 'no alert fires; '}the rules were judged last at "
        f"{judged:%Y-%m-%d %H:%M} UTC",
        highlight=False,
        soft_wrap=True,
    )
    for alert in firing:
        colour = "red" if alert.severity == "critical" else "yellow"
        console.print(
            f"[{colour}]{alert.severity}[/] {alert.rule}, since {alert.since:%Y-%m-%d %H:%M} UTC",
            highlight=False,
        )
        console.print(f"  {escape(alert.words)}", highlight=False, soft_wrap=True)
        console.print(f"  do: {escape(alert.what_to_do)}", highlight=False, soft_wrap=True)
