"""An audit's report for a person and for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.audit import AuditReport

if TYPE_CHECKING:
    from rich.console import Console


def print_report(report: AuditReport, console: Console, shown: int) -> None:
    """Print the outcome, and the first mismatches as a table.

    Args:
        report: What was found.
        console: Where to.
        shown: How many mismatches to show.
    """
    from rich.markup import escape
    from rich.table import Table

    if report.mismatches:
        table = Table("entity", "feature", "served", "offline", "as of (UTC)", "served at (UTC)")
        for row in report.mismatches[:shown]:
            table.add_row(
                escape(f"{row.entity_type} {row.entity_id}"),
                row.feature,
                escape(repr(row.served)),
                escape(repr(row.offline)),
                f"{row.as_of:%Y-%m-%d %H:%M:%S.%f}",
                f"{row.served_at:%Y-%m-%d %H:%M:%S}",
            )
        console.print(table)
        if len(report.mismatches) > shown:
            console.print(f"... and {len(report.mismatches) - shown:,} more")
    console.print(report.sentence(), highlight=False, soft_wrap=True)


def write_report(report: AuditReport, path: Path) -> None:
    """Write a report as JSON; times are ISO 8601, a missing value is null."""
    content = asdict(report) | {"share": report.share}
    path.write_text(json.dumps(content, default=_json, indent=2) + "\n", encoding="utf-8")


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a report holds a {type(value).__name__}, which JSON has no form for")
