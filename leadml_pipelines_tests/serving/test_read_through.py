"""What Redis lacks is computed in PostgreSQL at once: real servers, in process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from pydantic import SecretStr

from leadml_pipelines.features.catalogue import Catalogue, UnknownFeatureError, catalogue
from leadml_pipelines.features.functions import Count, function_view
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.online.keys import EntityIdError
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving import read_through
from leadml_pipelines.serving.errors import ApiError
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.online_features import Entity, OnlineFeatures
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import to_micros, utc_now
from leadml_pipelines_tests.features.ones import ones
from leadml_pipelines_tests.online.frames import expected, lead_features, lead_frame
from leadml_pipelines_tests.serving.conftest import NOBODY_LISTENS, wait_for
from leadml_pipelines_tests.serving.offline import load_leads, row_of

IDS = [f"lead_{i}" for i in range(40)]

pytestmark = pytest.mark.usefixtures("compiled")

Opened = Callable[..., OnlineFeatures]


@pytest.fixture
def online_settings(redis_url: str, postgres_url: str, home: Path) -> Settings:
    """Settings of real servers; PostgreSQL knows forty leads, Redis nothing."""
    load_leads(postgres_url)
    return Settings(home=home, redis_url=redis_url, postgres_url=postgres_url)


@pytest.fixture
def opened(online_settings: Settings) -> Iterator[Opened]:
    """Opens the online features over these settings, or changed ones; closed with the test."""
    with ExitStack() as stack:

        def open_(
            metrics: Metrics | None = None, views: Catalogue | None = None, **changes: Any
        ) -> OnlineFeatures:
            settings = online_settings.model_copy(update=changes)
            return stack.enter_context(OnlineFeatures(settings, metrics, views=views))

        yield open_


def _sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_missing_lead_is_computed_as_of_now_and_written_back(
    opened: Opened, postgres_url: str
) -> None:
    online = opened()
    before = utc_now()
    (first,) = online.get("lead", ["lead_3"])
    (second,) = online.get("lead", ["lead_3"])
    assert (first.status, first.source, second.source) == ("present", "computed", "cache")
    assert first.as_of is not None
    assert abs(first.as_of - before) < timedelta(seconds=30)
    assert first.features == second.features == row_of(postgres_url, "lead_3", first.as_of)
    assert second.as_of == first.as_of


def test_a_thousand_and_one_ids_are_split_and_answered_in_their_order(opened: Opened) -> None:
    ids = [*IDS, "nobody"] * 25
    online = opened()
    answered = online.get("lead", ids[:1001], ["lead_age_days"])
    assert [entity.entity_id for entity in answered] == ids[:1001]
    assert {e.source for e in answered} == {"computed", None}
    assert {e.source for e in online.get("lead", ids[:1001])} == {"cache", None}


@pytest.fixture
def slow_agents(postgres_url: str) -> str:
    """A schema in which each look at an agent takes a quarter of a second; of forty agents."""
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO crm.agents (agent_id) SELECT 'agent_' || i FROM generate_series(0, 39) i "
            "ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "DROP SCHEMA IF EXISTS slow CASCADE; CREATE SCHEMA slow; CREATE VIEW slow.agents AS "
            "SELECT a.* FROM (SELECT pg_sleep(0.25)) s CROSS JOIN crm.agents a"
        )
    return "slow"


def test_a_read_that_takes_too_long_ends_and_the_next_one_goes_on_from_there(
    opened: Opened, slow_agents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No single statement is too slow; all of them together are."""
    monkeypatch.setattr(read_through, "COMPUTING_SECONDS", 0.4)
    monkeypatch.setattr(read_through, "TOGETHER", 10)
    online = opened(views=ones(), crm_schema=slow_agents)
    ids = [f"agent_{at}" for at in range(40)]
    reasons = []

    def answered() -> list[Entity] | None:
        try:
            return online.get("agent", ids)
        except ApiError as error:
            reasons.append(str(error))
            return None

    found = wait_for(answered)
    assert "PostgreSQL can neither compute them" in reasons[0]
    assert {entity.status for entity in found} == {"present"}


def test_unknown_and_not_yet_created_leads_are_unknown_and_take_no_key(
    opened: Opened, postgres_url: str
) -> None:
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO crm.leads (lead_id, created_at, source) "
            "VALUES ('tomorrow', now() + interval '1 day', 'web')"
        )
    online = opened()
    known, nobody, tomorrow = online.get("lead", ["lead_0", "nobody", "tomorrow"])
    assert (known.status, nobody.status, tomorrow.status) == ("present", "unknown", "unknown")
    assert nobody.features is nobody.as_of is nobody.source is None
    assert not online.store._redis.exists("leadml:lead:nobody", "leadml:lead:tomorrow")


def test_null_is_told_apart_from_unknown(opened: Opened) -> None:
    (lead,) = opened().get("lead", ["lead_0"])
    assert lead.features is not None
    assert None in lead.features.values()


def test_an_id_that_can_be_no_key_and_an_unknown_feature_are_refused(opened: Opened) -> None:
    online = opened()
    with pytest.raises(EntityIdError, match="control"):
        online.get("lead", ["a\n"])
    with pytest.raises(UnknownFeatureError, match="qualty_score; did you mean quality_score"):
        online.get("lead", ["lead_0"], ["qualty_score"])


def test_an_invalidated_lead_is_computed_again_and_is_newer(opened: Opened) -> None:
    metrics = Metrics()
    online = opened(metrics)
    online.get("lead", ["lead_0"])
    moment = utc_now()
    online.store.invalidate("lead", ["lead_0"], moment)
    (lead,) = online.get("lead", ["lead_0"])
    assert lead.source == "computed"
    assert lead.as_of is not None
    assert lead.as_of >= moment
    name = "leadml_online_computed_entities_total"
    assert _sample(metrics, name, reason="invalidated") == 1
    assert _sample(metrics, name, reason="missing") == 1


def _publish_old(online: OnlineFeatures, *ids: str, days: float = 2) -> pd.DataFrame:
    frame = lead_frame(ids)
    publish_snapshot(online.store, "lead", lead_features(), frame, utc_now() - timedelta(days=days))
    return frame


def test_a_stale_value_is_computed_anew(opened: Opened, postgres_url: str) -> None:
    metrics = Metrics()
    online = opened(metrics)
    _publish_old(online, "lead_1")
    fresh = online.get("lead", ["lead_1", "lead_1"])
    assert [(e.status, e.source) for e in fresh] == [("present", "computed")] * 2
    assert fresh[0].features == row_of(postgres_url, "lead_1", fresh[0].as_of or utc_now())
    assert online.get("lead", ["lead_1"])[0].source == "cache"
    assert _sample(metrics, "leadml_online_computed_entities_total", reason="stale") == 1
    assert _sample(metrics, "leadml_online_stale_share") == 0


def test_a_stale_value_that_cannot_be_computed_is_served_marked_and_counted(
    opened: Opened,
) -> None:
    metrics = Metrics()
    no_postgres = SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none")
    online = opened(metrics, postgres_url=no_postgres)
    frame = _publish_old(online, "lead_1")
    publish_snapshot(online.store, "lead", lead_features(), lead_frame(["lead_2"]), utc_now())
    old, new = online.get("lead", ["lead_1", "lead_2"])
    assert (old.status, old.source, new.status) == ("stale", "cache", "present")
    assert old.features == expected(frame, "lead_1")
    assert old.age_seconds == pytest.approx(2 * 86_400, abs=60)
    assert _sample(metrics, "leadml_online_stale_entities_total") == 1
    assert _sample(metrics, "leadml_online_stale_share") == 0.5


def test_a_stale_value_of_a_lead_that_was_erased_is_unknown(opened: Opened) -> None:
    online = opened()
    _publish_old(online, "erased", "lead_1")
    erased, lead = online.get("lead", ["erased", "lead_1"])
    assert (erased.status, lead.status) == ("unknown", "present")


def test_many_askers_of_a_missing_lead_wait_for_one_computation(
    opened: Opened, postgres_url: str
) -> None:
    metrics = Metrics()
    online = opened(metrics)
    online.prepare()
    statements: list[str] = []
    original = online.present.__call__

    def counted(entity_type: str, ids: Any, *rest: Any) -> Any:
        statements.extend(ids)
        return original(entity_type, ids, *rest)

    online.reader._read_through._present = counted  # type: ignore[assignment]
    counted.features = online.present.features  # type: ignore[attr-defined]
    waiting = online.reader._read_through._flights._under_way
    with connect(postgres_url) as connection, ThreadPoolExecutor(12) as pool:
        connection.execute("LOCK TABLE crm.leads IN ACCESS EXCLUSIVE MODE")
        asked = [pool.submit(online.get, "lead", ["lead_5"]) for _ in range(12)]
        wait_for(
            lambda: waiting and len(waiting["lead", "lead_5"].done._cond._waiters) == 11  # type: ignore[attr-defined]
        )
        connection.rollback()
        answers = [future.result()[0] for future in asked]
    assert statements == ["lead_5"]
    assert len({entity.as_of for entity in answers}) == 1
    assert {entity.status for entity in answers} == {"present"}


def test_who_saw_an_invalidation_does_not_take_a_computation_from_before_it(
    opened: Opened, postgres_url: str
) -> None:
    """The first computation looked at the tables before the event; its value must not be taken."""
    online = opened()
    online.prepare()
    original = online.present.__call__
    looked, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow_answer(entity_type: str, ids: Any, *rest: Any) -> Any:
        rows = original(entity_type, ids, *rest)
        calls.append(len(calls))
        if len(calls) == 1:
            looked.set()
            assert go.wait(10)
        return rows

    online.reader._read_through._present = slow_answer  # type: ignore[assignment]
    slow_answer.features = online.present.features  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(online.get, "lead", ["lead_6"], ["event_count_total"])
        assert looked.wait(10)
        (receipt,) = online.post([_view("late", "lead_6")])
        assert receipt.invalidated
        second = pool.submit(online.get, "lead", ["lead_6"], ["event_count_total"])
        flight = online.reader._read_through._flights._under_way["lead", "lead_6"]
        wait_for(lambda: flight.done._cond._waiters)  # type: ignore[attr-defined]
        go.set()
        before, after = (future.result()[0].features for future in (first, second))
    assert before is not None
    assert after == {"event_count_total": before["event_count_total"] + 1}
    (cached,) = online.get("lead", ["lead_6"], ["event_count_total"])
    assert (cached.source, cached.features) == ("cache", after)


def _view(event_id: str, lead_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "lead_id": lead_id,
        "event_type": "page_view",
        "channel": "web",
        "direction": "inbound",
        "occurred_at": utc_now(),
    }


def test_new_words_are_gathered_and_a_filled_redis_has_few_schemas(opened: Opened) -> None:
    online = opened()
    publish_snapshot(online.store, "lead", lead_features(), lead_frame(["other"]), utc_now())
    redis = online.store._redis
    online.get("lead", IDS)
    known = len(redis.keys("leadml:schema:lead:*"))
    for entity_id in IDS:
        redis.delete(f"leadml:lead:{entity_id}")
        online.get("lead", [entity_id])
    assert len(redis.keys("leadml:schema:lead:*")) == known


def test_an_emptied_redis_is_filled_again_by_one_schema(opened: Opened, postgres_url: str) -> None:
    online = opened()
    online.get("lead", IDS)
    redis = online.store._redis
    redis.flushdb()
    for entity_id in IDS[:10]:
        assert online.get("lead", [entity_id])[0].source == "computed"
    assert len(redis.keys("leadml:schema:lead:*")) == 1
    other = opened()
    (lead,) = other.get("lead", ["lead_0"])
    assert (lead.source, lead.features) == (
        "cache",
        row_of(postgres_url, "lead_0", lead.as_of or utc_now()),
    )


def test_a_restarted_redis_that_lost_its_scripts_is_written_to(opened: Opened) -> None:
    online = opened()
    online.get("lead", ["lead_0"])
    online.store._redis.script_flush()
    online.get("lead", ["lead_1"])
    assert online.get("lead", ["lead_1"])[0].source == "cache"


def _count_view(high: float | None, ttl: timedelta | None = None) -> Catalogue:
    counted = function_view("counted", "lead", [Count(name="event_count_total")], ttl=ttl)
    limited = replace(counted.features[0], high=high)
    inbound = function_view("plain", "lead", [Count(direction="inbound", window="90d")])
    return Catalogue([replace(counted, features=(limited,)), inbound])


def test_a_computed_value_out_of_range_never_reaches_redis_and_is_counted(opened: Opened) -> None:
    metrics = Metrics()
    online = opened(metrics, _count_view(high=0))
    answered = online.get("lead", IDS)
    held_back = _sample(
        metrics,
        "leadml_online_held_back_values_total",
        feature="event_count_total",
        reason="out of range",
    )
    assert held_back > 0
    missing = [e for e in answered if e.features and e.features["event_count_total"] is None]
    assert len(missing) == held_back
    values = online.store.read_batch("lead", IDS).matrix(["event_count_total"])
    assert not (values > 0).any()


def test_features_whose_time_to_live_has_passed_are_missing_and_computed_anew(
    opened: Opened,
) -> None:
    views = _count_view(high=None, ttl=timedelta(minutes=10))
    online = opened(views=views)
    (fresh,) = online.get("lead", ["lead_1"])
    frame = pd.DataFrame(
        {"entity_id": ["lead_1"], "event_count_total": [7], "inbound_count_90d": [8]}
    )
    redis = online.store._redis

    def publish(age: timedelta) -> None:
        redis.delete("leadml:lead:lead_1")
        publish_snapshot(online.store, "lead", views.features("lead"), frame, utc_now() - age)

    publish(timedelta(minutes=9))
    assert online.get("lead", ["lead_1"])[0].source == "cache"
    publish(timedelta(minutes=11))
    (again,) = online.get("lead", ["lead_1"])
    assert (again.source, again.features) == ("computed", fresh.features)
    alone = opened(
        views=views, postgres_url=SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none")
    )
    publish(timedelta(minutes=11))
    (kept,) = alone.get("lead", ["lead_1"])
    assert (kept.status, kept.source) == ("present", "cache")
    assert kept.features == {"event_count_total": None, "inbound_count_90d": 8}


def test_a_value_exactly_as_old_as_its_time_to_live_is_missing_as_it_is_offline(
    opened: Opened,
) -> None:
    views = _count_view(high=None, ttl=timedelta(minutes=10))
    # With the clock of the data the present is the snapshot's moment, to the microsecond.
    alone = opened(
        views=views,
        clock="data",
        postgres_url=SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none"),
    )
    present = utc_now() - timedelta(hours=1)
    ages = [timedelta(minutes=10), timedelta(minutes=10, microseconds=-1), timedelta(0)]
    frame = pd.DataFrame(
        {
            "entity_id": ["lead_0", "lead_1", "lead_2"],
            "as_of": pd.Series([present - age for age in ages], dtype="datetime64[us, UTC]"),
            "event_count_total": 7,
            "inbound_count_90d": 8,
        }
    )
    publish_snapshot(alone.store, "lead", views.features("lead"), frame, present)
    found = alone.get("lead", ["lead_0", "lead_1", "lead_2"], ["event_count_total"])
    counts = [lead.features["event_count_total"] for lead in found if lead.features]
    assert counts == [None, 7, 7]


@pytest.fixture
def uncomputable(online_settings: Settings) -> Iterator[None]:
    """A column that views read has another name for as long as the test runs."""
    with connect(online_settings.require_postgres(), autocommit=True) as connection:
        connection.execute("ALTER TABLE crm.closures RENAME closed_at TO closed_on")
        yield
        connection.execute("ALTER TABLE crm.closures RENAME closed_on TO closed_at")


def _keep_snapshot(url: str, frame: pd.DataFrame) -> None:
    as_of = utc_now()
    dated = frame.assign(as_of=pd.Series([as_of] * len(frame), dtype="datetime64[us, UTC]"))
    for view in catalogue().views("lead"):
        write_view_snapshot(url, view, dated, as_of)
    assert check_snapshot(url, catalogue(), "lead", as_of).sound


@pytest.mark.usefixtures("uncomputable")
def test_what_cannot_be_computed_comes_from_the_snapshot_marked_and_is_not_written_back(
    opened: Opened, postgres_url: str
) -> None:
    frame = lead_frame(IDS)
    _keep_snapshot(postgres_url, frame)
    online = opened()
    for _ in range(2):
        (lead,) = online.get("lead", ["lead_0"])
        assert (lead.status, lead.source) == ("stale", "snapshot")
        assert lead.features == expected(frame, "lead_0")
    both = online.get("lead", ["lead_0", "younger"])
    assert [(one.status, one.source) for one in both] == [
        ("stale", "snapshot"),
        ("unavailable", None),
    ]
    # In a matrix nothing would tell it from an unknown one.
    with pytest.raises(ApiError, match="the newest snapshot does not know them"):
        online.matrix("lead", ["lead_0", "younger"], ["age"])
    with pytest.raises(ApiError, match="the newest snapshot does not know them"):
        online.get("lead", ["younger"])


@pytest.mark.usefixtures("uncomputable")
def test_what_can_neither_be_computed_nor_looked_up_is_unavailable(opened: Opened) -> None:
    with pytest.raises(ApiError, match="can neither compute them nor give those of a snapshot"):
        opened().get("lead", ["lead_0"])


def test_a_mended_statement_is_used_again(
    opened: Opened, postgres_url: str, uncomputable: None
) -> None:
    online = opened()
    with pytest.raises(ApiError):
        online.get("lead", ["lead_0"])
    with connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE crm.closures RENAME closed_on TO closed_at")
    assert online.get("lead", ["lead_0"])[0].source == "computed"
    with connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE crm.closures RENAME closed_at TO closed_on")


def test_by_the_clock_of_the_data_values_are_as_of_the_newest_snapshot(
    opened: Opened, postgres_url: str
) -> None:
    past = utc_now() - timedelta(days=300)
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO leadml.feature_snapshots (snapshot_id, entity, as_of, rows, checked_at) "
            "VALUES ('s', 'lead', %s, 1, now())",
            (past,),
        )
        connection.execute("UPDATE crm.leads SET created_at = '2020-01-01'")
    online = opened(clock="data")
    (lead,) = online.get("lead", ["lead_0"])
    assert (lead.status, lead.as_of, lead.age_seconds) == ("present", past, 0)
    # A late event is seen although the present has not moved.
    before = lead.features or {}
    online.post([{**_view("d1", "lead_0"), "occurred_at": past - timedelta(hours=1)}])
    (second,) = online.get("lead", ["lead_0"])
    assert (second.source, second.as_of) == ("computed", past)
    assert (second.features or {})["event_count_total"] == before["event_count_total"] + 1
    # A later one moves it.
    later = past + timedelta(days=1)
    online.post([{**_view("d2", "lead_0"), "occurred_at": later}])
    (third,) = online.get("lead", ["lead_0"])
    assert (third.source, third.as_of) == ("computed", later)
    assert (third.features or {})["event_count_total"] == before["event_count_total"] + 2
    assert online.get("lead", ["lead_0"])[0].source == "cache"


def test_a_slow_writer_by_the_clock_of_the_data_does_not_undo_an_event(
    opened: Opened, postgres_url: str
) -> None:
    """Both values are as of the same moment; the one computed first must lose."""
    past = utc_now() - timedelta(days=300)
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO leadml.feature_snapshots (snapshot_id, entity, as_of, rows, checked_at) "
            "VALUES ('s', 'lead', %s, 1, now())",
            (past,),
        )
        connection.execute("UPDATE crm.leads SET created_at = '2020-01-01'")
    online = opened(clock="data")
    online.get("lead", ["lead_0"])
    slow = online.store._redis.get("leadml:lead:lead_0")
    assert slow is not None
    online.post([{**_view("d3", "lead_0"), "occurred_at": past - timedelta(hours=1)}])
    assert online.store.write_batch("lead", ["lead_0"], [slow]).kept_newer == 1
    assert online.get("lead", ["lead_0"])[0].source == "computed"


def test_values_and_invalidations_are_dated_by_the_clock_of_postgresql(
    opened: Opened, postgres_url: str
) -> None:
    online = opened()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        clock = connection.execute("SELECT clock_timestamp()").fetchone()
        (lead,) = online.get("lead", ["lead_0"])
        after = connection.execute("SELECT clock_timestamp()").fetchone()
    assert clock is not None
    assert after is not None
    assert lead.as_of is not None
    assert clock[0] <= lead.as_of <= after[0]
    rows = online.store.read_batch("lead", ["lead_0"]).groups[0]
    assert rows.as_of[0] == rows.computed_at[0] == to_micros(lead.as_of)
