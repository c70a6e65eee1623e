"""The bulk engine over an extract of the source tables, and whom to compute features for."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.features.duckdb_engine import DuckDBEngine
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.relations import SOURCE_TABLES
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.extract import Extract


def bulk_engine(extract: Extract, settings: Settings) -> DuckDBEngine:
    """The DuckDB engine over an extract, within the memory and threads that settings allow."""
    spill = settings.root / "tmp"
    spill.mkdir(parents=True, exist_ok=True)
    return DuckDBEngine(
        {name: extract.path / f"{name}.parquet" for name in SOURCE_TABLES},
        memory_limit=settings.duckdb_memory_limit,
        threads=settings.duckdb_threads,
        temp_directory=spill,
    )


def entities(engine: DuckDBEngine, entity: str, as_of: datetime) -> pd.DataFrame:
    """The spine of every entity of a type that exists at a moment.

    Returns:
        `entity_id` and `as_of`, sorted by entity.

    Raises:
        UnknownEntityTypeError: the entity type has no source table.
    """
    kind = entity_type(entity)
    moment = "CAST($as_of AS TIMESTAMP)"
    return engine.sql(
        f"SELECT e.{kind.key} AS entity_id, {moment} AS as_of FROM {kind.table} AS e "  # noqa: S608
        f"WHERE {kind.exists('e', moment)} ORDER BY e.{kind.key}",
        {"as_of": require_utc(as_of, "as_of")},
    )
