"""The skew audit: vectors from PostgreSQL, through the log, computed again by DuckDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from leadml_pipelines.features.audit import AuditReport, audit
from leadml_pipelines.features.audit_report import print_report, write_report
from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.features.duckdb_engine import MissingTableError
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines.features.snapshots.retention import prune
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import Rows
from leadml_pipelines.online.publish import pack
from leadml_pipelines.online.values import schema_for
from leadml_pipelines.postgres import connect
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.served_log import ServedLog
from leadml_pipelines.times import to_micros
from leadml_pipelines_tests.features.conftest import Bulk
from leadml_pipelines_tests.features.world import NOW, World, random_world
from leadml_pipelines_tests.tables import empty_tables

SECOND = timedelta(seconds=1)
LEAD = catalogue()
BORN = NOW - timedelta(days=40)


@pytest.fixture(autouse=True)
def empty(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        empty_tables(connection, "leadml.served_features", "leadml.served_schemas")


Alter = Callable[[np.ndarray[Any, Any], Mapping[str, int]], None]


def serve(
    url: str,
    ids: Sequence[str],
    as_of: datetime,
    *,
    computed_at: datetime | None = None,
    alter: Alter | None = None,
    definitions: Catalogue = LEAD,
    entity: str = "lead",
) -> None:
    """Compute vectors in PostgreSQL, as a miss does, and log them as served.

    `alter` is given the numbers of the first vector and the place of each feature.
    """
    features = definitions.features(entity)
    with PostgresEngine(url, catalogue=definitions) as engine:
        frame = engine.compute(definitions.views(entity), ids, as_of)
    schema = schema_for(entity, features, frame)
    packed = pack(schema, features, frame, as_of, as_of if computed_at is None else computed_at)
    records = np.frombuffer(b"".join(packed.payloads), schema.dtype)
    values = records["values"].copy()
    if alter is not None:
        alter(values[0], schema.positions)
    group = Rows(schema, np.arange(len(ids)), records["as_of"], records["computed_at"], values)
    log = ServedLog(url, 1.0, Metrics())
    log.note(Batch(tuple(ids), (group,)), ["computed"] * len(ids))
    log.close()


def audited(
    url: str, engine: DuckDBEngine, definitions: Catalogue = LEAD, **options: Any
) -> AuditReport:
    return audit(url, engine, definitions, NOW, **options)


def world_of(*ids: str) -> World:
    """Leads that are 40 days old, each with some history."""
    world = World()
    for i, name in enumerate(ids):
        world.lead(name, BORN, state="CA" if i % 2 else "NY")
        for days in (35, 12, 3, 1):
            world.event(name, NOW - timedelta(days=days, hours=i), value=Decimal("2.5"))
    return world


def test_what_postgresql_computed_is_what_duckdb_computes(postgres_url: str, bulk: Bulk) -> None:
    """Over a random world, at several moments, with leads that are not there yet left aside."""
    world = random_world(11)
    world.load(postgres_url)
    ids = [row["lead_id"] for row in world.tables["leads"]]
    moments = [NOW - timedelta(days=9, microseconds=1), NOW - timedelta(hours=1), NOW]
    for moment in moments:
        serve(postgres_url, ids, moment, computed_at=NOW + timedelta(days=20))
    report = audited(postgres_url, bulk(world.normalized(postgres_url)))
    assert report.mismatches == report.in_flight == report.later_metrics == ()
    assert report.audited + report.gone == len(ids) * len(moments)
    assert report.audited > report.gone
    assert (report.skewed, report.share) == (0, 0.0)


def test_a_value_that_was_altered_on_its_way_is_found(postgres_url: str, bulk: Bulk) -> None:
    world = world_of("a", "b", "c", "d")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places["inbound_count_30d"]] += 1

    serve(postgres_url, ["c", "a", "b", "d"], NOW - timedelta(days=2), alter=alter)
    report = audited(postgres_url, bulk(world))
    (found,) = report.mismatches
    assert (found.entity_type, found.entity_id, found.feature) == ("lead", "c", "inbound_count_30d")
    assert (found.served, found.offline) == (3.0, 2.0)
    assert (found.as_of, found.source) == (NOW - timedelta(days=2), "computed")
    assert (report.audited, report.skewed, report.share) == (4, 1, 0.25)


@pytest.mark.parametrize(
    ("feature", "served", "shown"),
    [
        ("inbound_count_30d", float("nan"), (None, 3.0)),
        ("inbound_count_30d", -0.0, (-0.0, 3.0)),
        ("state", float("nan"), (None, "NY")),
        ("state", 99.0, (99.0, "NY")),
        ("is_open", 0.0, (False, True)),
        ("engagement_score", 0.0, (0.0, None)),
    ],
)
def test_every_kind_of_difference_is_found(
    postgres_url: str, bulk: Bulk, feature: str, served: float, shown: tuple[Any, Any]
) -> None:
    world = world_of("a")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places[feature]] = served

    serve(postgres_url, ["a"], NOW, alter=alter)
    (found,) = audited(postgres_url, bulk(world)).mismatches
    assert found.feature == feature
    assert repr(found.served) == repr(shown[0])
    if shown[1] is not None:
        assert found.offline == shown[1]


def test_zero_and_minus_zero_differ(postgres_url: str, bulk: Bulk) -> None:
    world = World().lead("a", BORN)
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        assert vector[places["inbound_count_30d"]] == 0.0
        vector[places["inbound_count_30d"]] = -0.0

    serve(postgres_url, ["a"], NOW, alter=alter)
    (found,) = audited(postgres_url, bulk(world)).mismatches
    assert (repr(found.served), repr(found.offline)) == ("-0.0", "0.0")


def counting(direction: str) -> Catalogue:
    """A catalogue of one view, which counts the events of a direction."""

    def build(frames: Mapping[str, Any]) -> Any:
        from leadml_pipelines.features import primitives as p

        events = frames["known_events"]
        return events.groupBy("entity_id", "as_of").agg(
            p.count_if(events["direction"] == p.F.lit(direction)).alias("touch_count")
        )

    touches = Feature("touch_count", "integer", "events", 0, None, 0, "Touches.", "engagement")
    view = FeatureView("touches", "lead", "Touches.", (touches,), ("known_events",), build)
    return Catalogue([view])


def test_a_view_whose_sql_differs_in_postgresql_is_found(postgres_url: str, bulk: Bulk) -> None:
    world = world_of("a", "b")
    world.event("b", NOW - timedelta(hours=3), direction="outbound")
    world.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW, definitions=counting("inbound"))
    assert audited(postgres_url, bulk(world), counting("inbound")).mismatches == ()
    report = audited(postgres_url, bulk(world), counting("outbound"))
    assert {(m.entity_id, m.served, m.offline) for m in report.mismatches} == {
        ("a", 4.0, 0.0),
        ("b", 4.0, 1.0),
    }
    assert report.share == 1.0


@pytest.mark.parametrize("others", [0, 2, 4])
def test_an_event_that_was_in_flight_is_told_apart_from_skew(
    postgres_url: str, bulk: Bulk, others: int
) -> None:
    """Whatever else became known in the same seconds and was seen."""
    seen = world_of("a", "b")
    for i in range(others):
        seen.event("a", NOW - timedelta(days=1), ingested_at=NOW - (0.1 + i / 9) * SECOND)
    seen.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW)
    seen.event("a", NOW - timedelta(minutes=1), ingested_at=NOW - 0.05 * SECOND)
    report = audited(postgres_url, bulk(seen))
    assert report.mismatches == ()
    assert report.skewed == 0
    assert {m.entity_id for m in report.in_flight} == {"a"}
    assert "inbound_count_1d" in {m.feature for m in report.in_flight}


def test_of_many_rows_that_were_in_flight_not_every_combination_is_tried(
    postgres_url: str, bulk: Bulk
) -> None:
    """All of them, and a few from the end: one in the midst of those that were seen is skew."""
    seen = world_of("a", "b")
    times = [NOW - i * SECOND / 20 for i in range(30)]
    for time in (*times[:20], *times[21:]):
        seen.event("a", NOW - timedelta(days=1), ingested_at=time)
    seen.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW)
    seen.event("a", NOW - timedelta(minutes=1), ingested_at=times[20])
    for time in times:
        seen.event("b", NOW - timedelta(minutes=1), ingested_at=time)
    report = audited(postgres_url, bulk(seen))
    assert {m.entity_id for m in report.mismatches} == {"a"}
    assert {m.entity_id for m in report.in_flight} == {"b"}


def world_of_agents(*ids: str) -> World:
    """Agents with a lead of the same name each, on which they acted, and to whom they sold."""
    world = world_of(*ids)
    for name in ids:
        world.add("agents", agent_id=name)
        world.add("assignments", lead_id=name, agent_id=name, assigned_at=BORN)
        world.event(name, NOW - timedelta(days=2), direction="outbound", agent_id=name)
        world.add("policies", lead_id=name, bound_at=NOW - timedelta(days=3))
    return world


def test_what_postgresql_computed_for_agents_is_what_duckdb_computes(
    postgres_url: str, bulk: Bulk
) -> None:
    world = random_world(11)
    world.load(postgres_url)
    ids = [row["agent_id"] for row in world.tables["agents"]]
    for moment in (NOW - timedelta(days=9, microseconds=1), NOW):
        serve(postgres_url, ids, moment, entity="agent")
    report = audited(postgres_url, bulk(world.normalized(postgres_url)))
    assert report.mismatches == report.in_flight == report.later_metrics == ()
    assert report.audited + report.gone == len(ids) * 2
    assert report.audited > report.gone


def test_a_value_of_an_agent_that_was_altered_on_its_way_is_found(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of_agents("a", "b")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places["open_lead_count"]] += 1

    serve(postgres_url, ["b", "a"], NOW, alter=alter, entity="agent")
    (found,) = audited(postgres_url, bulk(world)).mismatches
    assert (found.entity_type, found.entity_id, found.feature) == ("agent", "b", "open_lead_count")


@pytest.mark.parametrize("table", ["lead_events", "assignments", "policies"])
def test_a_row_of_an_agent_that_was_in_flight_is_found_among_those_of_others(
    postgres_url: str, bulk: Bulk, table: str
) -> None:
    """However many rows of others, and of tables that agents have no part in, came in then."""
    world = world_of_agents("a", "b").lead("new", BORN)
    ago = [NOW - i * SECOND / 20 for i in range(30)]
    for time in ago[:15] + ago[16:]:
        world.event("b", time, direction="outbound", agent_id="b")
        world.add("closures", lead_id="a", closed_at=time)
    world.event("a", ago[4], direction="inbound", agent_id="a")
    world.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW, entity="agent")
    if table == "lead_events":
        world.event("a", ago[15], direction="outbound", agent_id="a")
    elif table == "assignments":
        world.add(table, lead_id="new", agent_id="a", assigned_at=ago[15])
    else:
        world.add(table, lead_id="a", bound_at=ago[15])
    report = audited(postgres_url, bulk(world))
    assert report.mismatches == ()
    assert {(m.entity_type, m.entity_id) for m in report.in_flight} == {("agent", "a")}


def test_a_policy_that_was_in_flight_is_told_apart_too(postgres_url: str, bulk: Bulk) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    world.add("policies", lead_id="a", bound_at=NOW - SECOND)
    report = audited(postgres_url, bulk(world))
    assert report.mismatches == ()
    assert report.in_flight


def test_an_event_that_came_long_after_its_time_is_skew(postgres_url: str, bulk: Bulk) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    world.event("a", NOW - timedelta(hours=1))
    report = audited(postgres_url, bulk(world))
    assert report.in_flight == ()
    assert report.skewed == 1


def test_an_event_in_flight_does_not_excuse_another_difference(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of("a")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places["lead_age_days"]] += 1

    serve(postgres_url, ["a"], NOW, alter=alter)
    world.event("a", NOW - timedelta(minutes=1), ingested_at=NOW - SECOND)
    report = audited(postgres_url, bulk(world))
    assert report.in_flight == ()
    assert {"lead_age_days", "inbound_count_1d"} <= {m.feature for m in report.mismatches}


def test_metrics_that_were_computed_after_the_vector_are_no_skew(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of("a", "b")
    world.load(postgres_url)
    before, after = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    serve(postgres_url, ["a"], before)
    world.add("graph_metrics", entity_id="a", as_of=NOW - timedelta(days=1), computed_at=after)
    report = audited(postgres_url, bulk(world))
    assert report.mismatches == ()
    assert "pagerank" in {m.feature for m in report.later_metrics}


def test_metrics_that_were_there_are_skew_when_they_were_not_served(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    world.add("graph_metrics", entity_id="a", as_of=NOW - timedelta(days=1))
    report = audited(postgres_url, bulk(world))
    assert report.later_metrics == ()
    assert "pagerank" in {m.feature for m in report.mismatches}


@pytest.mark.parametrize("altered", ["lead_age_days", "handover_count"])
def test_later_metrics_do_not_excuse_other_features(
    postgres_url: str, bulk: Bulk, altered: str
) -> None:
    """Not even one of the same view that is counted from another table."""
    world = world_of("a")
    world.add("assignments", lead_id="a", agent_id="x", assigned_at=BORN)
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places[altered]] += 1

    serve(postgres_url, ["a"], NOW - SECOND, alter=alter)
    world.add("graph_metrics", entity_id="a", as_of=NOW - timedelta(days=1), computed_at=NOW)
    report = audited(postgres_url, bulk(world))
    assert [m.feature for m in report.mismatches] == [altered]
    assert "pagerank" in {m.feature for m in report.later_metrics}


def test_a_vector_of_a_moment_after_the_extract_waits_for_the_next(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    serve(postgres_url, ["a"], NOW + timedelta(microseconds=1))
    report = audited(postgres_url, bulk(world))
    assert (report.audited, report.too_new) == (1, 1)


def test_a_value_that_publication_holds_back_is_no_skew(postgres_url: str, bulk: Bulk) -> None:
    narrow = Catalogue(
        replace(
            view,
            features=tuple(
                replace(feature, high=1) if feature.name == "inbound_count_30d" else feature
                for feature in view.features
            ),
        )
        for view in LEAD.views("lead")
    )
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW, definitions=narrow)
    report = audited(postgres_url, bulk(world), narrow)
    assert (report.audited, report.mismatches) == (1, ())
    assert [m.feature for m in audited(postgres_url, bulk(world)).mismatches] == [
        "inbound_count_30d"
    ]


def test_words_are_compared_whatever_their_codes(postgres_url: str, bulk: Bulk) -> None:
    """In the two schemas the same state has two codes."""
    world = world_of("a", "b")
    world.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW)
    serve(postgres_url, ["a"], NOW - timedelta(hours=1))
    serve(postgres_url, ["b"], NOW - timedelta(hours=1))
    report = audited(postgres_url, bulk(world))
    assert (report.audited, report.mismatches) == (4, ())


def test_a_feature_that_left_the_catalogue_is_not_compared(postgres_url: str, bulk: Bulk) -> None:
    wider = Catalogue([*LEAD.views("lead"), *counting("inbound").views("lead")])
    world = world_of("a")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places["touch_count"]] += 1

    serve(postgres_url, ["a"], NOW, alter=alter, definitions=wider)
    assert audited(postgres_url, bulk(world), wider).skewed == 1
    report = audited(postgres_url, bulk(world))
    assert (report.audited, report.mismatches) == (1, ())


def test_a_vector_of_which_no_feature_is_left_counts_as_not_audited(
    postgres_url: str, bulk: Bulk
) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW, definitions=counting("inbound"))
    assert audited(postgres_url, bulk(world)).audited == 0


def test_only_a_sample_of_the_last_day_is_audited(postgres_url: str, bulk: Bulk) -> None:
    world = world_of("a", "b", "c")
    world.load(postgres_url)
    serve(postgres_url, ["a", "b", "c"], NOW)
    assert audited(postgres_url, bulk(world), sample=2).audited == 2
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.served_features SET served_at = served_at - interval '25 hours' "
            "WHERE entity_id = 'a'"
        )
    assert audited(postgres_url, bulk(world)).audited == 2
    assert audited(postgres_url, bulk(world), within=timedelta(days=2)).audited == 3


def test_without_any_served_vector_nothing_is_audited(postgres_url: str, bulk: Bulk) -> None:
    assert audited(postgres_url, bulk(world_of("a"))) == AuditReport(NOW)


def test_an_extract_without_graph_metrics_is_not_taken_for_one_in_which_nothing_is_known(
    postgres_url: str, tmp_path: Path
) -> None:
    world = world_of("a")
    world.load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    paths = world.parquet(tmp_path / "w")
    del paths["graph_metrics"]
    with (
        DuckDBEngine(paths, threads=1) as engine,
        pytest.raises(MissingTableError, match="graph_metrics"),
    ):
        audited(postgres_url, engine)


def test_the_log_is_kept_as_long_as_the_history(postgres_url: str) -> None:
    world = world_of("a", "b")
    world.load(postgres_url)
    serve(postgres_url, ["a", "b"], NOW)
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.served_features SET served_at = served_at - interval '8 days' "
            "WHERE entity_id = 'a'"
        )
    prune(postgres_url, "lead", 7)
    with connect(postgres_url) as connection:
        left = connection.execute("SELECT entity_id FROM leadml.served_features").fetchall()
    assert left == [("b",)]


@pytest.mark.parametrize("keep_days", [0, -5])
def test_days_that_would_keep_nothing_are_refused_before_the_log_is_touched(
    postgres_url: str, keep_days: int
) -> None:
    world_of("a").load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    with pytest.raises(ValueError, match=f"keep_days is {keep_days}; at least one day must stay"):
        prune(postgres_url, "lead", keep_days)
    with connect(postgres_url) as connection:
        left = connection.execute("SELECT entity_id FROM leadml.served_features").fetchall()
    assert left == [("a",)]


def test_schemas_that_no_kept_vector_needs_are_forgotten(postgres_url: str) -> None:
    world_of("a").load(postgres_url)
    serve(postgres_url, ["a"], NOW)
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO leadml.served_schemas (entity_type, schema_id, document) "
            "VALUES ('lead', 1, '{}'), ('agent', 2, '{}')"
        )
    prune(postgres_url, "lead", 7)
    with connect(postgres_url) as connection:
        left = connection.execute(
            "SELECT s.schema_id, f.entity_id FROM leadml.served_schemas s "
            "LEFT JOIN leadml.served_features f USING (entity_type, schema_id) ORDER BY entity_id"
        ).fetchall()
    assert [entity for _, entity in left] == ["a", None]
    assert left[1][0] == 2


def test_the_report_is_written_for_programs_and_people(
    postgres_url: str, bulk: Bulk, tmp_path: Path
) -> None:
    world = world_of("a", "b")
    world.load(postgres_url)

    def alter(vector: np.ndarray[Any, Any], places: Mapping[str, int]) -> None:
        vector[places["is_open"]] = 0.0
        vector[places["state"]] = np.nan

    serve(postgres_url, ["a", "b"], NOW, alter=alter)
    report = audited(postgres_url, bulk(world))
    write_report(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (content["audited"], content["skewed"], content["share"]) == (2, 1, 0.5)
    by_feature = {row["feature"]: row for row in content["mismatches"]}
    assert by_feature["is_open"]["served"] is False
    assert by_feature["state"] | {"served_at": "", "computed_at": ""} == {
        "entity_type": "lead",
        "entity_id": "a",
        "feature": "state",
        "served": None,
        "offline": "NY",
        "as_of": NOW.isoformat(),
        "computed_at": "",
        "served_at": "",
        "source": "computed",
    }
    written = StringIO()
    print_report(report, Console(file=written, width=200), 1)
    text = written.getvalue()
    assert "2 served vectors audited, 2 mismatches" in text
    assert "... and 1 more" in text


def test_moments_are_exact_to_the_microsecond(postgres_url: str) -> None:
    world_of("a").load(postgres_url)
    serve(postgres_url, ["a"], NOW, computed_at=NOW + timedelta(microseconds=1))
    with connect(postgres_url) as connection:
        row = connection.execute("SELECT as_of, computed_at FROM leadml.served_features").fetchone()
    assert row is not None
    assert [to_micros(moment) - to_micros(NOW) for moment in row] == [0, 1]
