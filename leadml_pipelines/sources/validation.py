"""The checks at the door, apart from the database: types first, then pandera schemas.

The same function judges rows that are handed in and rows that a view of the customer's yields.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING, Any

from leadml_pipelines.sources.contract import (
    EARLIEST,
    FUTURE_TOLERANCE,
    TABLES,
    Column,
    Span,
    Table,
    table,
)
from leadml_pipelines.sources.faults import (
    END_BEFORE_START,
    IMPOSSIBLE_TIME,
    MISSING_KEY,
    MISSING_VALUE,
    UNKNOWN_DIRECTION,
    WRONG_TYPE,
    Faults,
)
from leadml_pipelines.sources.parsing import parse_column, shown
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Checked:
    """A batch after the checks.

    Attributes:
        table: Name of the source table.
        raw: The rows as handed in, index 0..n-1.
        good: The rows without a fault, in the contract's columns and types; the index is the
            position in `raw`.
        faults: Of the other rows.
    """

    table: str
    raw: pd.DataFrame
    good: pd.DataFrame
    faults: Faults


def validate(name: str, rows: pd.DataFrame | pa.Table) -> Checked:
    """Check rows of a source table; every row ends either in `good` or in `faults`.

    Args:
        name: The table.
        rows: In the contract's columns, in any order; an optional column may be left out.

    Raises:
        KeyError: there is no such table.
        ValueError: a column is not in the contract.
    """
    import pandas as pd

    contract = table(name)
    frame = rows if isinstance(rows, pd.DataFrame) else rows.to_pandas()
    unknown = [str(column) for column in frame.columns if column not in contract.names]
    if unknown:
        raise ValueError(
            f"{name} has no column {', '.join(unknown)}; its columns are "
            f"{', '.join(contract.names)}"
        )
    frame = frame.reset_index(drop=True)
    faults = Faults()
    typed = pd.DataFrame(index=frame.index)
    for column in contract.columns:
        if column.name in frame.columns:
            raw = frame[column.name]
        else:
            raw = pd.Series([None] * len(frame), dtype=object)
        typed[column.name] = parse_column(column, raw, faults)
    # A default never hides what could not be read: such a row has its fault by now.
    for column in contract.columns:
        if column.default:
            typed[column.name] = typed[column.name].fillna(typed[column.default])
    readable = typed.drop(index=list(faults.by_row)) if len(faults) else typed
    _judge(contract, readable, faults)
    good = typed.drop(index=list(faults.by_row)) if len(faults) else typed
    return Checked(name, frame, good, faults)


def _judge(contract: Table, typed: pd.DataFrame, faults: Faults) -> None:
    import pandera.pandas as pa

    try:
        schema(contract.name).validate(typed, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        known = (cases["check"] == "not_nullable") | cases["check"].str.contains("|", regex=False)
        if not known.all() or cases["index"].isna().any():
            raise  # not about a row: the columns handed to the schema are wrong
        # A check of two columns names each row twice.
        for (check, column), group in cases.groupby(["check", "column"], sort=False):
            positions = group["index"].astype(int)
            if check == "not_nullable":
                reason = MISSING_KEY if column in contract.key else MISSING_VALUE
                faults.add_all(positions, reason, f"{column} is empty")
            else:
                _add_all(str(check), str(column), typed.loc[positions], faults)


def _add_all(check: str, column: str, rows: pd.DataFrame, faults: Faults) -> None:
    reason, _, template = check.partition("|")
    fields = [name for _, name, _, _ in Formatter().parse(template) if name]
    if column != fields[0]:
        return
    for position, values in zip(
        rows.index, rows[fields].itertuples(index=False, name=None), strict=True
    ):
        shown_values = dict(zip(fields, map(_said, values), strict=True))
        faults.add(int(position), reason, template.format(**shown_values))


def _said(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else shown(value)


@lru_cache(maxsize=len(TABLES))
def schema(name: str) -> Any:
    """The pandera `DataFrameSchema` of a source table, over typed columns.

    The message of a check is `reason|sentence`, where `{column}` stands for the row's value.
    """
    import pandera.pandas as pa

    contract = table(name)
    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                _pandas_type(column), _checks(column), nullable=not column.required
            )
            for column in contract.columns
        },
        checks=[_order(span) for span in contract.spans],
        strict=True,
        name=name,
    )


def _pandas_type(column: Column) -> Any:
    import pandas as pd
    import pyarrow as pa

    from leadml_pipelines.sources.contract import PRECISION
    from leadml_pipelines.sources.parsing import UTC_TYPE

    types = {"text": "str", "json": "str", "timestamp": UTC_TYPE, "integer": "Int64"}
    if column.type == "numeric":
        return pd.ArrowDtype(pa.decimal128(PRECISION, column.scale))
    return types[column.type]


def _checks(column: Column) -> list[Any]:
    import pandera.pandas as pa

    checks = []
    if column.type == "timestamp":
        checks = [
            pa.Check(
                lambda times: times >= EARLIEST,
                error=f"{IMPOSSIBLE_TIME}|{column.name} is {{{column.name}}}, before "
                f"{EARLIEST:%Y-%m-%d}",
            ),
            pa.Check(
                lambda times: times <= utc_now() + FUTURE_TOLERANCE,
                error=f"{IMPOSSIBLE_TIME}|{column.name} is {{{column.name}}}, in the future",
            ),
        ]
    if column.choices:
        reason = UNKNOWN_DIRECTION if column.name == "direction" else WRONG_TYPE
        checks.append(
            pa.Check.isin(
                list(column.choices),
                error=f"{reason}|{column.name} is {{{column.name}}}; it must be one of "
                + ", ".join(column.choices),
            )
        )
    return checks


def _order(span: Span) -> Any:
    import pandera.pandas as pa

    return pa.Check(
        lambda frame: ~(frame[span.end] < frame[span.start] - span.skew),
        error=f"{END_BEFORE_START}|{span.end} is {{{span.end}}}, before {span.start} "
        f"{{{span.start}}}",
    )
