"""Computing as of the present: who exists, as of when, with which values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.entity_types import UnknownEntityTypeError
from leadml_pipelines.features.postgres_engine import SESSION, PostgresEngine, PresentQuery
from leadml_pipelines.features.present import present_sql
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.ones import ones
from leadml_pipelines_tests.features.world import random_world
from leadml_pipelines_tests.tables import empty_tables

VIEWS = catalogue().views("lead")


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    random_world(4, leads=25).load(postgres_url)
    with connect(postgres_url, autocommit=True) as admin:
        empty_tables(admin, "leadml.feature_snapshots", "leadml.data_clock", "crm.agents")
    with connect(postgres_url, autocommit=True) as connection:
        for statement in SESSION:
            connection.execute(statement.encode())
        yield connection


def _clock(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def test_values_are_those_of_the_engine_as_of_the_moment_they_name(
    connection: psycopg.Connection[Any], postgres_url: str
) -> None:
    ids = [f"lead_{i}" for i in range(25)]
    before = _clock(connection)
    found = list(PresentQuery("lead").rows(connection, [*ids, "nobody"]))
    after = _clock(connection)
    assert sorted(row.entity_id for row in found) == sorted(ids)
    assert all(before <= row.as_of == row.computed_at <= after for row in found)
    with PostgresEngine(postgres_url) as engine:
        for row in found[::5]:
            assert row.values == engine.rows(VIEWS, [row.entity_id], row.as_of)[row.entity_id]


def test_a_lead_of_which_only_events_are_known_does_not_exist(
    connection: psycopg.Connection[Any],
) -> None:
    """`nobody` has events in the random world, and no row of its own."""
    assert list(PresentQuery("lead").rows(connection, ["nobody"])) == []


def test_an_agent_exists_from_its_hiring_on_or_always_where_that_is_not_told(
    connection: psycopg.Connection[Any], postgres_url: str
) -> None:
    with connect(postgres_url) as admin:
        admin.execute(
            "INSERT INTO crm.agents (agent_id, hired_at) VALUES ('old', now() - interval '1 day'), "
            "('always', NULL), ('next week', now() + interval '7 days')"
        )
    query = PresentQuery("agent", catalogue=ones())
    found = list(query.rows(connection, ["old", "always", "next week", "nobody"]))
    assert sorted((row.entity_id, row.values) for row in found) == [("always", (1,)), ("old", (1,))]


def test_what_was_committed_before_is_seen_and_dated_before(
    connection: psycopg.Connection[Any], postgres_url: str
) -> None:
    query = PresentQuery("lead")
    at = [feature.name for feature in query.features].index("event_count_total")
    (before,) = query.rows(connection, ["lead_0"])
    with connect(postgres_url) as writer:
        writer.execute(
            "INSERT INTO crm.lead_events (event_id, lead_id, event_type, channel, direction, "
            "occurred_at, ingested_at) VALUES ('new', 'lead_0', 'note', 'other', 'internal', "
            "clock_timestamp(), clock_timestamp())"
        )
    committed = _clock(connection)
    (after,) = query.rows(connection, ["lead_0"])
    assert after.as_of >= committed
    assert after.values[at] == int(before.values[at] or 0) + 1


def test_by_the_clock_of_the_data_the_present_is_the_newest_snapshot_or_a_later_event(
    connection: psycopg.Connection[Any], postgres_url: str
) -> None:
    query = PresentQuery("lead", clock="data")
    now = _clock(connection)
    snapshot, event = now - timedelta(days=100), now - timedelta(days=90)

    def present() -> datetime:
        return next(iter(query.rows(connection, ["lead_0"]))).as_of

    with connect(postgres_url, autocommit=True) as admin:
        admin.execute("UPDATE crm.leads SET created_at = '2020-01-01'")
        assert present() >= now
        admin.execute(
            "INSERT INTO leadml.feature_snapshots (snapshot_id, entity, as_of, rows, checked_at) "
            "VALUES ('s', 'lead', %s, 1, now()), ('unchecked', 'lead', %s, 1, NULL)",
            (snapshot, now),
        )
        assert present() == snapshot
        admin.execute("INSERT INTO leadml.data_clock (newest) VALUES (%s)", (event,))
        assert present() == event
        admin.execute("UPDATE leadml.data_clock SET newest = now() + interval '1 day'")
        assert present() <= _clock(connection)


def test_an_unknown_entity_type_and_a_strange_schema_are_refused() -> None:
    with pytest.raises(UnknownEntityTypeError, match="house"):
        present_sql("now", "house")
    with pytest.raises(ValueError, match="lower-case"):
        PresentQuery("lead", 'crm"; DROP SCHEMA crm; --')
