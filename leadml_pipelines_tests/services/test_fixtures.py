"""The shared fixtures of conftest.py give real, empty services."""

from __future__ import annotations

import psycopg
import pytest
import redis
from neo4j import GraphDatabase


@pytest.fixture(scope="module")
def table(postgres_url: str) -> str:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE mine (n integer)")
    return "mine"


def test_the_database_is_migrated(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT name FROM leadml.migrations")


def test_the_database_belongs_to_the_whole_module(postgres_url: str, table: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (1)")


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_empty_for_each_test(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set(f"key {turn}", "value")


@pytest.mark.parametrize("turn", [1, 2])
def test_the_graph_is_empty_for_each_test(
    graph_settings: tuple[str, str, str, str], turn: int
) -> None:
    uri, user, password, database = graph_settings
    with GraphDatabase.driver(uri, auth=(user, password)) as driver:
        records, _, _ = driver.execute_query("MATCH (n) RETURN count(n)", database_=database)
        assert records[0][0] == 0
        driver.execute_query(
            "UNWIND range(1, 100) AS i CREATE (:Lead {turn: $turn})-[:REFERRED]->(:Lead)",
            turn=turn,
            database_=database,
        )
