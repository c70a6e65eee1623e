"""Registered models on a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text
from leadml_pipelines.learning.registry.aliases import Change, Held
from leadml_pipelines.learning.registry.model_documents import main_metric
from leadml_pipelines.learning.registry.model_records import ModelRecord
from leadml_pipelines.learning.registry.pruning import Pruning
from leadml_pipelines.learning.registry.retention import Retention
from leadml_pipelines.times import duration_text

_COLOURS = {
    "champion": "green",
    "challenger": "cyan",
    "rejected": "red",
    "retired": "dim",
    "pruned": "dim",
}
_OTHERS = ("heuristic", "logistic", "champion")
"""What an evaluation may have beside the model, on the same rows."""


def print_models(console: Console, records: Sequence[ModelRecord], held: Sequence[Held]) -> None:
    """A line per model, then who answers."""
    if not records:
        console.print("no model was registered yet; materialize one, as in churn_model")
        return
    table = _table()
    # An id is there to be copied: it is never cut, however narrow the terminal.
    table.add_column("model", no_wrap=True, min_width=max(len(r.model_id) for r in records))
    table.add_column("status", no_wrap=True, min_width=max(len(r.status) for r in records))
    table.add_column("trained (UTC)", min_width=10)
    table.add_column("metric", justify="right", min_width=8)
    table.add_column("promoted (UTC)", overflow="fold", min_width=10)
    for record in records:
        metric = main_metric(record)
        table.add_row(
            record.model_id,
            _status(record.status),
            _minute(record.trained_at),
            f"{METRIC_NAMES.get(metric[0], metric[0])} {metric[1]:.3f}" if metric else "",
            f"{_minute(record.promoted_at)} by {escape(record.promoted_by or '')}"
            if record.promoted_at
            else "",
        )
    console.print(table)
    for line in _answering(held):
        console.print(line, highlight=False)


_COUNTS = {
    "candidates": "candidates",
    "unknown_labels": "with a label not known yet",
    "outside_population": "outside of the population",
    "sampled_out": "over the most that are taken",
    "rows": "kept",
    "positives": "positive",
    "train_rows": "to train",
    "gap_rows": "in the gap",
    "test_rows": "to test",
}
"""The rows of a training, in the order in which they come about."""


def _rows(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]:,} {text}" for name, text in _COUNTS.items() if name in counts)


def print_model(
    console: Console, record: ModelRecord, held: Sequence[Held], changes: Sequence[Change]
) -> None:
    """All about one model."""
    console.print(f"[bold]{record.model_id}[/]: {escape(record.description)}", highlight=False)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    shares = [
        f", for {one.traffic_share:.1%} of the entities"
        for one in held
        if one.model_id == record.model_id and one.alias == "challenger"
    ]
    for name, value in (
        ("status", _status(record.status) + "".join(shares)),
        ("trained", f"{_minute(record.trained_at)} UTC, in {record.seconds:.0f} s"),
        ("promoted", _promoted(record)),
        ("objective", f"{record.objective}, {duration_text(record.horizon)} ahead"),
        ("threshold", _thresholds(record)),
        ("features", f"{len(record.features)}"),
        ("rows", _rows(record.counts)),
        ("spec", record.spec_hash[:16]),
        ("training set", record.training_set_hash[:16]),
        ("code", f"leadml {record.code_version}; {_pairs(record.package_versions)}"),
        ("files", _files(record)),
        ("manifest", record.manifest_sha256 or "not signed"),
    ):
        if value:
            facts.add_row(name, value)
    console.print(facts, highlight=False)
    console.print(_metrics(record))
    worst = record.evaluation.get("worst_slice")
    if worst:
        console.print(
            f"worst slice: {escape(str(worst['column']))} = {escape(str(worst['word']))}, "
            f"{worst['value']:.3f} ({worst['low']:.3f} to {worst['high']:.3f}) "
            f"on {worst['rows']:,} rows",
            highlight=False,
        )
    verdict = "[green]passed[/]" if record.passed_gate else "[red]rejected[/]"
    console.print(f"gate: {verdict}", highlight=False)
    for reason in record.gate_reasons:
        console.print(f"  - {escape(reason)}", highlight=False, soft_wrap=True)
    if changes:
        console.print()
        print_changes(console, changes)


_KINDS = {
    "model": "model",
    "unfinished": "left by a training that died",
    "unknown": "not registered here",
}


def print_pruning(console: Console, found: Pruning, retention: Retention) -> None:
    """What was deleted and what that freed, what stays though nobody knows it, what failed."""
    if found.deleted:
        table = _table()
        table.add_column("would be deleted" if found.dry_run else "deleted", overflow="fold")
        table.add_column("what", overflow="fold")
        table.add_column("size", justify="right", no_wrap=True)
        for one in found.deleted:
            table.add_row(escape(one.name), _KINDS[one.kind], size_text(one.size))
        console.print(table)
    for folder in found.unknown:
        _print_plain(
            console,
            f"{folder.name} ({size_text(folder.size)}) is not registered here and stays; --unknown "
            "deletes it, if no other registry uses this store",
        )
    for name, why in found.failed.items():
        _print_plain(console, f"{name}: not deleted: {why}")
    would = "would free" if found.dry_run else "freed"
    _print_plain(console, f"{would} {size_text(found.freed)}; {_kept(found.kept, retention)}")
    if found.failed:
        _print_plain(
            console,
            f"{len(found.failed)} could not be deleted: {', '.join(found.failed)}. Mend that and "
            "give the command again",
        )


def _kept(models: int, retention: Retention) -> str:
    if retention.days == 0:
        return f"{models:,} models keep their files (LEADML_MODEL_RETENTION_DAYS is 0: all do)"
    return (
        f"{models:,} models keep their files: they hold an alias, answered lately, are younger "
        f"than {retention.days} days, or are among the newest {retention.newest} of their name"
    )


def _print_plain(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def size_text(size: int) -> str:
    """Bytes as a person reads them."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} bytes"


def print_comparison(console: Console, records: Sequence[ModelRecord]) -> None:
    """Metrics of several models, a column each."""
    table = _table()
    table.add_column("metric", no_wrap=True)
    for record in records:
        table.add_column(record.model_id, justify="right", overflow="fold")
    table.add_row("status", *(_status(record.status) for record in records))
    table.add_row("trained (UTC)", *(_minute(record.trained_at) for record in records))
    table.add_row("test rows", *(f"{record.counts.get('test_rows', 0):,}" for record in records))
    for name in METRIC_NAMES:
        if any(record.metrics.get(name) is not None for record in records):
            table.add_row(METRIC_NAMES[name], *(_metric(record, name) for record in records))
    console.print(table)
    if len({record.training_set_hash for record in records}) > 1:
        console.print(
            "Each was measured on the newest rows of its own training set: these columns are not "
            "of the same rows.",
            soft_wrap=True,
        )
    for record in records:
        for other in records:
            differences = record.evaluation.get("differences", {}).get("champion")
            if record.compared_with == other.model_id and differences:
                _print_differences(console, record, other, differences)


def print_changes(console: Console, changes: Sequence[Change]) -> None:
    """A line per change of an alias."""
    if not changes:
        console.print("no alias was ever changed")
        return
    table = _table()
    for column in ("when (UTC)", "what", "now, before"):
        table.add_column(column, no_wrap=True)
    table.add_column("by", overflow="fold")
    table.add_column("why", overflow="fold")
    for change in changes:
        if change.alias == "previous":
            continue  # it follows from the champion's change
        share = "" if change.traffic_share is None else f" {change.traffic_share:.1%}"
        table.add_row(
            f"{change.changed_at:%Y-%m-%d %H:%M:%S}",
            f"{change.kind}{share}{' (forced)' if change.forced else ''}",
            f"{change.model_id or 'nobody'}\n[dim]{change.replaced or 'nobody'}[/]",
            escape(change.changed_by),
            escape(change.reason or ""),
        )
    console.print(table)


def _metrics(record: ModelRecord) -> Table:
    """The model's metrics with intervals, beside the others' on the same rows."""
    evaluation = record.evaluation
    others = {name: evaluation[name] for name in _OTHERS if evaluation.get(name)}
    table = _table()
    table.add_column("on the newest rows", overflow="fold")
    for name in (record.name, *others):
        table.add_column(name, justify="right", no_wrap=True)
    for name in _shown(record.metrics):
        cells = [_value(name, other.get(name)) for other in others.values()]
        table.add_row(METRIC_NAMES[name], _metric(record, name), *cells)
    return table


def _print_differences(
    console: Console, record: ModelRecord, other: ModelRecord, found: Mapping[str, Any]
) -> None:
    table = _table()
    table.title = f"{record.model_id} minus {other.model_id}, on the same rows"
    table.add_column("metric", no_wrap=True)
    table.add_column("difference, 95 %", no_wrap=True, justify="right")
    for name in _shown(found):
        table.add_row(METRIC_NAMES[name], _value(name, found[name]))
    console.print(table)


def _shown(figures: Mapping[str, Any]) -> list[str]:
    """The metrics that are there, in the order in which they are shown."""
    return [name for name in METRIC_NAMES if figures.get(name) is not None]


def _metric(record: ModelRecord, name: str) -> str:
    measured = record.evaluation.get("model", {}).get(name)
    return _value(name, measured or {"value": record.metrics.get(name)})


def _value(metric: str, found: Mapping[str, Any] | None) -> str:
    """A figure, and under it its interval where there is one."""
    if not found or found.get("value") is None:
        return ""
    text = metric_text(metric, found["value"])
    if found.get("low") is None:
        return text
    return f"{text}\n[dim]{range_text(metric, found['low'], found['high'])}[/]"


def _answering(held: Sequence[Held]) -> list[str]:
    names = dict.fromkeys(one.name for one in held)
    lines = []
    for name in names:
        mine = {one.alias: one for one in held if one.name == name}
        parts = [mine["champion"].model_id] if "champion" in mine else ["no champion"]
        if "challenger" in mine:
            challenger = mine["challenger"]
            parts.append(f"{challenger.model_id} for {challenger.traffic_share:.1%}")
        lines.append(f"{name} answers by {', and '.join(parts)}")
    return lines


def _thresholds(record: ModelRecord) -> str:
    """That of all who are in no group, then those of the groups."""
    if record.threshold is None:
        return ""
    groups = (record.validation.get("threshold") or {}).get("groups") or {}
    others = (f"{word} {found['value']:.4g}" for word, found in groups.items())
    return "; ".join([f"{record.threshold:.4g}", *others])


def _promoted(record: ModelRecord) -> str:
    if record.promoted_at is None:
        return "never"
    return f"{_minute(record.promoted_at)} UTC by {escape(record.promoted_by or '')}"


def _files(record: ModelRecord) -> str:
    if record.pruned_at is None:
        return escape(record.artifact_uri)
    if record.freed_bytes is None:
        return f"being deleted since {_minute(record.pruned_at)} UTC: {escape(record.artifact_uri)}"
    return f"deleted {_minute(record.pruned_at)} UTC, {size_text(record.freed_bytes)}"


def _status(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/]" if colour else status


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{escape(name)} {value:,}" if isinstance(value, int) else f"{escape(name)} {value}"
        for name, value in values.items()
    )


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
