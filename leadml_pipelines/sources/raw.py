"""Raw rows as JSON: what the quarantine keeps, and the digest by which it knows a row again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from leadml_pipelines.sources.contract import Type, table
from leadml_pipelines.sources.parsing import dump_object

if TYPE_CHECKING:
    import pandas as pd


def raw_rows(name: str, frame: pd.DataFrame, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The rows of table `name` at these positions as JSON values that a replay reads the same.

    Times become ISO 8601 text (with their offset if they have one), decimals become text, missing
    values become null. A value that JSON or the database can't hold becomes
    `[{"not_json": <its Python representation>}]`, which no replay takes for the value itself.
    """
    contract = table(name)
    chosen = frame.iloc[list(positions)]
    columns = [str(column) for column in chosen.columns]
    types = [contract.column(column).type for column in columns]
    cells = (chosen[column].astype(object) for column in chosen.columns)
    for values in zip(*cells, strict=True):
        yield {
            column: _plain(value, kind)
            for column, kind, value in zip(columns, types, values, strict=True)
        }


def digest(name: str, row: dict[str, Any]) -> str:
    """SHA-256 over the table and the content of a raw row; a missing column counts as null."""
    content = {column: value for column, value in row.items() if value is not None}
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(name.encode() + b"\x00" + text).hexdigest()


def _plain(value: Any, kind: Type) -> Any:
    import numpy as np
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and "\x00" not in value and _is_unicode(value):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, date) and kind == "timestamp":
        return value.isoformat()
    if isinstance(value, Decimal) and kind == "numeric":
        return str(value)
    if isinstance(value, dict) and kind == "json" and (stored := _stored(value)) is not None:
        return stored
    return [{"not_json": ascii(value)}]


def _stored(value: dict[Any, Any]) -> Any:
    """The object as the database would give it back, or None where it can't hold it."""
    try:
        text = dump_object(value)
    except TypeError:
        return None
    return None if "\\u0000" in text else orjson.loads(text)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
