"""Online equals offline, bit for bit: after publication, on a miss, after an update or correction.

Offline is the bulk engine over files of the same rows, as of the moment that the value names.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.online.changed import changed_since
from leadml_pipelines.online.format import Matrix, Schema
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.values import check
from leadml_pipelines.postgres import arrow_connection, connect
from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import from_micros, utc_now
from leadml_pipelines_tests.features.world import SCHEMAS, spine
from leadml_pipelines_tests.online.frames import lead_features
from leadml_pipelines_tests.serving.offline import event, load_leads

IDS = [f"lead_{i}" for i in range(40)]
ENTITIES = {"lead": IDS, "agent": ["a", "b", "idle"]}


@pytest.fixture
def online(redis_url: str, postgres_url: str, home: Path) -> Iterator[OnlineFeatures]:
    load_leads(postgres_url, seed=11)
    settings = Settings(home=home, redis_url=redis_url, postgres_url=postgres_url)
    with OnlineFeatures(settings) as online:
        yield online


class Offline:
    """The bulk engine over a fresh extract of the database."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._taken = 0

    def frame(self, moments: dict[str, datetime], entity: str = "lead") -> pd.DataFrame:
        """Features of entities, each as of its moment."""
        self._taken += 1
        folder = self._folder / str(self._taken)
        folder.mkdir(parents=True)
        paths = {}
        with arrow_connection(self._url) as connection, connection.cursor() as cursor:
            for name, columns in SCHEMAS.items():
                schema = "leadml" if name == "graph_metrics" else "crm"
                chosen = ", ".join(
                    f"{c}::text" if c in ("attributes", "properties") else c
                    for c in columns
                    if c not in ("value", "annual_premium")
                )
                money = [c for c in ("value", "annual_premium") if c in columns]
                chosen += "".join(f", {c}::text" for c in money)
                cursor.execute(f"SELECT {chosen} FROM {schema}.{name}")
                table = cursor.fetch_arrow_table()
                for c in money:
                    at = table.column_names.index(c)
                    numbers = [None if v is None else Decimal(v) for v in table[c].to_pylist()]
                    table = table.set_column(at, c, [_decimals(numbers, columns[c])])
                paths[name] = folder / f"{name}.parquet"
                pq.write_table(table, paths[name])
        with DuckDBEngine(paths, threads=1) as engine:
            return engine.compute(catalogue().views(entity), spine(*moments.items()))


def _decimals(numbers: list[Decimal | None], kind: Any) -> Any:
    import pyarrow as pa

    return pa.array(numbers, kind)


@pytest.fixture
def offline(postgres_url: str, tmp_path: Path) -> Offline:
    return Offline(postgres_url, tmp_path / "extracts")


def _online_values(
    online: OnlineFeatures, source: str, entity: str
) -> tuple[Schema, Matrix, dict[str, datetime]]:
    """The numbers of all leads or agents in one schema, and the moment of each."""
    found = online.reader.read(entity, ENTITIES[entity])
    assert set(found.sources) == {source}
    widest = max((g.schema for g in found.batch.groups), key=lambda s: sum(map(len, s.codes)))
    words = {field.name: field.vocabulary for field in widest.fields if field.type == "category"}
    as_of = found.batch.as_of().tolist()
    moments = {i: from_micros(at) for i, at in zip(ENTITIES[entity], as_of, strict=True)}
    return widest, found.batch.matrix(widest.names, words), moments


def _assert_equal_bits(
    online: OnlineFeatures, offline: Offline, source: str, entity: str = "lead"
) -> None:
    schema, values, moments = _online_values(online, source, entity)
    checked = check(schema, catalogue().features(entity), offline.frame(moments, entity))
    assert np.isnan(values).any()
    different = values.view(np.uint64) != checked.values.view(np.uint64)
    different &= ~(np.isnan(values) & np.isnan(checked.values))
    assert [schema.names[at] for at in np.flatnonzero(different.any(axis=0))] == []


@pytest.mark.parametrize("entity", ENTITIES)
def test_a_miss_equals_offline(online: OnlineFeatures, offline: Offline, entity: str) -> None:
    _assert_equal_bits(online, offline, "computed", entity)
    _assert_equal_bits(online, offline, "cache", entity)


@pytest.mark.parametrize("entity", ENTITIES)
def test_a_hit_after_publication_equals_offline(
    online: OnlineFeatures, offline: Offline, entity: str
) -> None:
    as_of = utc_now()
    frame = offline.frame(dict.fromkeys(ENTITIES[entity], as_of), entity)
    publish_snapshot(online.store, entity, catalogue().features(entity), frame, as_of)
    _assert_equal_bits(online, offline, "cache", entity)


def test_an_event_of_an_agent_is_seen_in_the_agents_next_read(
    online: OnlineFeatures, offline: Offline
) -> None:
    online.get("agent", ENTITIES["agent"])
    now = utc_now()
    online.post([event(f"by-{i}", "lead_1", now, agent_id=i) for i in ENTITIES["agent"]])
    _assert_equal_bits(online, offline, "computed", "agent")
    (idle,) = online.get("agent", ["idle"], ["worked_event_count_7d"])
    assert idle.features == {"worked_event_count_7d": 1}


def test_an_agent_who_is_not_hired_yet_is_unknown(
    online: OnlineFeatures, postgres_url: str
) -> None:
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE crm.agents SET hired_at = now() + interval '1 day' WHERE agent_id = 'unborn'"
        )
    assert online.get("agent", ["unborn"])[0].status == "unknown"


def test_an_update_by_an_event_equals_offline(online: OnlineFeatures, offline: Offline) -> None:
    online.get("lead", IDS)
    now = utc_now()
    online.post([event(f"new-{i}", i, now, value=0.1) for i in IDS])
    online.post([event(f"old-{i}", i, now - timedelta(days=20), value="0.7") for i in IDS])
    _assert_equal_bits(online, offline, "computed")
    _assert_equal_bits(online, offline, "cache")


def test_a_snapshot_of_before_an_event_is_not_published_over_what_has_expired(
    online: OnlineFeatures, offline: Offline, postgres_url: str
) -> None:
    """The event's value has left Redis again when the snapshot comes, late."""
    as_of = utc_now()
    old = offline.frame(dict.fromkeys(IDS, as_of))
    online.post([event("since", "lead_7", utc_now())])
    online.get("lead", IDS)
    online.store.forget("lead", IDS)
    changed = changed_since(postgres_url, "lead", as_of)
    assert changed == {"lead_7"}
    publish_snapshot(online.store, "lead", lead_features(), old, as_of, leave_out=changed)
    sources = [entity.source for entity in online.get("lead", ["lead_6", "lead_7"])]
    assert sources == ["cache", "computed"]
    assert changed_since(postgres_url, "lead", utc_now() + timedelta(minutes=6)) == set()


def test_a_snapshot_that_an_event_was_too_early_for_is_not_published_over_it(
    online: OnlineFeatures, postgres_url: str
) -> None:
    """The event was posted before the snapshot's moment, and dated after it."""
    now = utc_now()
    online.post([event("tomorrow", "lead_7", now + timedelta(hours=2))])
    assert changed_since(postgres_url, "lead", now + timedelta(hours=1)) == {"lead_7"}


def test_an_older_write_loses_and_a_correction_ends_equal_to_offline(
    online: OnlineFeatures, offline: Offline
) -> None:
    """Of one event time, what became known later: seen online as it is offline, and kept."""
    happened = utc_now() - timedelta(hours=1)
    online.post([event(f"first-{i}", i, happened, value=10) for i in IDS])
    as_of = utc_now()
    old = offline.frame(dict.fromkeys(IDS, as_of))
    online.get("lead", IDS)
    online.post([event(f"correction-{i}", i, happened, value=-3) for i in IDS])
    online.get("lead", IDS)
    late = publish_snapshot(online.store, "lead", lead_features(), old, as_of)
    assert (late.written, late.kept_newer) == (0, len(IDS))
    _assert_equal_bits(online, offline, "cache")
