"""The engines that compute feature views: DuckDB in bulk, PostgreSQL on demand."""

from __future__ import annotations

from leadml_pipelines.features.duckdb_engine import DuckDBEngine, MissingTableError
from leadml_pipelines.features.postgres_engine import PostgresEngine

__all__ = ["DuckDBEngine", "MissingTableError", "PostgresEngine"]
