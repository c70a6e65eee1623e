"""Lookups in PostgreSQL: few connections, each used again, and always the newest snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pandas as pd
import psycopg
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.reading import read_latest
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import connections, lookup
from leadml_pipelines.serving.connections import PostgresUnavailableError
from leadml_pipelines.serving.lookup import SnapshotReader
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_frame

IDS = [f"lead_{i}" for i in range(30)]
NOW = utc_now() - timedelta(hours=1)


def _write(url: str, as_of: datetime, seed: int = 1) -> None:
    frame = lead_frame(IDS, seed)
    frame["as_of"] = pd.Series([as_of] * len(frame), dtype="datetime64[us, UTC]")
    for view in catalogue().views("lead"):
        write_view_snapshot(url, view, frame, as_of)
    assert check_snapshot(url, catalogue(), "lead", as_of).sound


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    _write(postgres_url, NOW)
    return postgres_url


@pytest.fixture
def reader(url: str) -> Iterator[SnapshotReader]:
    reader = SnapshotReader(url)
    yield reader
    reader.close()


def test_rows_are_those_of_the_bulk_reader(url: str, reader: SnapshotReader) -> None:
    ids = ["lead_3", "nobody", "lead_20"]
    bulk, few = read_latest(url, "lead", ids), reader("lead", ids)
    pd.testing.assert_frame_equal(few.frame, bulk.frame)
    assert (few.snapshot_id, few.as_of) == (bulk.snapshot_id, bulk.as_of)


def test_nobody_known_is_an_empty_frame_with_all_columns(url: str, reader: SnapshotReader) -> None:
    ids = ["nobody"]
    assert list(reader("lead", ids).frame.columns) == list(read_latest(url, "lead", ids).frame)


def test_lookups_one_after_the_other_share_a_connection(
    reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(url: str, **options: object) -> psycopg.Connection[object]:
        opened.append(url)
        return connect(url, **options)

    monkeypatch.setattr(connections, "connect", counted)
    for entity_id in IDS[:5]:
        assert reader("lead", [entity_id]).frame["entity_id"].tolist() == [entity_id]
    assert len(opened) == 1


def test_connections_that_the_server_closed_are_opened_again(
    url: str, reader: SnapshotReader
) -> None:
    reader("lead", ["lead_1"])
    with connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert reader("lead", ["lead_1"]).frame["entity_id"].tolist() == ["lead_1"]


def test_newer_snapshot_is_seen_after_a_second(url: str, reader: SnapshotReader) -> None:
    before = reader("lead", ["lead_1"]).as_of
    _write(url, before + timedelta(minutes=1), seed=2)
    time.sleep(lookup.NEWEST_FOR)
    after = reader("lead", ["lead_1"])
    assert after.as_of == before + timedelta(minutes=1)
    pd.testing.assert_frame_equal(after.frame, read_latest(url, "lead", ["lead_1"]).frame)


def test_server_that_is_away_is_named_by_the_kind_of_its_error() -> None:
    reader = SnapshotReader("postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(PostgresUnavailableError, match=r"^[A-Za-z]+$"):
        reader("lead", ["lead_1"])
