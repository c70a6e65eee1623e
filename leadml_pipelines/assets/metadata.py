"""Metadata that Dagster can store: plain Python numbers, its reserved keys, small tables."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn NumPy scalars, times and nested mappings into what Dagster's event log accepts.

    A NumPy float passes Dagster's type check and then fails when the event is stored; hence
    everything with an `item()` is unwrapped here, in one place.
    """
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if type(value).__module__ == "numpy":
        return value.item()
    return value


def rows(count: int, **more: Any) -> dict[str, Any]:
    """Metadata of a table: its row count under Dagster's reserved key, and whatever else."""
    return plain({"dagster/row_count": count, **more})


def markdown_table(
    header: Sequence[str], body: Sequence[Sequence[Any]]
) -> dg.MarkdownMetadataValue:
    """A small table for the asset's page."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in body]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
