"""From what a caller hands over to the types of the contract, value by value, without guessing.

Each function takes one raw column and returns it typed: what can't be read becomes missing and is
noted as a fault. Columns of one type go through whole; only mixed ones are looked at by value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import orjson

from leadml_pipelines.sources.contract import ATTRIBUTES, MAX_ID_LENGTH, PRECISION, Column
from leadml_pipelines.sources.faults import IMPOSSIBLE_TIME, NAIVE_TIME, WRONG_TYPE, Faults
from leadml_pipelines.times import NaiveTimeError, require_utc_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

UTC_TYPE: Final = "datetime64[us, UTC]"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ZONE = r"(?:[zZ]|[+-]\d{2}(?::?\d{2})?)\s*$"
_INT_MAX = 2**31 - 1


def parse_column(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    """Return `raw` (index 0..n-1) as the contract's type; note what can't be read in `faults`.

    Types out: `str`, `datetime64[us, UTC]`, Arrow decimal128, `Int64`, and JSON text as `str`.
    An empty text is a missing one. More digits after the point than the column keeps are rounded.
    """
    parsers: dict[str, Callable[[Column, pd.Series, Faults], pd.Series]] = {
        "text": _texts,
        "timestamp": _times,
        "numeric": _numbers,
        "integer": _integers,
        "json": _objects,
    }
    return parsers[column.type](column, raw, faults)


def shown(value: Any) -> str:
    """A value as it appears in a sentence: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _missing(raw: pd.Series) -> np.ndarray:
    return raw.isna().to_numpy()


def _where(mask: Any) -> list[int]:
    import numpy as np

    return [int(i) for i in np.flatnonzero(np.asarray(mask, dtype=bool))]


def _texts(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import pandas as pd

    if not isinstance(raw.dtype, pd.StringDtype):
        kept: list[str | None] = []
        for position, (value, missing) in enumerate(zip(raw, _missing(raw), strict=True)):
            problem = None
            if missing:
                kept.append(None)
                continue
            if not isinstance(value, str):
                problem = f"{column.name} is {shown(value)}, which is not text"
            elif not _is_unicode(value):
                problem = f"{column.name} holds half a character (a lone surrogate)"
            if problem:
                faults.add(position, WRONG_TYPE, problem)
            kept.append(None if problem else value)
        raw = pd.Series(kept, dtype="str")
    text = raw.astype("str")
    empty = (text == "").to_numpy(dtype=bool, na_value=False)
    if empty.any():
        text = text.mask(empty)
    bad = text.str.contains("\x00", regex=False).to_numpy(dtype=bool, na_value=False)
    faults.add_all(_where(bad), WRONG_TYPE, f"{column.name} holds a NUL character")
    if column.name.endswith("_id"):
        long = (text.str.len() > MAX_ID_LENGTH).to_numpy(dtype=bool, na_value=False)
        faults.add_all(
            _where(long), WRONG_TYPE, f"{column.name} is longer than {MAX_ID_LENGTH} characters"
        )
        bad = bad | long
    return text.mask(bad) if bad.any() else text


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _times(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import pandas as pd

    if isinstance(raw.dtype, pd.ArrowDtype) and raw.dtype.kind == "M":
        import pyarrow as pa

        raw = pa.array(raw, from_pandas=True).to_pandas()
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        return require_utc_column(raw, column.name)
    if raw.dtype.kind == "M":
        for position in _where(~_missing(raw)):
            faults.add(position, NAIVE_TIME, _naive(column.name, raw.iloc[position]))
        return pd.Series(pd.NaT, index=raw.index, dtype=UTC_TYPE)
    if isinstance(raw.dtype, pd.StringDtype):
        return _time_texts(column, raw, range(len(raw)), faults)
    return _mixed_times(column, raw, faults)


def _mixed_times(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import pandas as pd

    out = pd.Series(pd.NaT, index=raw.index, dtype=UTC_TYPE)
    aware: list[int] = []
    texts: list[int] = []
    for position, (value, missing) in enumerate(zip(raw, _missing(raw), strict=True)):
        if missing:
            continue
        if isinstance(value, str):
            texts.append(position)
        elif isinstance(value, datetime):
            if value.utcoffset() is None:
                faults.add(position, NAIVE_TIME, _naive(column.name, value))
            else:
                aware.append(position)
        elif isinstance(value, date):
            faults.add(position, NAIVE_TIME, _naive(column.name, value))
        else:
            faults.add(position, IMPOSSIBLE_TIME, f"{column.name} is {shown(value)}, not a time")
    if aware:
        try:
            out.iloc[aware] = require_utc_column(raw.iloc[aware].astype(object), column.name)
        except (NaiveTimeError, OverflowError, ValueError):
            for position in aware:
                _one_time(column, raw.iloc[position], position, out, faults)
    if texts:
        chosen = raw.iloc[texts].astype("str")
        out.iloc[texts] = _time_texts(column, chosen, texts, faults)
    return out


def _one_time(
    column: Column, value: datetime, position: int, out: pd.Series, faults: Faults
) -> None:
    import pandas as pd

    try:
        out.iloc[position] = pd.Timestamp(value).as_unit("us").tz_convert("UTC")
    except (OverflowError, ValueError):
        faults.add(position, IMPOSSIBLE_TIME, f"{column.name} is {shown(value)}, out of range")


def _time_texts(
    column: Column, texts: pd.Series, positions: Iterable[int], faults: Faults
) -> pd.Series:
    import numpy as np
    import pandas as pd

    text = texts.str.strip()
    text = text.mask((text == "").to_numpy(dtype=bool, na_value=False))
    given = text.notna().to_numpy()
    zoned = text.str.contains(_ZONE, regex=True).to_numpy(dtype=bool, na_value=False)
    # A bare date ends like an offset ("2024-01-05"): only what follows a clock time is a zone.
    zoned = zoned & text.str.contains(r"\d[tT ]\d", regex=True).to_numpy(dtype=bool, na_value=False)
    parsed = pd.to_datetime(text.where(zoned), utc=True, format="ISO8601", errors="coerce")
    unzoned = pd.to_datetime(text.mask(zoned), format="ISO8601", errors="coerce", utc=True)
    place = np.fromiter(positions, dtype=np.int64, count=len(text))
    for i in _where(given & ~zoned & unzoned.notna().to_numpy()):
        faults.add(int(place[i]), NAIVE_TIME, _naive(column.name, text.iloc[i]))
    readable = np.where(zoned, parsed.notna().to_numpy(), unzoned.notna().to_numpy())
    for i in _where(given & ~readable):
        faults.add(
            int(place[i]),
            IMPOSSIBLE_TIME,
            f"{column.name} is {shown(texts.iloc[i])}, which is not an ISO 8601 time",
        )
    return parsed.astype(UTC_TYPE)


def _naive(name: str, value: Any) -> str:
    text = value.isoformat() if isinstance(value, date) else str(value)
    return f"{name} is {text}, which has no time zone; give it one, such as +00:00"


def _numbers(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.decimal128(PRECISION, column.scale)
    limit = 10 ** (PRECISION - column.scale)
    if raw.dtype.kind in "iuf" and raw.dtype != object:
        missing = _missing(raw)
        values = raw.to_numpy(dtype="float64", na_value=np.nan)
        # Beyond 2^53 a float is not exact any more: those go one by one.
        fits = np.abs(values) < min(limit, 2**53 / 10**column.scale)
        if (fits | missing).all():
            array = pa.array(values, from_pandas=True)
            exact = pd.Series(pc.cast(array, kind), dtype=pd.ArrowDtype(kind))
            return _bounded(column, exact, faults)
    step = Decimal(1).scaleb(-column.scale)
    out: list[Decimal | None] = []
    for position, (value, missing_value) in enumerate(zip(raw, _missing(raw), strict=True)):
        number = None if missing_value else _number(value)
        if isinstance(value, float) and number is not None and abs(number) < limit:
            # The same rounding as for a whole column, so that a value never depends on its batch.
            number = pc.cast(pa.scalar(float(value)), kind).as_py()
        if missing_value or (isinstance(value, str) and not value.strip()):
            out.append(None)
        elif number is None:
            faults.add(position, WRONG_TYPE, f"{column.name} is {shown(value)}, not a number")
            out.append(None)
        elif abs(number) >= limit or abs(number.quantize(step)) >= limit:
            faults.add(
                position,
                WRONG_TYPE,
                f"{column.name} is {shown(value)}, which has more than "
                f"{PRECISION - column.scale} digits before the point",
            )
            out.append(None)
        else:
            out.append(number.quantize(step))
    return _bounded(column, pd.Series(pa.array(out, kind), dtype=pd.ArrowDtype(kind)), faults)


def _bounded(column: Column, values: pd.Series, faults: Faults) -> pd.Series:
    if column.minimum is None:
        return values
    low = (values < column.minimum).to_numpy(dtype=bool, na_value=False)
    for position in _where(low):
        faults.add(
            position,
            WRONG_TYPE,
            f"{column.name} is {values.iloc[position]}; it must be at least {column.minimum}",
        )
    return values.mask(low) if low.any() else values


def _number(value: Any) -> Decimal | None:
    import numpy as np

    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, str):
        if _NUMBER.fullmatch(value.strip()) is None or len(value) > 64:
            return None
        number = Decimal(value.strip())
    elif isinstance(value, Decimal | int):
        number = Decimal(value)
    elif isinstance(value, float | np.floating | np.integer):
        try:
            number = Decimal(repr(value.item() if isinstance(value, np.generic) else value))
        except InvalidOperation:
            return None
    else:
        return None
    return number if number.is_finite() else None


def _integers(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import pandas as pd

    out: list[int | None] = []
    for position, (value, missing) in enumerate(zip(raw, _missing(raw), strict=True)):
        if missing or (isinstance(value, str) and not value.strip()):
            out.append(None)
            continue
        number = _number(value)
        if number is None or number != number.to_integral_value() or abs(number) > _INT_MAX:
            faults.add(position, WRONG_TYPE, f"{column.name} is {shown(value)}, not a whole number")
            out.append(None)
        else:
            out.append(int(number))
    return _bounded(column, pd.Series(out, dtype="Int64"), faults)


def _objects(column: Column, raw: pd.Series, faults: Faults) -> pd.Series:
    import pandas as pd

    typed = column.name == "attributes"
    seen: dict[str, tuple[str | None, str | None]] = {}
    out: list[str] = []
    for position, (value, missing) in enumerate(zip(raw, _missing(raw), strict=True)):
        if missing or (isinstance(value, str) and not value):
            out.append("{}")
            continue
        if isinstance(value, str):
            if value not in seen:
                if len(seen) > 10_000:
                    seen.clear()
                seen[value] = _object(value, typed)
            text, problem = seen[value]
        else:
            text, problem = _object(value, typed)
        if problem:
            faults.add(position, WRONG_TYPE, f"{column.name} {problem}")
        out.append(text or "{}")
    return pd.Series(out, index=raw.index, dtype="str")


def _object(value: Any, typed: bool) -> tuple[str | None, str | None]:
    """JSON text of an object and None, or None and what is wrong with it."""
    try:
        text = value if isinstance(value, str) else dump_object(value)
        parsed = orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError, ValueError, RecursionError) as error:
        return None, f"is {shown(value)}, which is not JSON ({error})"
    if not isinstance(parsed, dict):
        return None, f"is {shown(value)}, which is not a JSON object"
    if "\\u0000" in text and _has_nul(parsed):
        return None, "holds a NUL character"
    if typed and (problem := attributes_problem(parsed)):
        return None, problem
    return text, None


def dump_object(value: Any) -> str:
    """JSON text of a value with sorted keys; NaN, NaT and NA become null.

    Raises:
        TypeError: something in it has no form in JSON.
    """
    return orjson.dumps(
        value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS
    ).decode()


def _plain(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _has_nul(value: Any) -> bool:
    return "\\u0000" in json.dumps(value).replace("\\\\", "")


def attributes_problem(attributes: dict[str, Any]) -> str | None:
    """What is wrong with a lead's attributes, or None. A null is an attribute not given."""
    for name, value in attributes.items():
        known = ATTRIBUTES.get(name)
        if known is None or value is None:
            continue
        if known.type == "boolean":
            wanted = None if isinstance(value, bool) else "true or false"
        elif known.type == "category":
            wanted = None if value in known.choices else "one of " + ", ".join(known.choices)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = known.type == "number" or (number and float(value).is_integer())
            inside = number and (known.low or 0) <= value <= (known.high or float("inf"))
            kind = "whole number" if known.type == "integer" else "number"
            wanted = (
                None
                if number and whole and inside
                else f"a {kind} from {known.low:g} to {known.high:g}"
            )
        if wanted:
            return f"has {name} = {shown(value)}; it must be {wanted}"
    return None
