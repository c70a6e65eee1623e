"""The two engines as services: what they need, how they answer, how they recover."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.bulk import entities
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import DuckDBEngine, MissingTableError, PostgresEngine
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import (
    MICROSECOND,
    NOW,
    World,
    empty_graph_metrics,
    spine,
)

PROFILE = [catalogue().view("profile"), catalogue().view("lifecycle")]
GRAPH = [catalogue().view("graph")]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    paths = World().parquet(tmp_path)
    paths["policies"].unlink()
    with pytest.raises(MissingTableError, match=r"table policies, and .*policies\.parquet"):
        DuckDBEngine(paths)


@pytest.mark.parametrize("named", [True, False])
def test_views_that_read_graph_metrics_are_not_computed_without_the_file(
    tmp_path: Path, named: bool
) -> None:
    paths = World().lead("a", NOW).parquet(tmp_path)
    paths["graph_metrics"].unlink()
    if not named:
        del paths["graph_metrics"]
    reason = r".*graph_metrics\.parquet does not exist" if named else "the extract has no such"
    with (
        DuckDBEngine(paths) as engine,
        pytest.raises(
            UserError, match=f"graph reads graph_metrics, and {reason}.* the asset graph_"
        ),
    ):
        engine.compute([*PROFILE, *GRAPH], spine(("a", NOW)))


def test_views_that_do_not_read_graph_metrics_need_no_file_of_them(tmp_path: Path) -> None:
    paths = World().lead("a", NOW).parquet(tmp_path)
    paths["graph_metrics"].unlink()
    with DuckDBEngine(paths) as engine:
        frame = engine.compute([*PROFILE, catalogue().view("engineered")], spine(("a", NOW)))
    assert frame["is_open"].tolist() == [True]


def test_an_empty_file_of_graph_metrics_is_a_graph_that_was_never_measured(tmp_path: Path) -> None:
    paths = World().lead("a", NOW).parquet(tmp_path)
    paths["graph_metrics"] = empty_graph_metrics(tmp_path / "graph")
    with DuckDBEngine(paths) as engine:
        row = engine.compute(GRAPH, spine(("a", NOW))).iloc[0]
    assert row["degree"] == 0
    assert pd.isna(row["pagerank"])


def test_queries_take_and_give_times_with_their_zone(bulk: Bulk) -> None:
    engine = bulk(World().lead("a", NOW).lead("b", NOW + MICROSECOND))
    frame = engine.sql(
        "SELECT l.lead_id, l.created_at, f.as_of FROM leads l JOIN f ON f.as_of >= l.created_at "
        "WHERE l.created_at >= $since",
        {"since": NOW},
        f=spine(("x", NOW)).drop(columns="entity_id"),
    )
    assert frame.to_dict("records") == [
        {"lead_id": "a", "created_at": pd.Timestamp(NOW), "as_of": pd.Timestamp(NOW)}
    ]
    assert str(frame["created_at"].dtype) == "datetime64[us, UTC]"


def test_a_parameter_without_a_zone_is_refused_by_name(bulk: Bulk) -> None:
    with pytest.raises(NaiveTimeError, match="since"):
        bulk(World()).sql("SELECT $since", {"since": NOW.replace(tzinfo=None)})


def test_a_frame_of_one_query_is_not_seen_by_the_next(bulk: Bulk) -> None:
    import duckdb

    engine = bulk(World())
    assert len(engine.sql("SELECT * FROM f", f=spine(("x", NOW)))) == 1
    with pytest.raises(duckdb.CatalogException, match="f does not exist"):
        engine.sql("SELECT * FROM f")


def test_the_entities_of_a_moment_are_those_created_by_then(bulk: Bulk) -> None:
    engine = bulk(World().lead("b", NOW).lead("a", NOW).lead("c", NOW + MICROSECOND))
    frame = entities(engine, "lead", NOW)
    assert frame["entity_id"].tolist() == ["a", "b"]
    assert (frame["as_of"] == NOW).all()
    with pytest.raises(ValueError, match="no entity type house"):
        entities(engine, "house", NOW)


def test_ids_are_answered_in_their_order_and_as_often_as_asked(postgres_url: str) -> None:
    world = World()
    for i in range(25):
        world.lead(f"l{i}", NOW - timedelta(days=i))
    world.load(postgres_url)
    ids = ["l24", "nobody", "l3", "l24", *(f"l{i}" for i in range(25))]
    with PostgresEngine(postgres_url) as engine:
        frame = engine.compute(PROFILE, ids, NOW)
    assert frame["entity_id"].tolist() == ids
    assert frame["lead_age_days"].tolist()[:4:2] == [24.0, 3.0]
    assert frame["lead_age_days"].tolist()[4:] == [float(i) for i in range(25)]
    assert pd.isna(frame["lead_age_days"][1])


def test_no_ids_give_an_empty_frame_with_types(postgres_url: str) -> None:
    with PostgresEngine(postgres_url) as engine:
        frame = engine.compute(PROFILE, [], NOW)
    assert len(frame) == 0
    assert frame["age"].dtype == "Int64"


def test_a_row_that_was_just_committed_is_seen(postgres_url: str) -> None:
    World().lead("a", NOW).load(postgres_url)
    with PostgresEngine(postgres_url) as engine:
        assert engine.compute(PROFILE, ["a"], NOW)["policy_count"].tolist() == [0]
        with connect(postgres_url) as connection:
            connection.execute(
                "INSERT INTO crm.policies VALUES ('p', 'a', 'auto', 12.34, %s)", (NOW,)
            )
        assert engine.compute(PROFILE, ["a"], NOW)["active_premium"].tolist() == [12.34]


def test_an_event_of_unknown_arrival_is_known_since_it_happened(postgres_url: str) -> None:
    world = World().lead("a", NOW - timedelta(days=9)).event("a", NOW, ingested_at=None)
    world.load(postgres_url)
    with PostgresEngine(postgres_url) as engine:
        counts = [
            engine.compute([catalogue().view("engagement")], ["a"], moment)["inbound_count_1d"][0]
            for moment in (NOW - MICROSECOND, NOW)
        ]
    assert counts == [0, 1]


def test_a_lost_connection_is_opened_again(postgres_url: str) -> None:
    World().lead("a", NOW).load(postgres_url)
    with PostgresEngine(postgres_url) as engine:
        engine.compute(PROFILE, ["a"], NOW)
        with connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert engine.compute(PROFILE, ["a"], NOW)["is_open"].tolist() == [True]


def test_a_moment_without_a_zone_is_refused(postgres_url: str) -> None:
    with PostgresEngine(postgres_url) as engine, pytest.raises(NaiveTimeError, match="as_of"):
        engine.compute(PROFILE, ["a"], NOW.replace(tzinfo=None))
