"""The summary of a demonstration as tables for a person."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from leadml_pipelines.demo.run import Summary
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text


def print_summary(summary: Summary, console: Console) -> None:
    """Print rows, features, models beside what they replace, keys published, latencies, times."""
    console.print(_counts("Rows", "table", summary.rows))
    console.print(_counts("Features of a lead", "view", summary.features))
    for name, model in summary.models.items():
        console.print(
            f"[italic]{name}: {model['model_id']}, trained in {model['seconds']:.1f} s; "
            "on the newest data",
            highlight=False,
        )
        console.print(_model(model))
    console.print(_counts("Published to Redis", "what", summary.published))
    console.print(_latencies(summary.latency_ms))
    console.print(
        f"{summary.audit['audited']:,} served vectors audited, "
        f"{summary.audit['mismatches']:,} mismatches\n",
        highlight=False,
    )
    console.print(_seconds(summary.seconds))


def _counts(title: str, what: str, counts: dict[str, int]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(what)
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table


def _model(model: dict[str, Any]) -> Table:
    measured = model["figures"]
    table = Table()
    table.add_column("metric")
    for who in ("model (95 % interval)", "heuristic", "linear"):
        table.add_column(who, justify="right", no_wrap=True)
    for metric, name in METRIC_NAMES.items():
        found = measured["model"].get(metric)
        if found:
            interval = range_text(metric, found["low"], found["high"])
            others = [measured[who].get(metric) for who in ("heuristic", "logistic")]
            table.add_row(
                name,
                f"{metric_text(metric, found['value'])} ({interval})",
                *("" if other is None else metric_text(metric, other["value"]) for other in others),
            )
    heuristics = model["baseline"].get("by_age", {})
    for age, ours in model["metrics"].get("by_age", {}).items():
        theirs = heuristics.get(age, {})
        for metric in ("roc_auc", "gini"):
            if metric in ours:
                name = f"{METRIC_NAMES[metric]} {age} after creation"
                heuristic = metric_text(metric, theirs[metric]) if metric in theirs else ""
                table.add_row(name, metric_text(metric, ours[metric]), heuristic, "")
    return table


def _latencies(latency_ms: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Latency over HTTP, milliseconds", title_justify="left")
    table.add_column("request")
    for name in ("p50", "p95"):
        table.add_column(name, justify="right")
    for request, seen in latency_ms.items():
        table.add_row(request, f"{seen['p50']:.2f}", f"{seen['p95']:.2f}")
    return table


def _seconds(seconds: dict[str, float]) -> Table:
    table = Table(title="Seconds", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step, value in seconds.items():
        table.add_row(step, f"{value:.1f}")
    return table
