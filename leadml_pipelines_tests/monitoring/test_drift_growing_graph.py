"""Metrics of a graph that grows: its size is no drift, its shape is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.graph.metrics import metrics_as_of
from leadml_pipelines.graph.model import GraphData
from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.monitoring.drift import DriftLimits, column_drifts
from leadml_pipelines.monitoring.watch import relative_features
from leadml_pipelines_tests.graph.builders import at, graph

A_WEEK = 60
WEEKS = 40
"""How long the business is when the model learns."""
LATER = 85
"""How long it is today: twice as large, and small enough for exact metrics of every node."""
SHARES = {
    "pagerank": "pagerank",
    "betweenness": "betweenness",
    "closeness": "closeness_harmonic",
    "community_share": "community_share",
    "community_size": "community_size",
}
"""Column of the metrics -> feature."""
COLUMNS = [Column(name, "double") for name in SHARES.values()]


def business(weeks: int, *, star: bool = False) -> GraphData:
    """Leads that come in tens by referrals of one of the ten; so many in a week.

    With `star`, all leads that came after the model had learned were referred by one lead.
    """
    rng = np.random.default_rng(3)
    nodes: list[tuple[Any, ...]] = []
    edges: list[tuple[Any, ...]] = []
    for n in range(weeks * A_WEEK):
        born = at(7 * n / A_WEEK)
        nodes.append(("lead", f"l{n}", born))
        group = n - n % 10
        if star and n >= WEEKS * A_WEEK:
            edges.append(("l0", f"l{n}", "REFERRED", born, None))
        elif n % 10:
            edges.append((f"l{rng.integers(group, n)}", f"l{n}", "REFERRED", born, None))
    return graph(nodes, edges)


def metrics(data: GraphData, moment: datetime) -> pd.DataFrame:
    """Metrics of the leads, by the names of the features."""
    found = metrics_as_of(data, moment)
    return found[found["entity_type"] == "lead"].rename(columns=SHARES).reset_index(drop=True)


@pytest.fixture(scope="module")
def learned() -> tuple[pd.DataFrame, np.ndarray]:
    """Metrics of each of the last ten weeks, and the week of each row."""
    data = business(WEEKS)
    weeks = [metrics(data, at(7 * week)) for week in range(WEEKS - 10, WEEKS)]
    return (
        pd.concat(weeks, ignore_index=True),
        np.repeat(np.arange(len(weeks)), [len(week) for week in weeks]).astype(np.int64),
    )


def drifted(
    learned: tuple[pd.DataFrame, np.ndarray], now: pd.DataFrame, *, relative: bool
) -> set[str]:
    rows, days = learned
    names = relative_features() if relative else frozenset[str]()
    found = column_drifts(rows, now, COLUMNS, DriftLimits(), days, names)
    return {one.name for one in found if one.drifted}


def test_a_graph_that_only_grows_has_not_drifted(
    learned: tuple[pd.DataFrame, np.ndarray],
) -> None:
    now = metrics(business(LATER), at(7 * LATER))
    assert {"pagerank", "closeness_harmonic"} <= drifted(learned, now, relative=False)
    assert drifted(learned, now, relative=True) == set()


def test_a_graph_that_grew_into_another_shape_has_drifted(
    learned: tuple[pd.DataFrame, np.ndarray],
) -> None:
    now = metrics(business(LATER, star=True), at(7 * LATER))
    assert {"pagerank", "closeness_harmonic"} <= drifted(learned, now, relative=True)


def test_the_catalogue_says_of_each_feature_whether_it_is_relative() -> None:
    assert relative_features() == set(SHARES.values())
    assert catalogue().feature("pagerank").relative
    assert not catalogue().feature("pagerank_relative").relative


def test_a_relative_number_that_broke_to_a_constant_has_drifted(
    learned: tuple[pd.DataFrame, np.ndarray],
) -> None:
    now = metrics(business(LATER), at(7 * LATER))
    now["pagerank"] = 0.001
    assert drifted(learned, now, relative=True) == {"pagerank"}


def test_where_all_is_zero_or_missing_there_is_no_mean_to_divide_by() -> None:
    days = np.repeat(np.arange(6), 100).astype(np.int64)
    before = pd.DataFrame({"pagerank": [0.0] * 300 + [np.nan] * 300})
    now = pd.DataFrame({"pagerank": [0.0] * 150 + [np.nan] * 150})
    (found,) = column_drifts(
        before, now, [Column("pagerank", "double")], DriftLimits(), days, {"pagerank"}
    )
    assert (found.relative, found.psi, found.drifted) == (True, 0.0, False)
