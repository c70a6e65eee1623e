"""Extracts from a customer's own tables and views."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from leadml_pipelines.postgres import connect, migrate
from leadml_pipelines.sources.contract import EXTRACT_TABLES
from leadml_pipelines.sources.door import Door
from leadml_pipelines.sources.extract import NoHistoryError, extract_sources
from leadml_pipelines.sources.quarantine import count_by_reason, list_rows
from leadml_pipelines_tests.sources.builders import leads, rows


def read(path: Path) -> list[dict[str, object]]:
    table: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return table


@contextmanager
def database_beside(url: str) -> Iterator[str]:
    """URL of another database on the same server, not migrated yet."""
    name = f"leadml_beside_{secrets.token_hex(4)}"
    with connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def sold(crm: str) -> str:
    """A schema `sold` with a customer's views, over tables of theirs that hold some dirt."""
    with connect(crm) as connection:
        connection.execute("DROP SCHEMA IF EXISTS sold CASCADE")
        connection.execute("CREATE SCHEMA sold")
        for name in EXTRACT_TABLES:
            if name not in ("leads", "lead_events"):
                connection.execute(
                    f"CREATE TABLE sold.{name} (LIKE crm.{name} INCLUDING ALL)".encode()
                )
        connection.execute(
            "CREATE TABLE sold.customer AS SELECT * FROM (VALUES"
            " ('a', timestamptz '2024-01-01+00', 'web', 30),"
            " ('b', '2024-01-01+00', 'web', -5),"
            " ('c', '1970-01-01+00', 'web', 40)) t (id, since, via, age)"
        )
        connection.execute(
            "CREATE VIEW sold.leads AS SELECT id AS lead_id, since AS created_at, via AS source,"
            " null::text AS campaign_id, null::text AS product_interest, null::text AS state,"
            " null::text AS household_id, jsonb_build_object('age', age) AS attributes,"
            " since AS updated_at FROM sold.customer"
        )
        connection.execute(
            "CREATE VIEW sold.lead_events AS SELECT e AS event_id, l AS lead_id,"
            " 'note' AS event_type, c AS channel, 'internal' AS direction,"
            " null::text AS agent_id, 1.5::float8 AS value, '{}'::jsonb AS properties,"
            " timestamptz '2024-01-02+00' AS occurred_at, null::timestamptz AS ingested_at"
            " FROM (VALUES ('1', 'a', 'x'), ('1', 'a', 'x'), ('2', 'nobody', 'x'),"
            " ('3', 'a', 'x'), ('3', 'a', 'y'), ('4', 'a', null)) t (e, l, c)"
        )
    return crm


def test_rows_of_a_view_that_break_the_contract_are_left_out_and_quarantined(
    sold: str, tmp_path: Path
) -> None:
    extract = extract_sources(sold, tmp_path, schema="sold")

    assert [row["lead_id"] for row in read(extract.table("leads"))] == ["a"]
    assert sorted(str(row["event_id"]) for row in read(extract.table("lead_events"))) == ["1", "3"]
    assert {name: count for name, count in extract.left_out.items() if count} == {
        "leads": 2,
        "lead_events": 3,
        "lead_versions": 2,
    }
    assert count_by_reason(sold) == {
        "lead_versions": {"impossible_time": 1, "wrong_type": 1},
        "lead_events": {"duplicate_key": 1, "missing_value": 1, "unknown_lead": 1},
        "leads": {"impossible_time": 1, "wrong_type": 1},
    }
    assert list_rows(sold)[0].origin == "view sold.leads"


def test_a_view_is_extracted_twice_with_its_dirt_kept_once(sold: str, tmp_path: Path) -> None:
    extract_sources(sold, tmp_path, schema="sold")
    counts = count_by_reason(sold)

    extract_sources(sold, tmp_path, schema="sold")

    assert count_by_reason(sold) == counts


def test_what_changes_in_a_view_of_leads_enters_their_history(sold: str, tmp_path: Path) -> None:
    extract_sources(sold, tmp_path, schema="sold")
    with connect(sold) as connection:
        connection.execute("UPDATE sold.customer SET via = 'fair' WHERE id = 'a'")

    extract = extract_sources(sold, tmp_path, schema="sold")

    history = [row for row in read(extract.table("lead_versions")) if row["lead_id"] == "a"]
    assert [row["source"] for row in sorted(history, key=lambda row: str(row["valid_from"]))] == [
        "web",
        "fair",
    ]
    assert len(rows(sold, "lead_versions", schema="sold")) == 4


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("table", "CREATE TABLE {n} AS {q}"),
        ("materialized view", "CREATE MATERIALIZED VIEW {n} AS {q}"),
        (
            "partitioned table",
            "CREATE TABLE {n} (LIKE crm.closures) PARTITION BY HASH (lead_id);"
            " CREATE TABLE {n}_0 PARTITION OF {n} FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
            " ALTER TABLE {n} ALTER reason DROP NOT NULL; INSERT INTO {n} {q}",
        ),
    ],
)
def test_rows_of_any_relation_of_the_customers_are_judged(
    sold: str, tmp_path: Path, kind: str, definition: str
) -> None:
    rows_of_theirs = (
        "SELECT 'a'::text AS lead_id, at AS closed_at, why AS reason FROM (VALUES"
        " (timestamptz '2024-02-01+00', 'lost'), ('2024-03-01+00', null)) t (at, why)"
    )
    with connect(sold) as connection:
        connection.execute("DROP TABLE sold.closures")
        create = definition.format(n="sold.closures", q=rows_of_theirs)
        connection.execute(create.encode())

    extract = extract_sources(sold, tmp_path, schema="sold")

    assert [row["reason"] for row in read(extract.table("closures"))] == ["lost"]
    (refused,) = list_rows(sold, table="closures")
    assert (refused.reason, refused.origin) == ("missing_value", f"{kind} sold.closures")


def test_rows_of_our_own_tables_are_not_judged_again(crm: str, tmp_path: Path) -> None:
    Door(crm).admit("leads", leads("a"), "test")

    assert extract_sources(crm, tmp_path).left_out == {}


def test_a_table_of_the_customers_that_was_there_first_is_judged_and_gets_a_history(
    crm: str, tmp_path: Path
) -> None:
    with database_beside(crm) as url:
        with connect(url) as connection:
            connection.execute(
                "CREATE SCHEMA crm; CREATE TABLE crm.leads (lead_id text, created_at timestamptz,"
                " source text, campaign_id text, product_interest text, state text,"
                " household_id text, attributes jsonb, updated_at timestamptz)"
            )
        migrate(url)
        with connect(url) as connection:
            connection.execute(
                "INSERT INTO crm.leads (lead_id, created_at, source)"
                " VALUES ('a', '2024-01-01+00', 'web'), ('b', '2024-01-01+00', null)"
            )
        first = extract_sources(url, tmp_path)
        with connect(url) as connection:
            connection.execute("UPDATE crm.leads SET source = 'fair' WHERE lead_id = 'a'")

        second = extract_sources(url, tmp_path)

        assert [row["lead_id"] for row in read(first.table("leads"))] == ["a"]
        assert first.left_out["leads"] == 1
        assert [row["valid_from"].year for row in read(first.table("lead_versions"))] == [2024]
        assert {row["source"] for row in read(second.table("lead_versions"))} == {"web", "fair"}


def test_leads_without_any_history_are_an_error_that_says_what_to_create(
    sold: str, tmp_path: Path
) -> None:
    with connect(sold) as connection:
        connection.execute(
            "DROP TABLE sold.lead_versions;"
            " CREATE VIEW sold.lead_versions AS SELECT * FROM crm.lead_versions WHERE false"
        )

    with pytest.raises(NoHistoryError, match=r"CREATE VIEW sold\.lead_versions AS SELECT") as error:
        extract_sources(sold, tmp_path, schema="sold")
    view = "CREATE VIEW" + str(error.value).rpartition("CREATE VIEW")[2]
    with connect(sold) as connection:
        connection.execute(f"DROP VIEW sold.lead_versions; {view}".encode())

    assert extract_sources(sold, tmp_path, schema="sold").rows["lead_versions"] == 1


def test_a_table_that_took_the_name_of_ours_is_judged(crm: str, tmp_path: Path) -> None:
    with database_beside(crm) as url:
        migrate(url)
        with connect(url) as connection:
            connection.execute(
                "ALTER TABLE crm.agents RENAME TO agents_before;"
                " CREATE TABLE crm.agents AS SELECT * FROM crm.agents_before;"
                " INSERT INTO crm.agents (agent_id, capacity) VALUES ('x', -1)"
            )

        assert extract_sources(url, tmp_path).left_out == {"agents": 1}


def test_a_lead_that_cannot_be_read_goes_to_the_quarantine_and_stops_nothing(
    sold: str, tmp_path: Path
) -> None:
    with connect(sold) as connection:
        connection.execute(
            "DROP VIEW sold.leads; CREATE VIEW sold.leads AS SELECT id AS lead_id,"
            " since AS created_at, 'web' AS source, null AS campaign_id, null AS product_interest,"
            " null AS state, null AS household_id, more AS attributes, since AS updated_at"
            " FROM (VALUES ('a', '2024-01-01T00:00:00Z', '{}'), ('b', '2024-01-01T00:00:00Z', '{'),"
            " ('c', 'yesterday or so', '{}')) t (id, since, more)"
        )

    extract = extract_sources(sold, tmp_path, schema="sold")

    assert [row["lead_id"] for row in read(extract.table("leads"))] == ["a"]
    assert [row["lead_id"] for row in read(extract.table("lead_versions"))] == ["a"]
    assert {row.row["lead_id"] for row in list_rows(sold, table="leads")} == {"b", "c"}


def test_a_history_in_text_columns_is_compared_with_what_it_means(
    sold: str, tmp_path: Path
) -> None:
    with connect(sold) as connection:
        connection.execute(
            "DROP TABLE sold.lead_versions; CREATE TABLE sold.lead_versions (lead_id text,"
            " valid_from timestamptz, source text, campaign_id text, product_interest text,"
            " state text, household_id text, attributes text)"
        )

    for _ in range(2):
        extract = extract_sources(sold, tmp_path, schema="sold")

    assert extract.rows["lead_versions"] == 1


def test_a_source_that_is_missing_is_an_error_that_says_what_to_create(
    sold: str, tmp_path: Path
) -> None:
    with connect(sold) as connection:
        connection.execute("DROP TABLE sold.referrals")

    with pytest.raises(LookupError, match=r"no table or view sold\.referrals; create one"):
        extract_sources(sold, tmp_path, schema="sold")


def test_a_column_that_is_missing_is_an_error_that_names_it(sold: str, tmp_path: Path) -> None:
    with connect(sold) as connection:
        connection.execute("ALTER TABLE sold.policies DROP COLUMN product")

    with pytest.raises(LookupError, match=r"sold\.policies has no column product"):
        extract_sources(sold, tmp_path, schema="sold")
