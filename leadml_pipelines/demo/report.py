"""The summary of a demonstration as tables for a person."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from leadml_pipelines.demo.run import Summary


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


def _model(model: dict[str, object]) -> Table:
    metrics = model["metrics"]
    baseline = model["baseline"]
    assert isinstance(metrics, dict)  # noqa: S101 - narrows the type only
    assert isinstance(baseline, dict)  # noqa: S101 - narrows the type only
    table = Table()
    table.add_column("metric")
    table.add_column("model", justify="right")
    table.add_column("heuristic it replaces", justify="right")
    for metric, value in metrics.items():
        if isinstance(value, int | float):
            table.add_row(metric, _number(value), _number(baseline.get(metric)))
    for age, at_age in metrics.get("by_age", {}).items():
        for metric in ("roc_auc", "spearman"):
            if metric in at_age:
                heuristic = baseline.get("by_age", {}).get(age, {})
                table.add_row(
                    f"{metric} {age} after creation",
                    _number(at_age[metric]),
                    _number(heuristic.get(metric)),
                )
    return table


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


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
