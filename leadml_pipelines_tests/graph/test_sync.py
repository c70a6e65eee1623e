from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines.graph import bolt as bolt_module
from leadml_pipelines.graph import sync as sync_module
from leadml_pipelines.graph.bolt import Bolt, GraphUnavailableError, open_graph
from leadml_pipelines.graph.queries import read_graph
from leadml_pipelines.graph.rows import MissingTableError
from leadml_pipelines.graph.sync import GraphChangedError, sync_graph
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.graph.builders import as_sets, at, extract

Address = tuple[str, str, str, str]

LEADS = [
    ("l1", at(0), "c1", "h1"),
    ("l2", at(1), "c1", "h1"),
    ("l3", at(2), None, None),
]
TABLES: dict[str, Any] = {
    "leads": LEADS,
    "agents": [("x", at(-9)), ("y", None)],
    "assignments": [("l1", "x", at(1), at(3)), ("l1", "x", at(4), None), ("l2", "y", at(2), None)],
    "referrals": [("l1", "l3", at(2))],
}
NODES = {
    ("lead", "l1", at(0)),
    ("lead", "l2", at(1)),
    ("lead", "l3", at(2)),
    ("agent", "x", at(-9)),
    ("agent", "y", None),
    ("household", "h1", None),
    ("campaign", "c1", None),
}
EDGES = {
    ("l1", "x", "ASSIGNED_TO", at(1), at(3)),
    ("l1", "x", "ASSIGNED_TO", at(4), None),
    ("l2", "y", "ASSIGNED_TO", at(2), None),
    ("l1", "l3", "REFERRED", at(2), None),
    ("l1", "h1", "MEMBER_OF", at(0), None),
    ("l2", "h1", "MEMBER_OF", at(1), None),
    ("l1", "c1", "CAME_FROM", at(0), None),
    ("l2", "c1", "CAME_FROM", at(1), None),
}


@pytest.fixture
def opened(graph_settings: Address) -> Iterator[Bolt]:
    with open_graph(graph_settings) as opened:
        yield opened


def content(graph: Address) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    return as_sets(read_graph(graph))


def test_the_first_synchronisation_writes_what_the_tables_say(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    report = sync_graph(graph_settings, ledger_url, extract(tmp_path, **TABLES))
    assert content(graph_settings) == (NODES, EDGES)
    assert (report.nodes, report.edges, report.changed) == (7, 8, 15)
    assert report.complete


def test_a_second_synchronisation_of_the_same_tables_writes_nothing(
    graph_settings: Address,
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = extract(tmp_path, **TABLES)
    sync_graph(graph_settings, ledger_url, tables)
    writes: list[str] = []
    original = Bolt.write

    def watched(self: Bolt, cypher: str, **parameters: Any) -> Any:
        writes.append(cypher)
        return original(self, cypher, **parameters)

    monkeypatch.setattr(Bolt, "write", watched)
    report = sync_graph(graph_settings, ledger_url, tables)
    assert writes == []
    assert (report.nodes, report.edges, report.changed) == (7, 8, 0)
    assert not report.complete


def test_only_changed_rows_travel(graph_settings: Address, ledger_url: str, tmp_path: Path) -> None:
    sync_graph(graph_settings, ledger_url, extract(tmp_path / "1", **TABLES))
    ended = [("l1", "x", at(1), at(3)), ("l1", "x", at(4), at(6)), ("l2", "y", at(2), None)]
    later = extract(tmp_path / "2", **TABLES | {"assignments": ended})
    report = sync_graph(graph_settings, ledger_url, later)
    assert report.changed == 1
    edges = EDGES - {("l1", "x", "ASSIGNED_TO", at(4), None)}
    assert content(graph_settings)[1] == edges | {("l1", "x", "ASSIGNED_TO", at(4), at(6))}


def test_an_end_that_is_taken_back_is_removed(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    reopened = [("l1", "x", at(1), None), *TABLES["assignments"][1:]]
    sync_graph(graph_settings, ledger_url, extract(tmp_path / "1", **TABLES))
    sync_graph(
        graph_settings, ledger_url, extract(tmp_path / "2", **TABLES | {"assignments": reopened})
    )
    assert ("l1", "x", "ASSIGNED_TO", at(1), None) in content(graph_settings)[1]


def test_what_vanished_from_the_tables_vanishes_from_the_graph(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    sync_graph(graph_settings, ledger_url, extract(tmp_path / "1", **TABLES))
    fewer = extract(
        tmp_path / "2",
        leads=[("l1", at(0), "c1", None), LEADS[2]],
        agents=TABLES["agents"],
        assignments=[("l1", "x", at(4), None)],
        referrals=TABLES["referrals"],
    )
    report = sync_graph(graph_settings, ledger_url, fewer)
    assert content(graph_settings) == (
        NODES - {("lead", "l2", at(1)), ("household", "h1", None)},
        {
            ("l1", "x", "ASSIGNED_TO", at(4), None),
            ("l1", "l3", "REFERRED", at(2), None),
            ("l1", "c1", "CAME_FROM", at(0), None),
        },
    )
    assert report.deleted == report.changed == 7


def test_a_lead_that_comes_back_gets_its_edges_back(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    whole = extract(tmp_path / "1", **TABLES)
    without = extract(tmp_path / "2", **TABLES | {"leads": LEADS[1:]})
    for tables in (whole, without, whole):
        sync_graph(graph_settings, ledger_url, tables)
    assert content(graph_settings) == (NODES, EDGES)


def test_edges_of_unlisted_leads_are_left_out_and_unlisted_agents_exist(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    tables = extract(
        tmp_path,
        leads=[("l1", at(0), None, None)],
        assignments=[("l1", "ghost", at(1), None), ("nobody", "ghost", at(1), None)],
        referrals=[("l1", "nobody", at(1)), ("nobody", "l1", at(1))],
    )
    sync_graph(graph_settings, ledger_url, tables)
    assert content(graph_settings) == (
        {("lead", "l1", at(0)), ("agent", "ghost", None)},
        {("l1", "ghost", "ASSIGNED_TO", at(1), None)},
    )


def test_memberships_follow_the_history_of_a_lead_where_there_is_one(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    tables = extract(
        tmp_path,
        leads=[("l1", at(0), "c2", "h1"), ("l2", at(0), None, "h1")],
        lead_versions=[
            ("l1", at(0), "c1", "h1"),
            ("l1", at(1), "c1", "h1"),
            ("l1", at(2), "c1", None),
            ("l1", at(3), "c2", None),
            ("l1", at(4), "c2", "h1"),
        ],
    )
    sync_graph(graph_settings, ledger_url, tables)
    assert content(graph_settings)[1] == {
        ("l1", "h1", "MEMBER_OF", at(0), at(2)),
        ("l1", "h1", "MEMBER_OF", at(4), None),
        ("l2", "h1", "MEMBER_OF", at(0), None),
        ("l1", "c2", "CAME_FROM", at(3), None),
    }


def test_any_text_is_an_id(graph_settings: Address, ledger_url: str, tmp_path: Path) -> None:
    ids = ["'}) DETACH DELETE n //", '["a","b"]', "$rows", "zwei\nZeilen", "Łódź 🦊", "\\", "\x1f"]
    tables = extract(
        tmp_path,
        leads=[(name, at(0), name, name) for name in ids],
        assignments=[(name, name, at(0), None) for name in ids],
    )
    for _ in range(2):
        sync_graph(graph_settings, ledger_url, tables)
    assert content(graph_settings)[1] == {
        (name, name, relation, at(0), None)
        for name in ids
        for relation in ("ASSIGNED_TO", "MEMBER_OF", "CAME_FROM")
    }


def test_a_wiped_graph_is_filled_again(
    graph_settings: Address, ledger_url: str, tmp_path: Path, opened: Bolt
) -> None:
    tables = extract(tmp_path, **TABLES)
    sync_graph(graph_settings, ledger_url, tables)
    opened.write("MATCH (n) DETACH DELETE n")
    assert sync_graph(graph_settings, ledger_url, tables).complete
    assert content(graph_settings) == (NODES, EDGES)


@pytest.mark.parametrize(
    "damage",
    [
        "MATCH (n:Lead {lead_id: 'l1'}) DETACH DELETE n",
        "MATCH ()-[e:REFERRED]->() DELETE e",
        "MATCH (m:LeadmlSync) SET m.generation = 0",
        "MATCH (m:LeadmlSync) SET m.graph_id = 'another'",
        "CREATE (:LeadmlSync {graph_id: 'another', generation: 1})",
    ],
)
def test_a_graph_that_is_not_as_it_was_left_is_repaired(
    graph_settings: Address, ledger_url: str, tmp_path: Path, opened: Bolt, damage: str
) -> None:
    early = TABLES | {"leads": [*LEADS, ("old", at(0), None, "h9")]}
    for number, tables in enumerate((early, TABLES)):
        sync_graph(graph_settings, ledger_url, extract(tmp_path / str(number), **tables))
    # What an older copy of the graph would still hold.
    opened.write("MERGE (n:Lead {lead_id: 'old'}) MERGE (n)-[:MEMBER_OF]->(:Household)")
    opened.write(damage)
    final = extract(tmp_path / "final", **TABLES)
    assert sync_graph(graph_settings, ledger_url, final).complete
    assert content(graph_settings) == (NODES, EDGES)
    assert sync_graph(graph_settings, ledger_url, final).changed == 0


def test_what_others_wrote_into_a_graph_before_us_stays(
    graph_settings: Address, ledger_url: str, tmp_path: Path, opened: Bolt
) -> None:
    opened.write("CREATE (:Lead {lead_id: 'theirs'})-[:LIKES]->(:Colour {name: 'green'})")
    for _ in range(2):
        sync_graph(graph_settings, ledger_url, extract(tmp_path, **TABLES))
    assert content(graph_settings) == (NODES | {("lead", "theirs", None)}, EDGES)
    liked = [record[0] for record in opened.read("MATCH (:Lead)-[:LIKES]->(c) RETURN c.name")]
    assert liked == ["green"]


@pytest.mark.parametrize("accepted", [0, 1, 3, 5, 8])
def test_a_crash_after_any_batch_is_repaired_even_if_the_tables_change_meanwhile(
    graph_settings: Address,
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accepted: int,
) -> None:
    before = TABLES | {"leads": [("gone", at(0), None, "h7"), *LEADS], "agents": [("z", at(0))]}
    during = TABLES | {
        "leads": [("l1", at(0), "c9", "h9"), *LEADS[1:], ("short", at(0), None, "h8")],
        "referrals": [("l3", "l1", at(2))],
        "assignments": [("l1", "x", at(1), None), ("short", "x", at(1), None)],
    }
    sync_graph(graph_settings, ledger_url, extract(tmp_path / "1", **before))
    left = accepted
    original = Bolt.write_rows

    def failing(self: Bolt, cypher: str, rows: Any) -> int:
        nonlocal left
        if left == 0:
            raise ConnectionError("the cable was pulled")
        left -= 1
        return original(self, cypher, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Bolt, "write_rows", failing)
        with pytest.raises(ConnectionError, match="cable"):
            sync_graph(graph_settings, ledger_url, extract(tmp_path / "2", **during))
    # Back to tables that know nothing of what the crashed run wrote.
    report = sync_graph(graph_settings, ledger_url, extract(tmp_path / "3", **TABLES))
    assert content(graph_settings) == (NODES, EDGES)
    assert not report.complete


def test_many_rows_travel_in_small_batches_and_report_their_progress(
    graph_settings: Address,
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync_module, "BATCH_ROWS", 100)
    tables = extract(
        tmp_path,
        leads=[(f"l{n}", at(n / 100), "c", f"h{n % 40}") for n in range(250)],
        agents=[("x", at(0))],
        assignments=[(f"l{n}", "x", at(n), None) for n in range(250)],
    )
    steps: list[tuple[int, int]] = []
    report = sync_graph(
        graph_settings, ledger_url, tables, lambda done, total: steps.append((done, total))
    )
    nodes, edges = content(graph_settings)
    assert (len(nodes), len(edges)) == (250 + 40 + 2, 750)
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (report.changed, report.changed)
    assert len(steps) >= 10


def test_two_synchronisations_at_once_wait_for_each_other(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    tables = extract(tmp_path, **TABLES)
    changed: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: changed.append(sync_graph(graph_settings, ledger_url, tables).changed)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [0, 0, 15]
    assert content(graph_settings) == (NODES, EDGES)


def test_writers_in_each_others_way_try_again(opened: Bolt, graph_settings: Address) -> None:
    opened.write("CREATE (:Counter {name: 'c', value: 0})")
    errors: list[Exception] = []

    def count() -> None:
        try:
            with open_graph(graph_settings) as mine:
                for _ in range(20):
                    mine.write("MATCH (c:Counter {name: 'c'}) SET c.value = c.value + 1")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert next(iter(opened.read("MATCH (c:Counter) RETURN c.value")))[0] == 60


def test_nodes_that_others_delete_during_a_synchronisation_are_missed_loudly(
    graph_settings: Address,
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: Bolt,
) -> None:
    tables = extract(tmp_path, **TABLES)
    original = Bolt.write_rows

    def interfering(self: Bolt, cypher: str, rows: Any) -> int:
        if "ASSIGNED_TO" in cypher:
            opened.write("MATCH (n:Lead {lead_id: 'l1'}) DETACH DELETE n")
        return original(self, cypher, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Bolt, "write_rows", interfering)
        with pytest.raises(GraphChangedError, match="2 of 3 ASSIGNED_TO edges"):
            sync_graph(graph_settings, ledger_url, tables)
    sync_graph(graph_settings, ledger_url, tables)
    assert content(graph_settings) == (NODES, EDGES)


def test_every_key_is_unique_in_the_graph(
    graph_settings: Address, ledger_url: str, tmp_path: Path, opened: Bolt
) -> None:
    from neo4j.exceptions import Neo4jError

    sync_graph(graph_settings, ledger_url, extract(tmp_path, **TABLES))
    for label, key, value in (
        ("Lead", "lead_id", "l1"),
        ("Agent", "agent_id", "x"),
        ("Household", "household_id", "h1"),
        ("Campaign", "campaign_id", "c1"),
    ):
        with pytest.raises(Neo4jError):
            opened.write(f"CREATE (:{label} {{{key}: $value}})", value=value)


def test_a_missing_table_is_named(ledger_url: str, graph_settings: Address, tmp_path: Path) -> None:
    tables = extract(tmp_path, **TABLES)
    del tables["referrals"]
    with pytest.raises(MissingTableError, match="referrals"):
        sync_graph(graph_settings, ledger_url, tables)


def test_a_graph_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bolt_module, "RETRY_SECONDS", 0.1)
    with (
        pytest.raises(GraphUnavailableError, match=r"bolt://127\.0\.0\.1:1 ") as caught,
        open_graph(("bolt://127.0.0.1:1", "me", "secret-word", "neo4j")),
    ):
        pass
    assert "secret-word" not in str(caught.value)


def test_the_ledger_holds_a_digest_for_every_node_and_edge_afterwards(
    graph_settings: Address, ledger_url: str, tmp_path: Path
) -> None:
    sync_graph(graph_settings, ledger_url, extract(tmp_path, **TABLES))
    with connect(ledger_url) as connection:
        rows = connection.execute(
            "SELECT count(*), count(digest) FROM leadml.graph_sync"
        ).fetchone()
    assert rows == (15, 15)
