from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

from leadml_pipelines.postgres import connect, migrate
from leadml_pipelines.sources.contract import EXTRACT_TABLES, TABLES
from leadml_pipelines_tests.sources.builders import rows


def execute(url: str, statement: str) -> None:
    with connect(url) as connection:
        connection.execute(statement.encode())


def test_a_lead_that_is_inserted_has_a_version_from_its_creation_on(crm: str) -> None:
    execute(
        crm,
        "INSERT INTO crm.leads (lead_id, created_at, source, updated_at)"
        " VALUES ('a', '2024-01-01+00', 'web', '2024-02-01+00')",
    )

    (version,) = rows(crm, "lead_versions")
    assert version["valid_from"].isoformat() == "2024-01-01T00:00:00+00:00"


def test_a_change_makes_a_version_from_its_updated_at_on(crm: str) -> None:
    test_a_lead_that_is_inserted_has_a_version_from_its_creation_on(crm)

    execute(crm, "UPDATE crm.leads SET source = 'fair', updated_at = '2024-03-01+00'")

    assert [(v["source"], v["valid_from"].month) for v in rows(crm, "lead_versions")] == [
        ("web", 1),
        ("fair", 3),
    ]


def test_a_change_that_left_updated_at_alone_is_dated_now_and_not_into_the_past(crm: str) -> None:
    test_a_lead_that_is_inserted_has_a_version_from_its_creation_on(crm)

    execute(crm, "UPDATE crm.leads SET source = 'fair'")

    with connect(crm) as connection:
        late = connection.execute(
            "SELECT count(*) FROM crm.lead_versions WHERE source = 'fair'"
            " AND valid_from > now() - interval '1 minute'"
        ).fetchone()
    assert late == (1,)


def test_an_update_that_changes_nothing_of_the_profile_makes_no_version(crm: str) -> None:
    test_a_lead_that_is_inserted_has_a_version_from_its_creation_on(crm)

    execute(crm, "UPDATE crm.leads SET updated_at = '2024-03-01+00'")

    assert len(rows(crm, "lead_versions")) == 1


@pytest.mark.parametrize("statement", ["DELETE FROM crm.leads", "TRUNCATE crm.leads"])
def test_a_lead_that_goes_takes_its_history_along(crm: str, statement: str) -> None:
    test_a_lead_that_is_inserted_has_a_version_from_its_creation_on(crm)

    execute(crm, statement)

    assert rows(crm, "lead_versions") == []


def test_the_tables_themselves_refuse_a_direction_that_is_none(crm: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        execute(
            crm,
            "INSERT INTO crm.lead_events (event_id, lead_id, event_type, channel, direction,"
            " occurred_at) VALUES ('e', 'l', 'x', 'y', 'sideways', now())",
        )


def test_migrating_beside_views_of_the_customers_leaves_the_views_alone(crm: str) -> None:
    database = urlsplit(crm).path.removeprefix("/")
    other = f"{database}_views"
    with connect(crm, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{other}" TEMPLATE template0'.encode())
        try:
            url = urlsplit(crm)._replace(path=f"/{other}").geturl()
            execute(
                url,
                "CREATE SCHEMA crm; CREATE VIEW crm.leads AS SELECT 'a'::text AS lead_id;"
                "CREATE VIEW crm.lead_events AS SELECT 'e'::text AS event_id",
            )

            migrate(url)

            assert rows(url, "leads", "1") == [{"lead_id": "a"}]
            assert rows(url, "policies") == []
        finally:
            connection.execute(f'DROP DATABASE "{other}" WITH (FORCE)'.encode())


@pytest.mark.parametrize("name", EXTRACT_TABLES)
def test_the_tables_have_the_columns_of_the_contract_in_their_order(crm: str, name: str) -> None:
    with connect(crm) as connection:
        description = connection.execute(f"SELECT * FROM crm.{name}".encode()).description or []

    assert tuple(column.name for column in description) == TABLES[name].names
