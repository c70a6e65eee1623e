"""The catalogue on a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.definition import Definition
from leadml_pipelines.features.entries import Entry
from leadml_pipelines.features.lineage import LONGEST_EXPRESSION, Lineage, SourceColumn
from leadml_pipelines.times import duration_text

WIDE = 110
"""Columns of a terminal from which on descriptions have room beside the rest."""


def print_entries(console: Console, entries: Sequence[Entry], catalogue: Catalogue) -> None:
    """A table per view, and how many features there are."""
    wide = console.width >= WIDE
    for name, group in groupby(entries, key=lambda one: one.view):
        view = catalogue.view(name)
        console.print(
            f"[bold]{view.name}[/] ({view.entity}, {view.owner}, fresh within "
            f"{duration_text(view.freshness)}): {escape(view.description)}",
            highlight=False,
        )
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("feature", no_wrap=True)
        table.add_column("type", no_wrap=True)
        table.add_column("unit", overflow="fold")
        table.add_column("range", overflow="fold")
        table.add_column("dimension", no_wrap=True)
        if wide:
            table.add_column("meaning", ratio=1)
        for one in group:
            cells = [one.name, one.type, one.unit, one.range, one.dimension]
            table.add_row(*map(escape, [*cells, one.description] if wide else cells))
        console.print(table)
    views = len({one.view for one in entries})
    console.print(
        f"{_count(len(entries), 'feature')} in {_count(views, 'view')}; "
        "leadml features show NAME tells all of one",
        highlight=False,
    )


def print_entry(
    console: Console, entry: Entry, lineage: Lineage, definition: Definition, sql: str
) -> None:
    """All about one feature, and where it is written down."""
    console.print(f"[bold]{entry.name}[/]: {escape(entry.description)}", highlight=False)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in (
        ("entity type", entry.entity),
        ("view", entry.view),
        ("type", f"{entry.type}, {entry.unit}" if entry.unit else entry.type),
        ("range", entry.range or "any"),
        ("default", "missing" if entry.default is None else str(entry.default)),
        ("dimension", entry.dimension),
        ("owner", entry.owner),
        ("fresh within", duration_text(entry.freshness)),
        ("lives for", "ever" if entry.ttl is None else duration_text(entry.ttl)),
        ("made of", "\n".join(_by_table(lineage.values))),
        ("rows chosen by", "\n".join(_by_table(lineage.conditions))),
        ("built on", ", ".join(lineage.features) or "no other feature"),
        ("defined in", definition.place),
    ):
        facts.add_row(name, escape(value))
    console.print(facts, highlight=False)
    console.print()
    if definition.text:
        console.print(escape(definition.text), highlight=False, soft_wrap=True)
        console.print()
    if len(sql) <= LONGEST_EXPRESSION:
        console.print(f"[dim]SQL:[/] {escape(sql)}", highlight=False, soft_wrap=True)
    else:
        console.print("[dim]SQL:[/] long; --json has it", highlight=False)


def print_found(console: Console, text: str, found: Sequence[Entry], near: Sequence[str]) -> None:
    """What a search found, or what is like it."""
    if not found:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        console.print(f"nothing has {escape(text)!r} in it{hint}", highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("feature", no_wrap=True)
    table.add_column("view", no_wrap=True)
    table.add_column("meaning", ratio=1)
    for one in found:
        table.add_row(one.name, one.view, escape(one.description))
    console.print(table)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by_table(columns: Sequence[SourceColumn]) -> list[str]:
    """A line per table, as in `lead_events: event_type, occurred_at`."""
    grouped = groupby(columns, key=lambda column: column.table)
    return [f"{table}: {', '.join(c.column for c in group)}" for table, group in grouped]
