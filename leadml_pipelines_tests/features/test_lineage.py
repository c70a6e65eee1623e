"""Where features come from: read off the statement, and held against what changes their values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.lineage import (
    Lineage,
    SourceColumn,
    expression,
    lineage,
    lineage_of_all,
    lineage_of_view,
)
from leadml_pipelines.features.relations import SOURCE_TABLES
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines_tests.features.world import NOW, SCHEMAS, World, random_world, spine

SIZE = Feature("size", "double", "m", None, None, None, "Size.", "fit")


def texts(columns: tuple[SourceColumn, ...]) -> list[str]:
    return [str(column) for column in columns]


def traced(view: FeatureView, *others: FeatureView) -> Mapping[str, Lineage]:
    return lineage_of_view(view, Catalogue([view, *others]))


def test_a_rate_comes_from_the_type_and_time_of_events_and_from_both_clocks() -> None:
    found = lineage("email_open_rate")
    assert texts(found.values) == ["lead_events.event_type", "lead_events.occurred_at"]
    assert texts(found.conditions) == [
        "lead_events.ingested_at", "lead_events.lead_id", "lead_events.occurred_at",
    ]  # fmt: skip
    assert found.features == ()


def test_lineage_goes_through_the_views_that_a_view_is_built_on() -> None:
    found = lineage("urgency_score")
    assert found.features == ("inbound_count_1d", "inbound_count_7d", "lead_age_days")
    assert {c.table for c in found.inputs} == {"engagement", "lifecycle"}
    assert {"lead_events.direction", "leads.created_at"} <= set(texts(found.values))
    assert {"lead_events.ingested_at", "leads.lead_id"} <= set(texts(found.conditions))


def test_what_is_joined_beside_a_feature_is_not_its_source() -> None:
    assert not {c.table for c in lineage("quality_score").sources} & {"lead_events", "policies"}
    assert {c.table for c in lineage("inbound_count_7d").sources} == {"lead_events"}


def test_every_feature_has_sources_and_all_of_them_exist() -> None:
    found = lineage_of_all()
    for entity in catalogue().entities:
        for feature in catalogue().features(entity):
            assert found[feature.name].sources, feature.name
    tables = {name: columns for name, columns in SCHEMAS.items() if name in SOURCE_TABLES}
    unknown = {
        str(column)
        for one in found.values()
        for column in one.sources
        if column.table in tables and column.column not in tables[column.table]
    }
    assert unknown == set()
    assert {c.table for one in found.values() for c in one.sources} <= set(SOURCE_TABLES)


def test_whoever_reads_events_looks_at_both_clocks_and_the_key() -> None:
    for name, one in lineage_of_all().items():
        if any(column.table == "lead_events" for column in one.sources):
            clocks = {"lead_events.occurred_at", "lead_events.ingested_at"}
            assert clocks <= set(texts(one.conditions)), name


def _another(value: Any, number: int) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float | Decimal):
        return value + type(value)(3 + number % 5)
    if isinstance(value, str):
        return '{"age": 77, "income_band": "low"}' if value.startswith("{") else f"x{number % 3}"
    if value is None:
        return None
    return value - timedelta(days=3 + number % 40, seconds=number)


IDS = {"lead": [f"lead_{i}" for i in range(25)], "agent": ["a", "b"]}


def _computed(world: World, folder: Path) -> dict[str, pd.Series]:
    """Every feature of every entity type by name."""
    with DuckDBEngine(world.parquet(folder), threads=1) as engine:
        frames = [
            engine.compute(catalogue().views(entity), spine(*((i, NOW) for i in ids)))
            for entity, ids in IDS.items()
        ]
    return {name: frame[name] for frame in frames for name in frame.columns[2:]}


@pytest.mark.parametrize(
    "table",
    ["leads", "lead_versions", "lead_events", "policies", "closures", "assignments", "agents"],
)
def test_a_column_whose_change_changes_a_feature_is_in_its_lineage(
    table: str, tmp_path: Path
) -> None:
    world = random_world(11, leads=25, events=400)
    before = _computed(world, tmp_path / "before")
    found = lineage_of_all()
    changed_any = False
    for column in SCHEMAS[table]:
        rows = [
            row | {column: _another(row[column], number)}
            for number, row in enumerate(world.tables[table])
        ]
        other = World({**world.tables, table: rows})
        after = _computed(other, tmp_path / column)
        for name in after:
            if not after[name].equals(before[name]):
                changed_any = True
                assert SourceColumn(table, column) in found[name].sources, (name, column)
    assert changed_any


def test_a_filter_is_a_condition_and_no_value() -> None:
    def build(read: Mapping[str, Any]) -> Any:
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        rows = read["known_policies"].where(F.col("product") == F.lit("auto"))
        latest = p.latest_if(F.col("bound_at").isNotNull(), F.col("bound_at"))
        last = rows.groupBy("entity_id", "as_of").agg(latest.alias("last"))
        return p.extend(last, size=p.days_between(F.col("as_of"), F.col("last")))

    found = traced(FeatureView("v", "lead", "A.", (SIZE,), ("known_policies",), build))["size"]
    assert texts(found.values) == ["policies.bound_at"]
    assert texts(found.conditions) == ["policies.bound_at", "policies.lead_id", "policies.product"]


def test_a_union_comes_from_both_its_parts() -> None:
    def build(read: Mapping[str, Any]) -> Any:
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        keys = ["entity_id", "as_of"]
        ends = read["known_closures"].select(*keys, F.col("closed_at").alias("at"))
        starts = read["known_policies"].select(*keys, F.col("bound_at").alias("at"))
        both = ends.unionAll(starts).groupBy(*keys).agg(F.max("at").alias("last"))
        return p.extend(both, size=p.days_between(F.col("as_of"), F.col("last")))

    reads = ("known_closures", "known_policies")
    found = traced(FeatureView("v", "lead", "A.", (SIZE,), reads, build))["size"]
    assert texts(found.values) == ["closures.closed_at", "policies.bound_at"]
    assert {c.table for c in found.conditions} == {"closures", "policies"}


def test_a_condition_of_a_join_belongs_only_to_what_is_read_through_it() -> None:
    def build(read: Mapping[str, Any]) -> Any:
        from sqlframe.standalone import functions as F  # noqa: N812

        from leadml_pipelines.features import primitives as p

        keys = ["entity_id", "as_of"]
        closed = read["known_closures"].groupBy(*keys).agg(F.max("closed_at").alias("closed"))
        frame = p.beside(read["lead_created"], closed)
        return p.extend(
            frame,
            size=p.days_between(F.col("as_of"), F.col("created_at")),
            other=p.days_between(F.col("as_of"), F.col("closed")),
        )

    features = (SIZE, replace(SIZE, name="other"))
    reads = ("lead_created", "known_closures")
    found = traced(FeatureView("v", "lead", "A.", features, reads, build))
    assert {c.table for c in found["size"].sources} == {"leads"}
    assert {c.table for c in found["other"].sources} == {"leads", "closures"}
    assert texts(found["other"].values) == ["closures.closed_at"]


def test_the_expression_says_what_is_done_in_terms_of_what_the_view_reads() -> None:
    found = expression("inbound_count_7d")
    assert found.startswith("COUNT(CASE WHEN ")
    assert "'inbound'" in found
    assert expression("degree") == "degree"
    assert lineage("requested_amount_income_ratio").features == ("income_band", "requested_amount")


def test_lineage_is_found_once() -> None:
    assert lineage("email_open_rate") is lineage("email_open_rate")


def test_nothing_heavy_is_loaded_before_somebody_asks() -> None:
    code = (
        "import sys\n"
        "from leadml_pipelines.features import definition, entries, lineage, search\n"
        "entries.entries()\n"
        "print([m for m in ('sqlframe', 'sqlglot', 'duckdb', 'pandas', 'numpy', 'pyarrow', "
        "'psycopg') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
