"""Publication as an asset, while events are posted."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pandas as pd
import pytest

from leadml_pipelines.assets.online import online_assets
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.snapshots import reading
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.resources.connections import PostgresResource, RedisResource
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_frame


def test_an_event_that_is_posted_while_the_snapshot_is_read_is_not_published_over(
    postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data end at the snapshot's moment, so that `as_of` does not tell before from after."""
    as_of = utc_now() - timedelta(days=90)
    frame = lead_frame(["lead_0", "lead_1"])
    frame["as_of"] = pd.Series([as_of] * len(frame), dtype="datetime64[us, UTC]")
    for view in catalogue().views("lead"):
        write_view_snapshot(postgres_url, view, frame, as_of)
    assert check_snapshot(postgres_url, catalogue(), "lead", as_of).sound
    store = OnlineStore(redis_url)
    read_latest = reading.read_latest

    def read(url: str, entity: str) -> reading.Snapshot:
        found = read_latest(url, entity)
        store.invalidate("lead", ["lead_0"], as_of, utc_now())
        return found

    monkeypatch.setattr(reading, "read_latest", read)
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "redis": RedisResource(url=redis_url),
    }
    assert dg.materialize([online_assets[0]], resources=resources).success
    assert store.read_batch("lead", ["lead_0", "lead_1"]).missing() == [0]
    store.close()
