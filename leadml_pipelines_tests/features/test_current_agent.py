"""The agent who works on a lead, and what was known about the agent at the time."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines.features.relations import RELATIONS
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, World, random_world, spine

GRAPH = [catalogue().view("graph")]
BORN = NOW - timedelta(days=60)
WEEK = timedelta(weeks=1)


def assigned(*agents: str, since: datetime = BORN, until: datetime | None = None) -> World:
    world = World().lead("l", BORN, product_interest="auto")
    for agent in agents:
        world.add("assignments", lead_id="l", agent_id=agent, assigned_at=since, ended_at=until)
    return world


def measure(world: World, agent: str, load: int, when: datetime = NOW - WEEK) -> World:
    return world.add(
        "graph_metrics",
        entity_type="agent",
        entity_id=agent,
        as_of=when,
        agent_load=load,
        agent_conversion_rate=load / 100,
    )


def row(bulk: Bulk, world: World, as_of: datetime = NOW) -> pd.Series:
    return bulk(world).compute(GRAPH, spine(("l", as_of))).iloc[0]


def test_load_and_rate_are_those_of_the_agent_s_latest_monday(bulk: Bulk) -> None:
    world = assigned("x")
    for weeks, load in ((2, 20), (1, 10), (-1, 99)):
        measure(world, "x", load, NOW - weeks * WEEK)
    measure(world, "y", 50)
    world.add("graph_metrics", entity_type="lead", entity_id="x", as_of=NOW, agent_load=7)
    found = row(bulk, world)
    assert found["assigned_agent_load"] == 10
    assert found["assigned_agent_conversion_rate"] == 0.1


def test_the_agent_is_that_of_the_newest_assignment_that_runs(bulk: Bulk) -> None:
    world = assigned("old")
    newer = NOW - timedelta(days=9)
    world.add("assignments", lead_id="l", agent_id="new", assigned_at=newer)
    for agent, load in (("old", 1), ("new", 2)):
        measure(world, agent, load)
    world.add("assignments", lead_id="l", agent_id="gone", assigned_at=NOW - WEEK, ended_at=NOW)
    measure(world, "gone", 3)
    assert row(bulk, world)["assigned_agent_load"] == 2
    assert row(bulk, world, NOW - MICROSECOND)["assigned_agent_load"] == 3


def test_without_an_agent_or_before_the_agent_s_first_monday_nothing_is_known(bulk: Bulk) -> None:
    names = ["assigned_agent_load", "assigned_agent_conversion_rate"]
    assert row(bulk, assigned())[names].isna().all()
    assert row(bulk, measure(assigned("x"), "x", 1, NOW + MICROSECOND))[names].isna().all()
    ended = assigned("x", until=NOW)
    assert row(bulk, measure(ended, "x", 1))[names].isna().all()


@pytest.mark.parametrize(
    ("specialty", "interest", "expected"),
    [
        ("auto", "auto", True),
        ("home", "auto", False),
        (None, "auto", None),
        ("auto", None, None),
        (None, None, None),
    ],
)
def test_a_specialty_matches_or_not_or_is_not_known(
    specialty: str | None, interest: str | None, expected: bool | None, bulk: Bulk
) -> None:
    world = World().lead("l", BORN, product_interest=interest)
    world.add("assignments", lead_id="l", agent_id="x", assigned_at=BORN)
    world.add("agents", agent_id="x", specialty=specialty)
    found = row(bulk, world)["assigned_agent_specialty_match"]
    assert pd.isna(found) if expected is None else found == expected


def test_an_agent_who_is_hired_later_has_no_specialty_yet(bulk: Bulk) -> None:
    world = assigned("x").add("agents", agent_id="x", specialty="auto", hired_at=NOW)
    assert pd.isna(row(bulk, world, NOW - MICROSECOND)["assigned_agent_specialty_match"])
    assert row(bulk, world)["assigned_agent_specialty_match"]


def test_of_two_agents_at_one_moment_every_engine_takes_the_first_by_bytes(
    postgres_url: str, tmp_path: Path
) -> None:
    """Many languages sort small letters before capital ones, and a dash nowhere."""
    world = assigned("b", "a-c", "ab", "B", "é")
    for load, agent in enumerate(("b", "a-c", "ab", "B", "é"), start=1):
        measure(world, agent, load)
    world.load(postgres_url)
    with PostgresEngine(postgres_url) as engine:
        alone = engine.compute(GRAPH, ["l"], NOW)
    with DuckDBEngine(world.parquet(tmp_path, shuffle=3), threads=1) as engine_:
        in_bulk = engine_.compute(GRAPH, spine(("l", NOW)))
    pd.testing.assert_frame_equal(alone, in_bulk, check_exact=True)
    assert alone["assigned_agent_load"].tolist() == [4]


def test_the_form_for_spark_gives_the_same_rows_as_that_for_duckdb(tmp_path: Path) -> None:
    """It is plain SQL, which DuckDB can run as well."""
    relation = RELATIONS["current_agent"]
    for seed in range(3):
        paths = random_world(seed).parquet(tmp_path / str(seed))
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            names = {name: f"read_parquet('{path}')" for name, path in paths.items()}
            connection.execute(
                f"CREATE TABLE spine AS SELECT lead_id AS entity_id, as_of FROM {names['leads']}, "
                f"(VALUES (TIMESTAMPTZ '{NOW}'), (TIMESTAMPTZ '{NOW - 3 * WEEK}')) AS t(as_of)"
            )
            columns = f"entity_id, as_of, {', '.join(relation.all_columns)}"
            rows = {
                dialect: connection.sql(
                    f"SELECT {columns} FROM ({relation.sql(dialect, names)}) ORDER BY 1, 2"
                ).fetchall()
                for dialect in ("duckdb", "spark")
            }
        assert rows["spark"] == rows["duckdb"]
        assert any(value is not None for row in rows["duckdb"] for value in row[-2:])
