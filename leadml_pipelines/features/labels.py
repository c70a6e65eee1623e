"""Labels in SQL: what happened after each moment, or nothing where the data can't tell yet.

Labels see events by `occurred_at` alone: they are the outcome's truth, however late it was told.
Features, which must not know more than was known, obey both clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from leadml_pipelines.errors import UserError
from leadml_pipelines.times import require_utc, require_utc_column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

_QUERY = """
WITH moments AS (
    SELECT row_id, entity_id, make_timestamp(as_of) AS as_of, make_timestamp(until) AS until
    FROM moment_rows
)
SELECT row_id, CAST(label AS {type}) AS label FROM ({label}) ORDER BY row_id
"""


class LabelError(UserError, ValueError):
    """A label's SQL does not do what a label must; the sentence names the label."""


class Engine(Protocol):
    """The part of the bulk engine that labels need."""

    def sql(self, query: str, params: Any = None, **frames: pd.DataFrame) -> pd.DataFrame:
        """Run a query over the contract's tables and the given frames."""
        ...


@dataclass(frozen=True)
class SqlLabel:
    """A label that a query answers.

    Attributes:
        name: Name of the label, and of its column.
        sql: DuckDB SQL over the source tables and `moments(row_id, entity_id, as_of, until)`, whose
            times are naive UTC. It answers with `row_id` and `label`, a number or a boolean, once
            for each row of `moments`.
        horizon: How far the label looks ahead: `until` is `as_of` + horizon.
    """

    name: str
    sql: str
    horizon: timedelta

    def definition(self) -> dict[str, Any]:
        """What the label follows from, JSON-ready; how its SQL is laid out does not matter."""
        micros = self.horizon // timedelta(microseconds=1)
        return {"name": self.name, "sql": " ".join(self.sql.split()), "horizon_micros": micros}

    @classmethod
    def of_definition(cls, definition: Mapping[str, Any]) -> SqlLabel:
        """The label of a definition."""
        horizon = timedelta(microseconds=definition["horizon_micros"])
        return cls(definition["name"], definition["sql"], horizon)


def label_values(
    label: SqlLabel, spine: pd.DataFrame, engine: Engine, data_end: datetime
) -> pd.Series:
    """The label of each row of a spine.

    Args:
        label: The label.
        spine: Has `entity_id` and `as_of`; any index.
        engine: Has the tables that the label reads.
        data_end: Up to when the data tells what happened.

    Returns:
        float64, with the spine's index; NaN where `as_of` + horizon lies after `data_end`.

    Raises:
        LabelError: the SQL does not answer with one value for each row.
        NaiveTimeError: a time has no time zone.
    """
    import numpy as np
    import pandas as pd

    known, answer = _answers(label, spine, engine, data_end, "DOUBLE")
    values = np.full(len(spine), np.nan)
    values[known] = answer.to_numpy(np.float64, na_value=np.nan)
    if np.isnan(values[known]).any():
        raise LabelError(
            f"the label of {label.name} is NULL for a moment whose horizon has passed; "
            "its SQL must give every such row a value"
        )
    return pd.Series(values, index=spine.index, name="label")


def label_words(
    label: SqlLabel, spine: pd.DataFrame, engine: Engine, data_end: datetime
) -> pd.Series:
    """Which of several words came true for each row of a spine.

    Args:
        label: Its SQL answers with a word, or NULL where none came true.
        spine: Has `entity_id` and `as_of`; any index.
        engine: Has the tables that the label reads.
        data_end: Up to when the data tells what happened.

    Returns:
        Text, with the spine's index; "" where none came true, missing where `as_of` + horizon lies
        after `data_end`.

    Raises:
        LabelError: the SQL does not answer once for each row.
        NaiveTimeError: a time has no time zone.
    """
    import pandas as pd

    known, answer = _answers(label, spine, engine, data_end, "VARCHAR")
    words = pd.Series(pd.NA, index=spine.index, dtype="str", name=label.name)
    words[known] = answer.astype("str").fillna("").to_numpy()
    return words


def _answers(
    label: SqlLabel, spine: pd.DataFrame, engine: Engine, data_end: datetime, kind: str
) -> tuple[npt.NDArray[np.bool_], pd.Series]:
    """Which rows are known, and the answers to them in order."""
    import numpy as np
    import pandas as pd

    as_of = require_utc_column(spine["as_of"], "as_of").reset_index(drop=True)
    until = as_of + pd.Timedelta(label.horizon)
    known = (until <= pd.Timestamp(require_utc(data_end, "data_end"))).to_numpy(bool)
    moments = pd.DataFrame(
        {
            "row_id": np.arange(len(spine), dtype=np.int64),
            "entity_id": spine["entity_id"].astype("str").to_numpy(),
            "as_of": _micros(as_of),
            "until": _micros(until),
        }
    )[known]
    answer = engine.sql(_QUERY.format(label=label.sql, type=kind), moment_rows=moments)
    if not np.array_equal(answer["row_id"].to_numpy(np.int64), moments["row_id"].to_numpy()):
        raise LabelError(
            f"the label of {label.name} answered {len(answer)} rows for {len(moments)} moments; "
            "it must return each row_id exactly once"
        )
    return known, answer["label"]


def _micros(times: pd.Series) -> pd.Series:
    return times.astype("datetime64[us, UTC]").astype("int64")
