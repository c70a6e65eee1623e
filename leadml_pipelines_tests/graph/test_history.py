from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph import history
from leadml_pipelines.graph.history import (
    MissingFolderError,
    export_graph_metrics,
    graph_snapshots,
    refresh_graph_metrics,
    weekly_moments,
    write_graph_metrics,
)
from leadml_pipelines.graph.metrics import COLUMNS
from leadml_pipelines.graph.model import GraphData
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.graph.builders import at, graph, policies

WEEK = timedelta(weeks=1)
NODES = [("lead", f"l{n}", at(n)) for n in range(20)] + [("agent", "x", at(0))]
EDGES = [(f"l{n}", f"l{n // 2}", "REFERRED", at(n), None) for n in range(1, 20)]
GRAPH = graph(NODES, EDGES)
NOW = at(30)
MONDAYS = [datetime(2026, 1, 12, tzinfo=UTC) + n * WEEK for n in range(4)]


def stored(url: str) -> pd.DataFrame:
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM leadml.graph_metrics"
            ' ORDER BY as_of, entity_type DESC, entity_id COLLATE "C"'
        )
        return pd.DataFrame(cursor.fetchall(), columns=list(COLUMNS))


def computed_at(url: str) -> dict[datetime, datetime]:
    with connect(url) as connection:
        rows = connection.execute("SELECT as_of, computed_at FROM leadml.graph_moments").fetchall()
    return dict(rows)


def recomputed(
    url: str,
    data: GraphData,
    as_of: datetime = NOW,
    outcomes: pd.DataFrame | None = None,
) -> set[datetime]:
    before = computed_at(url)
    report = refresh_graph_metrics(url, data, as_of, outcomes=outcomes)
    after = computed_at(url)
    changed = {moment for moment in after if before.get(moment) != after[moment]}
    assert len(changed) == report.computed
    return changed


@settings(max_examples=200, deadline=None)
@given(
    st.timedeltas(timedelta(0), timedelta(days=400)).map(lambda length: at(0) + length),
    st.timedeltas(timedelta(0), timedelta(days=70)),
)
def test_the_moments_are_the_mondays_in_between_and_nothing_else(
    first: datetime, length: timedelta
) -> None:
    as_of = first + length
    moments = weekly_moments(first, as_of)
    assert all(
        m.weekday() == 0 and m.timetz() == datetime.min.time().replace(tzinfo=UTC) for m in moments
    )
    assert all(first <= m <= as_of for m in moments)
    assert all(b - a == WEEK for a, b in pairwise(moments))
    if moments:
        assert moments[0] - first < WEEK
        assert as_of - moments[-1] < WEEK
    else:
        assert length < WEEK


def test_a_monday_is_its_own_moment() -> None:
    assert weekly_moments(MONDAYS[0], MONDAYS[1]) == MONDAYS[:2]
    micro = timedelta(microseconds=1)
    assert weekly_moments(MONDAYS[0] + micro, MONDAYS[1] - micro) == []


def test_a_refresh_stores_the_metrics_as_of_every_moment(ledger_url: str) -> None:
    steps: list[tuple[int, int]] = []
    report = refresh_graph_metrics(
        ledger_url, GRAPH, NOW, progress=lambda done, total: steps.append((done, total))
    )
    expected = graph_snapshots(GRAPH, MONDAYS)
    pd.testing.assert_frame_equal(stored(ledger_url), expected, check_dtype=False, check_exact=True)
    assert (report.moments, report.computed, report.rows) == (4, 4, len(expected))
    assert report.entities == 21
    assert steps == [(n, 4) for n in range(1, 5)]


def test_a_repeated_refresh_computes_nothing(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    assert recomputed(ledger_url, GRAPH) == set()


def test_a_later_refresh_computes_only_the_new_moments(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    assert recomputed(ledger_url, GRAPH, NOW + WEEK) == {MONDAYS[-1] + WEEK}


def test_a_refresh_in_the_middle_of_a_week_adds_no_moment(ledger_url: str) -> None:
    """What is served would else be fresher than what any model has learned from."""
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    for days in (1, 2):
        newborn = graph([*NODES, ("lead", "newborn", NOW)], EDGES)
        assert recomputed(ledger_url, newborn, NOW + timedelta(days=days)) == set()
    assert set(stored(ledger_url)["as_of"]) == {*MONDAYS}
    assert "newborn" not in set(stored(ledger_url)["entity_id"])


def test_a_graph_younger_than_its_first_monday_has_no_metrics_yet(ledger_url: str) -> None:
    report = refresh_graph_metrics(ledger_url, GRAPH, at(6))
    assert (report.moments, report.computed, report.rows, report.entities) == (0, 0, 0, 0)
    assert stored(ledger_url).empty


def test_moments_before_the_first_lead_are_dropped(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    without_the_first = graph([("lead", "late", at(15))])
    refresh_graph_metrics(ledger_url, without_the_first, NOW)
    assert {*computed_at(ledger_url)} == {*MONDAYS[2:]}
    assert set(stored(ledger_url)["entity_id"]) == {"late"}


def test_a_late_edge_recomputes_the_moments_from_its_start_on(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    late = graph(NODES, [*EDGES, ("l7", "x", "ASSIGNED_TO", at(8), None)])
    assert recomputed(ledger_url, late) == {m for m in MONDAYS if m >= at(8)}
    expected = graph_snapshots(late, MONDAYS)
    pd.testing.assert_frame_equal(stored(ledger_url), expected, check_dtype=False, check_exact=True)


def test_a_policy_recomputes_the_moments_from_its_binding_on(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    bought = policies(("l3", at(16)))
    assert recomputed(ledger_url, GRAPH, outcomes=bought) == {m for m in MONDAYS if m >= at(16)}
    assert recomputed(ledger_url, GRAPH, outcomes=bought) == set()
    expected = graph_snapshots(GRAPH, MONDAYS, outcomes=bought)
    pd.testing.assert_frame_equal(stored(ledger_url), expected, check_dtype=False, check_exact=True)
    assert expected["community_conversion_rate"].any()


def test_a_second_policy_of_a_lead_changes_no_moment(ledger_url: str) -> None:
    once = policies(("l3", at(9)))
    refresh_graph_metrics(ledger_url, GRAPH, NOW, outcomes=once)
    again = policies(("l3", at(9)), ("l3", at(20)))
    assert recomputed(ledger_url, GRAPH, outcomes=again) == set()


def test_an_assignment_that_ends_changes_no_moment_before_its_end(ledger_url: str) -> None:
    assigned = ("l1", "x", "ASSIGNED_TO", at(2))
    refresh_graph_metrics(ledger_url, graph(NODES, [*EDGES, (*assigned, None)]), NOW)
    ended = graph(NODES, [*EDGES, (*assigned, at(20))])
    assert recomputed(ledger_url, ended) == {m for m in MONDAYS if m >= at(20)}


def test_a_deleted_lead_leaves_no_row_behind(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    refresh_graph_metrics(ledger_url, graph(NODES[1:], EDGES[1:]), NOW)
    assert "l0" not in set(stored(ledger_url)["entity_id"])


def test_another_seed_computes_everything_again(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    assert refresh_graph_metrics(ledger_url, GRAPH, NOW, seed=8).computed == 4


def test_moments_after_the_present_are_left_alone(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    assert recomputed(ledger_url, graph(NODES[:1]), at(10)) == {MONDAYS[0]}
    after = stored(ledger_url)
    expected = graph_snapshots(GRAPH, MONDAYS[1:])
    found = after[after["as_of"] > MONDAYS[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


def test_an_interrupted_refresh_leaves_whole_moments_and_is_finished_by_the_next(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_WRITE_ROWS", 1)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh_graph_metrics(ledger_url, GRAPH, NOW, progress=interrupt)
    written = [*computed_at(ledger_url)]
    assert 0 < len(written) < 4
    pd.testing.assert_frame_equal(
        stored(ledger_url), graph_snapshots(GRAPH, sorted(written)), check_dtype=False
    )
    assert recomputed(ledger_url, GRAPH) == {*MONDAYS} - {*written}


def test_an_empty_graph_leaves_nothing(ledger_url: str) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    report = refresh_graph_metrics(ledger_url, graph([]), NOW)
    assert (report.moments, report.rows, report.entities) == (0, 0, 0)
    assert stored(ledger_url).empty


def test_writing_a_frame_replaces_its_moments_whole(ledger_url: str) -> None:
    write_graph_metrics(ledger_url, graph_snapshots(GRAPH, MONDAYS))
    fewer = graph_snapshots(graph(NODES[:3]), MONDAYS[:1])
    assert write_graph_metrics(ledger_url, fewer) == len(fewer)
    found = stored(ledger_url)
    assert (found["as_of"] == MONDAYS[0]).sum() == len(fewer)
    assert (found["as_of"] == MONDAYS[1]).sum() == len(graph_snapshots(GRAPH, MONDAYS[1:2]))


def test_a_moment_off_the_grid_is_refused(ledger_url: str) -> None:
    with pytest.raises(ValueError, match=r"2026-02-04T12:00:00\.123456.* is none"):
        write_graph_metrics(ledger_url, graph_snapshots(GRAPH, [MONDAYS[0], NOW]))
    assert stored(ledger_url).empty


def test_no_moments_are_an_empty_frame() -> None:
    assert graph_snapshots(GRAPH, []).empty


def test_the_export_holds_the_table_in_utc_microseconds(ledger_url: str, tmp_path: Path) -> None:
    refresh_graph_metrics(ledger_url, GRAPH, NOW)
    path = tmp_path / "graph_metrics.parquet"
    rows = export_graph_metrics(ledger_url, path)
    table = pq.read_table(path)
    assert table.num_rows == rows == len(stored(ledger_url))
    types = {field.name: str(field.type) for field in table.schema}
    assert types["as_of"] == types["computed_at"] == "timestamp[us, tz=UTC]"
    found = table.to_pandas()[list(COLUMNS)].sort_values(
        ["as_of", "entity_type", "entity_id"], ascending=[True, False, True], ignore_index=True
    )
    pd.testing.assert_frame_equal(found, stored(ledger_url), check_dtype=False, check_exact=True)


def test_the_folder_of_a_dropped_extract_is_not_made_anew(ledger_url: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(MissingFolderError, match="gone does not exist"):
        export_graph_metrics(ledger_url, gone / "graph_metrics.parquet")
    assert not gone.exists()


def test_each_writer_of_the_export_has_a_file_of_its_own(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    class Spy(pq.ParquetWriter):
        def __init__(self, where: Path, *args: object, **more: object) -> None:
            opened.append(where)
            super().__init__(where, *args, **more)

    monkeypatch.setattr(pq, "ParquetWriter", Spy)
    for _ in range(2):
        export_graph_metrics(ledger_url, tmp_path / "graph_metrics.parquet")
    assert len({*opened}) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["graph_metrics.parquet"]


def test_the_export_of_an_empty_table_still_has_its_columns(
    ledger_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph_metrics.parquet"
    assert export_graph_metrics(ledger_url, path) == 0
    assert {"computed_at", *COLUMNS} == set(pq.read_schema(path).names)
    assert [p.name for p in tmp_path.iterdir()] == ["graph_metrics.parquet"]
