"""What is read is what was written, of the newest snapshot that is whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pandas as pd
import pytest

from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.newest import NoSnapshotError, latest_checked
from leadml_pipelines.features.snapshots.reading import query_of, read_latest
from leadml_pipelines.features.snapshots.writing import write_snapshot, write_view_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.features.snapshots.things import (
    BODY,
    MIND,
    THINGS,
    body,
    mind,
    versions,
    whole,
    writers_seen,
)
from leadml_pipelines_tests.features.world import NOW


def test_what_was_written_is_read_back_to_the_bit_with_its_types(postgres_url: str) -> None:
    assert whole(postgres_url)
    snapshot = read_latest(postgres_url, "thing", catalogue=THINGS)
    expected = body().merge(mind(), on=["entity_id", "as_of"])
    pd.testing.assert_frame_equal(snapshot.frame, expected, check_exact=True)
    assert snapshot.as_of == NOW


def test_only_the_entities_asked_for_are_read(postgres_url: str) -> None:
    whole(postgres_url)
    frame = read_latest(postgres_url, "thing", ["b", "unknown"], catalogue=THINGS).frame
    assert list(frame["entity_id"]) == ["b"]


def test_without_a_checked_snapshot_the_reader_is_told_what_to_do(postgres_url: str) -> None:
    write_view_snapshot(postgres_url, BODY, body(), NOW)
    assert latest_checked(postgres_url, "thing") is None
    with pytest.raises(NoSnapshotError, match="no snapshot of thing features has passed"):
        read_latest(postgres_url, "thing", catalogue=THINGS)


def test_a_snapshot_of_a_past_day_does_not_become_the_latest(postgres_url: str) -> None:
    assert whole(postgres_url)
    assert whole(postgres_url, NOW - timedelta(days=3))
    assert read_latest(postgres_url, "thing", catalogue=THINGS).as_of == NOW


@pytest.mark.parametrize("together", [True, False])
def test_readers_of_the_latest_never_see_half_a_snapshot(postgres_url: str, together: bool) -> None:
    """Whether its views are written together or one by one; meanwhile the one before is read."""
    before = NOW - timedelta(days=1)
    frame = versions(0).assign(as_of=pd.Timestamp(before))
    write_snapshot(postgres_url, [BODY, MIND], frame, before)
    assert check_snapshot(postgres_url, THINGS, "thing", before).sound
    done = threading.Event()

    def rewrite() -> None:
        try:
            for number in range(1, 16):
                values = versions(number)
                if together:
                    write_snapshot(postgres_url, [BODY, MIND], values, NOW)
                else:
                    write_view_snapshot(postgres_url, BODY, values, NOW)
                    write_view_snapshot(postgres_url, MIND, values, NOW)
                assert check_snapshot(postgres_url, THINGS, "thing", NOW).sound
        finally:
            done.set()

    def read() -> set[datetime]:
        seen = set()
        with connect(postgres_url, autocommit=True) as connection:
            newest = latest_checked(postgres_url, "thing")
            assert newest is not None
            query = query_of(connection, newest, catalogue=THINGS)
            while not done.is_set():
                for snapshot in (
                    read_latest(postgres_url, "thing", catalogue=THINGS),
                    query.read(connection, list(frame["entity_id"])),
                ):
                    assert len(writers_seen(snapshot.frame)) == 1
                    seen.add(snapshot.as_of)
        return seen

    with ThreadPoolExecutor(3) as pool:
        writer = pool.submit(rewrite)
        readers = [pool.submit(read) for _ in range(2)]
        writer.result()
        assert all(reader.result() <= {before, NOW} for reader in readers)
    assert writers_seen(read_latest(postgres_url, "thing", catalogue=THINGS).frame) == {"15"}


def test_a_query_of_a_snapshot_that_is_being_rewritten_reads_the_one_before(
    postgres_url: str,
) -> None:
    before = NOW - timedelta(days=1)
    assert whole(postgres_url, before)
    assert whole(postgres_url)
    newest = latest_checked(postgres_url, "thing")
    assert newest is not None
    with connect(postgres_url, autocommit=True) as connection:
        query = query_of(connection, newest, catalogue=THINGS)
        assert query.read(connection, ["a"]).as_of == NOW
        assert query.read(connection, ["nobody"]).frame.empty
        write_view_snapshot(postgres_url, BODY, body(height=9.0), NOW)
        found = query.read(connection, ["a"])
        assert found.as_of == before
        assert found.frame["height"].tolist() == [0.1 + 0.2]
        write_view_snapshot(postgres_url, BODY, body(before), before)
        with pytest.raises(NoSnapshotError):
            query.read(connection, ["a"])
