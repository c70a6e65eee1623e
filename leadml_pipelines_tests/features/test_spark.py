"""The third engine: Spark runs the same statements and gives the same bits as DuckDB.

Spark is no dependency, for it is large; `pip install pyspark` beside a Java 17 makes this run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.compiler import compile_views
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines_tests.features.world import NOW, random_world, spine

pyspark = pytest.importorskip("pyspark", reason="Spark is not installed (pip install pyspark)")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("entity", catalogue().entities)
def test_spark_gives_every_feature_the_value_that_duckdb_gives(
    entity: str, spark: Any, tmp_path: Path
) -> None:
    world, kind, views = random_world(3), entity_type(entity), catalogue().views(entity)
    paths = world.parquet(tmp_path)
    ids = [*(row[kind.key] for row in world.tables[kind.table]), "nobody"]
    rows = spine(*((i, NOW) for i in ids))
    with DuckDBEngine(paths, threads=1) as engine:
        expected = engine.compute(views, rows)
    rows.to_parquet(tmp_path / "spine.parquet")
    for path in tmp_path.glob("*.parquet"):
        spark.read.parquet(str(path)).createOrReplaceTempView(path.stem)
    found = {row["entity_id"]: row for row in spark.sql(compile_views(views, "spark")).collect()}
    for row in expected.to_dict("records"):
        for name in expected.columns.drop("as_of"):
            value, other = row[str(name)], found[row["entity_id"]][str(name)]
            assert (None if pd.isna(value) else value) == other, f"{name} of {row['entity_id']}"
