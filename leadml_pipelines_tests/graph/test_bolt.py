"""What the code relies on, held to on both servers: see the list in docs/neo4j.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph.bolt import (
    Bolt,
    GraphUnavailableError,
    in_utc,
    open_graph,
    to_micros_utc,
)
from leadml_pipelines.graph.model import ASSIGNED_TO
from leadml_pipelines.graph.moments import begun, holds, moment_parameters
from leadml_pipelines.times import NaiveTimeError, from_micros, to_micros

Address = tuple[str, str, str, str]

MOMENT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def opened(graph_settings: Address) -> Iterator[Bolt]:
    with open_graph(graph_settings) as bolt:
        yield bolt


def one(bolt: Bolt, cypher: str, **parameters: Any) -> Any:
    (record,) = bolt.read(cypher, **parameters)
    return record[0]


@pytest.mark.parametrize(
    "zone",
    [
        UTC,
        timezone(timedelta(hours=2)),
        timezone(timedelta(hours=-9, minutes=-30)),
        ZoneInfo("UTC"),
        ZoneInfo("Europe/Paris"),
        ZoneInfo("America/New_York"),
    ],
    ids=str,
)
def test_a_moment_of_any_zone_comes_back_as_the_same_moment(opened: Bolt, zone: Any) -> None:
    opened.write("CREATE (:T {t: $t, list: [$t]})", t=MOMENT.astimezone(zone))
    assert to_micros_utc(one(opened, "MATCH (n:T) RETURN n.t")) == to_micros(MOMENT)
    found = one(opened, "MATCH (n:T) WHERE n.t = $t RETURN count(n)", t=MOMENT.astimezone(zone))
    assert found == 1


def test_datetimes_deep_in_the_parameters_are_brought_to_utc() -> None:
    paris = MOMENT.astimezone(ZoneInfo("Europe/Paris"))
    given = in_utc({"rows": [{"t": paris, "n": 1, "none": None}], "one": paris})
    assert given == {"rows": [{"t": MOMENT, "n": 1, "none": None}], "one": MOMENT}
    assert given["rows"][0]["t"].tzinfo is given["one"].tzinfo is UTC


def test_a_datetime_without_a_zone_is_refused_by_the_name_of_its_parameter(opened: Bolt) -> None:
    with pytest.raises(NaiveTimeError, match=r"rows\.since is 2026"):
        opened.write("RETURN $rows", rows=[{"since": MOMENT.replace(tzinfo=None)}])


@pytest.mark.parametrize("written", ["zone", "no zone", "other zone"])
def test_conditions_on_times_are_exact_to_the_microsecond_however_a_time_was_written(
    opened: Bolt, written: str
) -> None:
    text = {
        "zone": "datetime('2026-05-01T12:00:00.123456Z')",
        "no zone": "localdatetime('2026-05-01T12:00:00.123456')",
        "other zone": "datetime('2026-05-01T21:30:00.123456+09:30')",
    }[written]
    opened.write(
        f"CREATE (:A)-[:ASSIGNED_TO {{since: {text}}}]->(:B)-[:ASSIGNED_TO {{until: {text}}}]->(:A)"
    )
    ask = f"MATCH ()-[e:ASSIGNED_TO]->() WHERE {holds(ASSIGNED_TO, 'e')} RETURN count(e)"
    started = f"MATCH ()-[e:ASSIGNED_TO]->() WHERE {begun('e.since')} RETURN count(e)"
    for moment, begins, ends in (
        (MOMENT - MICROSECOND, 0, 0),
        (MOMENT, 1, 1),
        (MOMENT + MICROSECOND, 1, 1),
    ):
        parameters = moment_parameters(moment)
        # The one without `since` has always begun.
        assert one(opened, started, **parameters) == 1 + begins
        assert one(opened, ask, **parameters) == begins + (1 - ends)


def test_a_text_is_a_time_that_never_comes(opened: Bolt) -> None:
    opened.write("CREATE (:A)-[:ASSIGNED_TO {since: '2020-01-01'}]->(:B)")
    ask = f"MATCH ()-[e:ASSIGNED_TO]->() WHERE {holds(ASSIGNED_TO, 'e')} RETURN count(e)"
    assert one(opened, ask, **moment_parameters(MOMENT)) == 0


@given(
    micros=st.integers(
        to_micros(datetime(1900, 1, 1, tzinfo=UTC)), to_micros(datetime(2200, 1, 1, tzinfo=UTC))
    )
)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_microsecond_survives(opened: Bolt, micros: int) -> None:
    opened.write("MERGE (n:M {k: 1}) SET n.t = $t", t=from_micros(micros))
    assert to_micros_utc(one(opened, "MATCH (n:M) RETURN n.t")) == micros


@pytest.mark.parametrize("text", ["$rows", "$row", "$x", "a$rows", "'", "\x00", "é", "e\u0301"])
def test_a_key_is_found_and_merged_once_whatever_it_reads_like(opened: Bolt, text: str) -> None:
    opened.change_schema(
        "CREATE CONSTRAINT leadml_test_key IF NOT EXISTS FOR (n:Key) REQUIRE n.k IS UNIQUE"
    )
    for _ in range(2):
        opened.write_rows(
            "UNWIND $rows AS row MERGE (n:Key {k: row.k}) RETURN count(n)", [{"k": text}]
        )
    found = opened.write_rows(
        "UNWIND $rows AS row MATCH (n:Key) WHERE n.k = row.k RETURN count(n)", [{"k": text}]
    )
    assert (found, one(opened, "MATCH (n:Key) RETURN n.k")) == (1, text)


def test_a_constraint_that_is_there_is_not_made_again_and_has_its_name(opened: Bolt) -> None:
    for name in ("leadml_test_u", "leadml_test_other"):
        opened.change_schema(
            f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:U) REQUIRE n.k IS UNIQUE"
        )
    names = [r[0] for r in opened.read("SHOW CONSTRAINTS YIELD name RETURN name")]
    assert "leadml_test_u" in names
    assert "leadml_test_other" not in names


def test_a_key_that_is_missing_breaks_no_constraint(opened: Bolt) -> None:
    opened.change_schema(
        "CREATE CONSTRAINT leadml_test_u IF NOT EXISTS FOR (n:U) REQUIRE n.k IS UNIQUE"
    )
    opened.write("CREATE (:U {x: 1}), (:U {x: 2})")
    assert one(opened, "MATCH (n:U) RETURN count(n)") == 2


def test_an_edge_is_merged_by_its_start_and_its_end_can_be_taken_back(opened: Bolt) -> None:
    opened.write("CREATE (:A {k: 1}), (:B {k: 1})")
    merge = (
        "UNWIND $rows AS row MATCH (a:A) WHERE a.k = 1 MATCH (b:B) WHERE b.k = 1"
        " MERGE (a)-[e:E {since: row.start}]->(b) SET e.until = row.finish RETURN count(e)"
    )
    for finish in (None, MOMENT, None):
        starts = [MOMENT, MOMENT + MICROSECOND]
        assert opened.write_rows(merge, [{"start": s, "finish": finish} for s in starts]) == 2
    assert one(opened, "MATCH ()-[e:E]->() RETURN count(e)") == 2
    assert one(opened, "MATCH ()-[e:E]->() WHERE e.until IS NULL RETURN count(e)") == 2


def test_a_statement_on_no_rows_or_no_match_counts_nothing(opened: Bolt) -> None:
    merge = "UNWIND $rows AS row MERGE (n:U {k: row.k}) RETURN count(n)"
    delete = "UNWIND $rows AS row MATCH (n:No) WHERE n.k = row.k DETACH DELETE n RETURN count(*)"
    assert opened.write_rows(merge, []) == 0
    assert opened.write_rows(delete, [{"k": 1}]) == 0


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0])
def test_whole_numbers_of_64_bits_survive(opened: Bolt, number: int) -> None:
    opened.write("CREATE (:I {k: $number})", number=number)
    assert one(opened, "MATCH (n:I) RETURN n.k") == number


def test_a_failed_statement_leaves_nothing_behind(opened: Bolt) -> None:
    from neo4j.exceptions import ClientError

    with pytest.raises(ClientError):
        opened.write("CREATE (:Half) WITH 1 AS one UNWIND [1, 0] AS n RETURN one / n")
    assert one(opened, "MATCH (n:Half) RETURN count(n)") == 0


@pytest.mark.parametrize(
    ("part", "error"),
    [(1, "AuthError"), (2, "AuthError"), (3, "ClientError")],
    ids=["user", "password", "database"],
)
def test_a_server_that_refuses_is_told_from_one_that_is_away(
    graph_settings: Address, part: int, error: str
) -> None:
    wrong = list(graph_settings)
    wrong[part] = "wrong-word"
    address: Address = (wrong[0], wrong[1], wrong[2], wrong[3])
    with pytest.raises(GraphUnavailableError) as caught, open_graph(address):
        pass
    assert type(caught.value.__cause__).__name__ == error
    assert graph_settings[2] not in str(caught.value)


def test_records_stream_while_others_write(opened: Bolt) -> None:
    opened.write("UNWIND range(1, 20000) AS n CREATE (:S {k: n})")
    seen = 0
    for record in opened.read("MATCH (n:S) RETURN n.k"):
        if seen == 0:
            opened.write("CREATE (:Other)")
        seen += record[0] > 0
    assert seen == 20000
