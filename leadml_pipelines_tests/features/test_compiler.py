"""One statement per set of views, and primitives that mean the same on every engine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlglot
from sqlglot import exp

from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.compiler import CompileError, compile_views
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines.features.relation_kinds import Dialect
from leadml_pipelines.features.relations import SOURCE_TABLES
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import NOW, World, spine

VIEWS = catalogue().views("lead")
DIALECTS: tuple[Dialect, ...] = ("duckdb", "postgres", "spark")
WEEKLY = Feature("note_count_7d", "integer", "events", 0, None, 0, "Notes.", "engagement")
DOUBLED = Feature("note_count_doubled", "double", "events", 0, None, 0.0, "Twice.", "engagement")


def notes(read: Any) -> Any:
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    recent = F.col("occurred_at") > p.hours_before(F.col("as_of"), 168)
    is_note = F.col("event_type") == F.lit("note")
    rows = read["known_events"].groupBy("entity_id", "as_of")
    return rows.agg(p.count_if(is_note & recent).alias("note_count_7d"))


def doubled(read: Any) -> Any:
    from sqlframe.standalone import functions as F  # noqa: N812

    from leadml_pipelines.features import primitives as p

    twice = p.double(F.col("note_count_7d")) * p.number(2)
    return p.extend(read["notes"], note_count_doubled=twice)


NOTES = FeatureView("notes", "lead", "Notes.", (WEEKLY,), ("known_events",), notes)
TWICE = FeatureView("twice", "lead", "Notes, twice.", (DOUBLED,), ("notes",), doubled)
OWN = Catalogue([NOTES, TWICE])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_views_become_one_statement_over_the_tables_of_the_contract(dialect: Dialect) -> None:
    statements = sqlglot.parse(compile_views(VIEWS, dialect), read=dialect)
    assert len(statements) == 1
    tree = statements[0]
    assert tree is not None
    names = {cte.alias for cte in tree.find_all(exp.CTE)}
    assert {view.name for view in VIEWS} <= names
    read = {table.name for table in tree.find_all(exp.Table)} - names
    needed = {table for view in VIEWS for table in view.inputs} & {*SOURCE_TABLES}
    assert read == {*needed, "spine"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_function_of_the_primitives_is_left_for_an_engine_to_stumble_over(
    dialect: Dialect,
) -> None:
    assert "LEADML_" not in compile_views(VIEWS, dialect).upper()


def test_a_view_of_ones_own_builds_on_another_and_equals_on_both_engines(
    postgres_url: str, tmp_path: Path
) -> None:
    world = World().lead("a", NOW - timedelta(days=9))
    for days in (1, 6, 8):
        world.event("a", NOW - timedelta(days=days), event_type="note", direction="internal")
    world.load(postgres_url)
    with DuckDBEngine(world.parquet(tmp_path), catalogue=OWN) as engine:
        in_bulk = engine.compute([TWICE, NOTES], spine(("a", NOW), ("b", NOW)))
    with PostgresEngine(postgres_url, catalogue=OWN) as engine_:
        alone = engine_.compute([TWICE, NOTES], ["a", "b"], NOW)
    pd.testing.assert_frame_equal(in_bulk, alone, check_exact=True)
    assert in_bulk["note_count_doubled"].tolist() == [4.0, 0.0]
    assert list(in_bulk.columns[2:]) == ["note_count_doubled", "note_count_7d"]


def test_a_view_that_does_not_build_what_it_declares_is_named() -> None:
    wrong = FeatureView("wrong", "lead", "Wrong.", (DOUBLED,), ("known_events",), notes)
    with pytest.raises(CompileError, match="view wrong does not build note_count_doubled"):
        compile_views([wrong], "duckdb", catalogue=Catalogue([wrong]))


def test_garbage_is_collected_again_after_a_view_that_failed() -> None:
    wrong = FeatureView("wrong", "lead", "Wrong.", (DOUBLED,), ("known_events",), notes)
    with pytest.raises(CompileError):
        compile_views([wrong], "duckdb", catalogue=Catalogue([wrong]))
    assert gc.isenabled()


def test_frames_with_a_column_in_common_can_not_be_joined_by_accident() -> None:
    def twofold(read: Any) -> Any:
        from leadml_pipelines.features import primitives as p

        return p.beside(notes(read), notes(read))

    wrong = FeatureView("wrong", "lead", "Wrong.", (WEEKLY,), ("known_events",), twofold)
    with pytest.raises(ValueError, match="note_count_7d is in two of the frames"):
        compile_views([wrong], "duckdb", catalogue=Catalogue([wrong]))


AMOUNTS = (
    "1", "-0", "007", "1.5", ".5", "5.", "1e5", "1E-5", "1e400", "1e-400", "NaN", "Infinity",
    "0x10", "1_000", "1,5", " 1", "1 ", "1\n", "", "٣", "9" * 300, "0." + "0" * 260 + "1",
    "123456789.123456789123456789", "1000000000000", "1000000000000.1", "4.35", "0.1",
)  # fmt: skip


def test_a_number_in_json_reads_the_same_on_both_engines_whatever_its_spelling(
    postgres_url: str, tmp_path: Path
) -> None:
    import json

    world = World()
    texts = [json.dumps(text) for text in AMOUNTS]
    numbers = ["1", "1.50", "1e5", "0.00001", "1e-300", "1e300", "12345678901234567890.5", "{}"]
    for i, text in enumerate([*texts, *numbers, "[]", "null", "true", '{"a": 1}']):
        world.lead(f"l{i:02}", NOW, attributes=f'{{"requested_amount": {text}}}')
    world.load(postgres_url)
    ids = [row["lead_id"] for row in world.tables["leads"]]
    views = [catalogue().view("profile")]
    with DuckDBEngine(world.normalized(postgres_url).parquet(tmp_path)) as engine:
        in_bulk = engine.compute(views, spine(*((i, NOW) for i in ids)))
    with PostgresEngine(postgres_url) as engine_:
        alone = engine_.compute(views, ids, NOW)
    pd.testing.assert_frame_equal(in_bulk, alone, check_exact=True)
    assert in_bulk["requested_amount"].tolist()[:4:3] == [1.0, 1.5]
    assert in_bulk["requested_amount"].notna().sum() >= 12


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 11, 2, 5, 30, tzinfo=UTC),
    ],
)
def test_hour_and_weekday_are_those_of_the_calendar(bulk: Bulk, moment: datetime) -> None:
    engine = bulk(World().lead("a", moment))
    row = engine.compute([catalogue().view("profile")], spine(("a", NOW))).iloc[0]
    assert (row["created_hour"], row["created_weekday"]) == (moment.hour, moment.isoweekday())


def test_a_contract_in_another_schema_is_read_there(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA other")
        for table in (*SOURCE_TABLES,):
            if table != "graph_metrics":
                connection.execute(f"CREATE VIEW other.{table} AS SELECT * FROM crm.{table}")
    World().lead("a", NOW).load(postgres_url)
    with PostgresEngine(postgres_url, schema="other") as engine:
        assert engine.compute(VIEWS, ["a"], NOW)["is_open"].tolist() == [True]
        assert '"other"."leads"' in compile_views(
            VIEWS, "postgres", tables={"leads": '"other"."leads"'}
        )


def test_a_schema_that_is_not_a_plain_name_is_refused(postgres_url: str) -> None:
    with pytest.raises(ValueError, match="must consist of lower-case letters"):
        PostgresEngine(postgres_url, schema='crm"; DROP SCHEMA crm; --')


def test_a_statement_is_the_same_text_in_every_process() -> None:
    code = (
        "import hashlib, sys; from leadml_pipelines.features.catalogue import catalogue; "
        "from leadml_pipelines.features.compiler import compile_views; "
        "views = [v for e in catalogue().entities for v in catalogue().views(e)]; "
        "[compile_views([v], 'duckdb') for v in views[::int(sys.argv[1])]]; "
        "print(hashlib.sha256(compile_views(catalogue().views('lead'), 'duckdb').encode())"
        ".hexdigest())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, step],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed, step in (("1", "1"), ("2", "-1"))
    }
    assert len(texts) == 1
