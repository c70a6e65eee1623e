"""Pure: rows of somebody's file in, rows in the contract's columns out, as the mapping says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from leadml_pipelines.sources.contract import ATTRIBUTES, Table
from leadml_pipelines.sources.mapping import EventLoad, Files, Load, Source, When
from leadml_pipelines.sources.parsing import UTC_TYPE, dump_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd

_EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
_FARTHEST = 4e15
"""Microseconds from 1970 to a little past 2096: what lies farther is no time but another number."""
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WHOLE = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Shaped:
    """A batch in the contract's columns.

    Attributes:
        rows: Index 0..n-1.
        file_rows: The rows of the file they were made of, same index.
        outcomes: For events: what each decides (`won`, a reason to close, or None).
        skipped: Rows of the file that are none of the table's.
    """

    rows: pd.DataFrame
    file_rows: pd.DataFrame
    outcomes: list[str | None]
    skipped: int


def shape(table: Table, load: Load, files: Files, batch: pd.DataFrame) -> Shaped:
    """Make rows of `table` of a batch of a file.

    Args:
        table: The contract's table.
        load: The mapping's section for it.
        files: How the file writes times and numbers.
        batch: The columns `mapping.needed_columns` names.
    """
    import pandas as pd

    kept = batch[fits(batch, load.when)].reset_index(drop=True)
    names: list[tuple[str | None, ...]] = []
    outcomes: list[str | None] = []
    if isinstance(load, EventLoad) and load.rules:
        kept, names, outcomes = _apply_rules(load, kept)
    rows = pd.DataFrame(index=kept.index)
    for name, source in load.columns.items():
        kind = table.column(name).type
        value = evaluate(source, kept)
        if kind == "text":
            value = as_text(value)
        elif kind == "timestamp":
            value = as_times(value, files)
        elif kind in ("numeric", "integer"):
            value = _as_numbers(value, files)
        rows[name] = value
    if names:
        for place, name in enumerate(("event_type", "channel", "direction")):
            rows[name] = pd.Series([named[place] for named in names], dtype="str")
    if load.attributes:
        rows["attributes"] = _objects(kept, load.attributes, files, typed=True)
    if isinstance(load, EventLoad):
        if load.properties:
            rows["properties"] = _objects(kept, load.properties, files, typed=False)
        if load.automatic_agents and "agent_id" in rows:
            rows["agent_id"] = rows["agent_id"].mask(rows["agent_id"].isin(load.automatic_agents))
    return Shaped(rows, kept, outcomes or [None] * len(kept), len(batch) - len(kept))


def _apply_rules(
    load: EventLoad, batch: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[str | None, ...]], list[str | None]]:
    import numpy as np

    rule_of = np.full(len(batch), -1)
    for number, rule in reversed(list(enumerate(load.rules))):
        rule_of[fits(batch, rule.when)] = number
    skips = np.array([rule.skip for rule in load.rules] + [False])
    keep = ~skips[rule_of]
    # A row that no rule fits has no event type: the quarantine will say so.
    named = [rule.names() for rule in load.rules] + [(None, None, None)]
    outcome = [rule.outcome for rule in load.rules] + [None]
    chosen = rule_of[keep]
    return (
        batch[keep].reset_index(drop=True),
        [named[i] for i in chosen],
        [outcome[i] for i in chosen],
    )


def fits(batch: pd.DataFrame, when: When) -> np.ndarray:
    """Which rows fit: in every column named, one of its patterns (`*` stands for any text)."""
    import numpy as np

    mask = np.ones(len(batch), dtype=bool)
    for name, patterns in when.items():
        text = as_text(batch[name])
        codes, values = text.factorize()
        expression = re.compile("|".join(map(_expression, patterns)), re.DOTALL)
        good = np.array([expression.fullmatch(str(v)) is not None for v in values] + [False])
        mask &= good[codes]  # a missing value has code -1: the last entry
    return mask


def _expression(pattern: str) -> str:
    return "(?:" + ".*".join(re.escape(part) for part in pattern.split("*")) + ")"


def evaluate(
    source: Source,
    batch: pd.DataFrame,
    leads: Mapping[str, Mapping[str, Any]] | None = None,
    lead_ids: pd.Series | None = None,
) -> pd.Series:
    """The value of a source for each row of a batch.

    Args:
        source: From the mapping.
        batch: Rows of the file.
        leads: lead_id -> the lead's columns, for sources that ask for a value of the lead.
        lead_ids: The lead of each row, likewise.
    """
    import pandas as pd

    if source.column is not None:
        return batch[source.column]
    if source.constant is not None:
        return pd.Series([source.constant] * len(batch), index=batch.index)
    if source.template is not None:
        text = pd.Series([""] * len(batch), index=batch.index, dtype="str")
        for literal, name, _, _ in Formatter().parse(source.template):
            text = text + literal
            if name:
                text = text + as_text(batch[name])
        return text
    column, _, key = str(source.lead).partition(".")
    values = []
    for lead_id in lead_ids if lead_ids is not None else ():
        value = (leads or {})[lead_id][column]
        values.append(value.get(key) if key else value)
    return pd.Series(values, index=batch.index, dtype=object)


def as_text(values: pd.Series) -> pd.Series:
    """A column as text; whole numbers without a point, times as ISO 8601, missing stays missing."""
    import pandas as pd

    if isinstance(values.dtype, pd.StringDtype):
        return values.astype("str")
    if values.dtype == object:
        texts = [None if pd.isna(value) else _one_text(value) for value in values]
        return pd.Series(texts, index=values.index, dtype="str")
    return as_text(values.astype(object))


def _one_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def as_times(values: pd.Series, files: Files) -> pd.Series:
    """A column as times in UTC as far as it can be read; the door judges what is left as it is."""
    import pandas as pd

    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return values
    if files.time_format in _EPOCHS:
        numbers = pd.to_numeric(values, errors="coerce").astype("float64")
        micros = (numbers * _EPOCHS[files.time_format]).round()
        near = micros.where(micros.abs() < _FARTHEST)
        parsed = pd.to_datetime(near.astype("Int64"), unit="us", utc=True)
        return _or_raw(parsed.astype(UTC_TYPE), values)
    if values.dtype.kind == "M":
        return values if files.time_zone is None else _localize(values, files.time_zone)
    text = values if isinstance(values.dtype, pd.StringDtype) else as_text(values)
    if files.time_format is not None:
        parsed = pd.to_datetime(text, format=files.time_format, errors="coerce")
        if not isinstance(parsed.dtype, pd.DatetimeTZDtype):
            if files.time_zone is None:
                return text
            parsed = _localize(parsed, files.time_zone)
        return _or_raw(parsed.astype(UTC_TYPE), text)
    if files.time_zone is None:
        return text
    zoned = text.str.contains(r"\d[tT ]\d.*(?:[zZ]|[+-]\d{2}:?\d{0,2})\s*$", regex=True)
    naive = text.mask(zoned.to_numpy(dtype=bool, na_value=False))
    parsed = pd.to_datetime(naive.str.strip(), format="ISO8601", errors="coerce")
    if isinstance(parsed.dtype, pd.DatetimeTZDtype):
        return text
    return _or_raw(_localize(parsed, files.time_zone), text)


def _localize(naive: pd.Series, zone: str) -> pd.Series:
    import numpy as np
    import pandas as pd

    local = naive.dt.tz_localize(
        zone,
        # Of the two times an autumn clock shows, the later: nothing is seen before it happened.
        ambiguous=np.zeros(len(naive), dtype=bool),
        # A time a spring clock skips was written by one that had not been moved yet.
        nonexistent=pd.Timedelta(hours=1),
    )
    return local.dt.tz_convert("UTC").astype(UTC_TYPE)


def _or_raw(parsed: pd.Series, raw: pd.Series) -> pd.Series:
    unread = parsed.isna() & raw.notna()
    if not unread.any():
        return parsed
    return parsed.astype(object).mask(unread, raw.astype(object))


def _as_numbers(values: pd.Series, files: Files) -> pd.Series:
    import pandas as pd

    if files.decimal_point == "," and isinstance(values.dtype, pd.StringDtype):
        return values.str.replace(",", ".", regex=False)
    return values


def _objects(
    batch: pd.DataFrame, sources: dict[str, Source], files: Files, *, typed: bool
) -> pd.Series:
    """JSON text per row, without its missing values; each different row is written once."""
    import pandas as pd

    columns = pd.DataFrame(
        {name: evaluate(source, batch).astype(object) for name, source in sources.items()},
        index=batch.index,
    )
    group = columns.groupby(list(columns), dropna=False, sort=False).ngroup().to_numpy()
    first = ~pd.Series(group).duplicated().to_numpy()
    texts = []
    for values in columns[first].itertuples(index=False, name=None):
        content = {
            name: _attribute(name, value, files) if typed else value
            for name, value in zip(sources, values, strict=True)
            if not pd.isna(value)
        }
        texts.append(dump_object(content))
    return pd.Series([texts[number] for number in group], index=batch.index, dtype="str")


def _attribute(name: str, value: Any, files: Files) -> Any:
    """Text of a CSV as the attribute's type where it is one; else as it came, for the door."""
    known = ATTRIBUTES.get(name)
    if known is None or not isinstance(value, str):
        return value
    if known.type == "boolean":
        return _TRUTHS.get(value.strip().lower(), value)
    if known.type in ("integer", "number"):
        text = value.strip()
        if files.decimal_point == ",":
            text = text.replace(",", ".")
        if _WHOLE.fullmatch(text):
            return int(text)
        try:
            return float(text)
        except ValueError:
            return value
    return value
