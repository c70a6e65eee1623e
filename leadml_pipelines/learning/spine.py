"""Which leads are looked at, and when: the rows of a training set before features and labels.

Cut-offs are calendar moments `every` apart, or ages after a lead's creation, or both. Each lead's
calendar has its own offset (a hash of its id), so that rows fall on all hours and weekdays, as
requests do in production; were all rows of Thursday midnight, the model would know no other.

Nothing that happens after a row's moment decides whether the row is there, except that its label
must be known by the end of the data; those that are not are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from leadml_pipelines.learning.spec import ModelSpec, age_text
from leadml_pipelines.times import to_micros

if TYPE_CHECKING:
    import pandas as pd

CALENDAR = "calendar"
"""The `moment` of a row that comes from the calendar; other rows name their age, as in `24h`."""

_ALIVE = {
    "open": "NOT customer AND NOT closed",
    "customer": "customer",
    "alive": "customer OR NOT closed",
}

_MOMENTS = """
WITH born AS (
    SELECT lead_id AS entity_id, epoch_us(created_at) AS born,
        CAST(md5_number_lower(lead_id) % CAST($every AS UBIGINT) AS BIGINT) AS shift
    FROM leads
    WHERE epoch_us(created_at) <= $data_end
), calendar AS (
    SELECT entity_id, born,
        unnest(range(shift + ((born - shift + $every - 1) // $every) * $every,
            $data_end + 1, $every)) AS micros,
        'calendar' AS moment
    FROM born
    WHERE $with_calendar
), aged AS (
    SELECT b.entity_id, b.born, b.born + a.age AS micros, a.moment
    FROM born b CROSS JOIN ages a
    WHERE b.born + a.age <= $data_end
), moments AS (
    SELECT * FROM calendar UNION ALL SELECT * FROM aged
), ended AS (
    SELECT lead_id, epoch_us(min(closed_at)) AS closed FROM closures GROUP BY lead_id
), held AS (
    SELECT lead_id, epoch_us(bound_at) AS bound,
        coalesce(epoch_us(cancelled_at), 9223372036854775807) AS cancelled
    FROM policies
), status AS (
    SELECT m.entity_id, m.born, m.micros, m.moment,
        EXISTS (
            SELECT 1 FROM held h
            WHERE h.lead_id = m.entity_id AND h.bound <= m.micros AND h.cancelled > m.micros
        ) AS customer,
        coalesce(e.closed <= m.micros, false) AS closed
    FROM moments m LEFT JOIN ended e ON e.lead_id = m.entity_id
), candidates AS (
    SELECT entity_id, born, micros, moment FROM status WHERE {alive}
)
"""

_COUNT = """
SELECT count(*) AS total, count(*) FILTER (micros <= $known) AS known FROM candidates
"""

# A hash that is the same in every version decides which rows are kept, so a set can be rebuilt.
_SAMPLE = """
SELECT entity_id, born, micros, moment FROM (
    SELECT * FROM candidates WHERE micros <= $known
    ORDER BY md5_number_lower(entity_id || '@' || micros), micros, entity_id, moment LIMIT $most
) ORDER BY micros, entity_id, moment
"""


class Engine(Protocol):
    """The part of the bulk engine that spines and labels need."""

    def sql(self, query: str, params: Any = None, **frames: pd.DataFrame) -> pd.DataFrame:
        """Run a query over the contract's tables and the given frames."""
        ...


@dataclass(frozen=True)
class Spine:
    """The moments at which leads are looked at.

    Attributes:
        frame: `entity_id`, `as_of`, `created_at` (datetime64[us, UTC]) and `moment` (`calendar`
            or an age such as `24h`), ordered by `as_of`, then `entity_id`; labels are known.
        candidates: Moments of leads alive then, up to the end of the data.
        unknown: How many of them have a label that the data can't tell yet; left out.
        sampled_out: How many others were left out by `max_rows`.
    """

    frame: pd.DataFrame
    candidates: int
    unknown: int
    sampled_out: int


def build_spine(spec: ModelSpec, engine: Engine, data_end: datetime) -> Spine:
    """List the moments that a spec asks for.

    Args:
        spec: Says which moments, and of which leads.
        engine: Has `leads`, `policies` and `closures`.
        data_end: Up to when the data tells what happened.
    """
    import pandas as pd

    ages = pd.DataFrame(
        {
            "age": pd.Series(
                [age // timedelta(microseconds=1) for age in spec.ages], dtype="int64"
            ),
            "moment": pd.Series([age_text(age) for age in spec.ages], dtype="str"),
        }
    )
    every = spec.every or timedelta(days=1)
    end = to_micros(data_end)
    params = {
        "every": every // timedelta(microseconds=1),
        "with_calendar": spec.every is not None,
        "data_end": end,
        "known": end - spec.horizon // timedelta(microseconds=1),
    }
    moments = _MOMENTS.format(alive=_ALIVE[spec.candidates])
    counts = engine.sql(
        moments + _COUNT,
        params,
        ages=ages,
    ).iloc[0]
    rows = engine.sql(
        moments + _SAMPLE,
        {**params, "most": spec.max_rows},
        ages=ages,
    )
    frame = pd.DataFrame(
        {
            "entity_id": rows["entity_id"].astype("str"),
            "as_of": _times(rows["micros"]),
            "created_at": _times(rows["born"]),
            "moment": rows["moment"].astype("str"),
        }
    )
    total, known = int(counts["total"]), int(counts["known"])
    return Spine(frame, total, total - known, known - len(frame))


def _times(micros: pd.Series) -> pd.Series:
    return micros.astype("int64").astype("datetime64[us]").dt.tz_localize("UTC")
