"""What was found, kept in PostgreSQL: drift by snapshot, live performance by day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from leadml_pipelines.learning.registry.model_records import json_ready
from leadml_pipelines.learning.served_versions import ServedVersion
from leadml_pipelines.monitoring.drift import ColumnDrift
from leadml_pipelines.monitoring.live import LiveMetric, LivePerformance
from leadml_pipelines.monitoring.patience import connect
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    from leadml_pipelines.monitoring.populations import Population, Populations

_KEYS = ("model_name", "model_id", "population", "as_of", "recorded_at")


@dataclass(frozen=True)
class DriftRecord:
    """One comparison of what a model learned from with a population of today.

    Attributes:
        model_name: Name of the model.
        model_id: The champion of that day.
        population: Which rows of today; see `populations.Population`.
        as_of: Moment of the snapshot; of what was served or answered, the end of the day.
        recorded_at: When it was compared.
        reference_rows: Rows that the model learned from.
        current_rows: Rows of today.
        drifted: The columns over their limit, the furthest first.
        columns: Every column with its figures (see `ColumnDrift`).
    """

    model_name: str
    model_id: str
    population: Population
    as_of: datetime
    recorded_at: datetime
    reference_rows: int
    current_rows: int
    drifted: tuple[str, ...]
    columns: tuple[ColumnDrift, ...]


def record_drift(
    url: str, name: str, sides: Populations, drifts: Sequence[ColumnDrift], now: datetime
) -> DriftRecord:
    """Keep a comparison; one of the same model version, population and moment is replaced."""
    made = DriftRecord(
        name,
        sides.model_id,
        sides.population,
        require_utc(sides.as_of, "as_of"),
        require_utc(now, "now"),
        len(sides.reference),
        len(sides.current),
        tuple(one.name for one in drifts if one.drifted),
        tuple(drifts),
    )
    row = {
        **{key: getattr(made, key) for key in _KEYS},
        "reference_rows": made.reference_rows,
        "current_rows": made.current_rows,
        "drifted": Jsonb(list(made.drifted)),
        "columns": Jsonb([asdict(one) for one in made.columns]),
    }
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.drift (model_name, model_id, population, as_of, recorded_at,"
            " reference_rows, current_rows, drifted, columns) VALUES (%(model_name)s,"
            " %(model_id)s, %(population)s, %(as_of)s, %(recorded_at)s, %(reference_rows)s,"
            " %(current_rows)s, %(drifted)s, %(columns)s)"
            " ON CONFLICT (model_name, model_id, population, as_of) DO UPDATE SET"
            " number = DEFAULT, recorded_at = excluded.recorded_at,"
            " reference_rows = excluded.reference_rows,"
            " current_rows = excluded.current_rows, drifted = excluded.drifted,"
            " columns = excluded.columns",
            row,
        )
    return made


def newest_drift(
    url: str, name: str, model_id: str, population: Population, since: datetime
) -> DriftRecord | None:
    """A model version's comparison that was made last; None if that was before `since`."""
    with connect(url, row_factory=dict_row) as connection:
        row = connection.execute(
            "SELECT model_name, model_id, population, as_of, recorded_at, reference_rows,"
            " current_rows, drifted, columns FROM leadml.drift WHERE model_name = %s"
            " AND model_id = %s AND population = %s AND recorded_at >= %s"
            " ORDER BY number DESC LIMIT 1",
            (name, model_id, population, require_utc(since, "since")),
        ).fetchone()
    if row is None:
        return None
    columns = tuple(ColumnDrift(**one) for one in row["columns"])
    return DriftRecord(**{**row, "drifted": tuple(row["drifted"]), "columns": columns})


def record_live(url: str, found: LivePerformance, now: datetime) -> None:
    """Keep a judgement; one of the same newest version, role and moment is replaced."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO leadml.live_performance (model_name, model_id, role, since, until,"
            " recorded_at, predictions, entities, metrics, versions, not_comparable, left_out)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (model_id, role, until) DO UPDATE SET number = DEFAULT,"
            " since = excluded.since,"
            " recorded_at = excluded.recorded_at, predictions = excluded.predictions,"
            " entities = excluded.entities, metrics = excluded.metrics,"
            " versions = excluded.versions, not_comparable = excluded.not_comparable,"
            " left_out = excluded.left_out",
            (
                found.model_name,
                found.versions[-1].model_id,
                found.role,
                found.since,
                found.until,
                require_utc(now, "now"),
                found.predictions,
                found.entities,
                Jsonb({name: asdict(metric) for name, metric in found.metrics.items()}),
                Jsonb(json_ready([asdict(version) for version in found.versions])),
                Jsonb(dict(found.not_comparable)),
                found.left_out,
            ),
        )


def newest_live(url: str, name: str, role: str, since: datetime) -> LivePerformance | None:
    """The last judgement of a model's role; None if that was before `since`.

    Of the role and not of the version that has it now: that one came about last night, and has no
    outcome yet.
    """
    with connect(url, row_factory=dict_row) as connection:
        row = connection.execute(
            "SELECT model_name, role, since, until, predictions, entities, metrics, versions,"
            " not_comparable, left_out FROM leadml.live_performance WHERE model_name = %s"
            " AND role = %s AND recorded_at >= %s AND versions <> '[]'"
            " ORDER BY number DESC LIMIT 1",
            (name, role, require_utc(since, "since")),
        ).fetchone()
    if row is None:
        return None
    metrics = {metric: LiveMetric(**figures) for metric, figures in row["metrics"].items()}
    versions = tuple(
        ServedVersion(
            one["model_id"],
            datetime.fromisoformat(one["first_at"]),
            datetime.fromisoformat(one["last_at"]),
            one["predictions"],
        )
        for one in row["versions"]
    )
    return LivePerformance(**{**row, "metrics": metrics, "versions": versions})
