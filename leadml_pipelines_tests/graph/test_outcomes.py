from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph.metrics import metrics_as_of
from leadml_pipelines.graph.model import GraphData
from leadml_pipelines.graph.outcomes import PRIOR_WEIGHT
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.graph.builders import at, graph, policies
from leadml_pipelines_tests.graph.test_metrics import DAYS, graphs, one

MICRO = timedelta(microseconds=1)
LEADS = [("lead", name, at(0)) for name in "abcdef"]
# Everyone knows everyone in each of two triples.
TRIPLES = [(x, y, "REFERRED", at(0), None) for x, y in ("ab", "bc", "ac", "de", "ef", "df")]


def rate(converted: float, leads: float, prior: float) -> float:
    return (converted + PRIOR_WEIGHT * prior) / (leads + PRIOR_WEIGHT)


def test_a_community_s_rate_is_that_of_the_others_drawn_to_that_of_all_others() -> None:
    found = metrics_as_of(graph(LEADS, TRIPLES), at(2), outcomes=policies(("b", at(1))))
    assert one(found, "a")["community_conversion_rate"] == pytest.approx(rate(1, 2, 1 / 5))
    assert one(found, "d")["community_conversion_rate"] == pytest.approx(rate(0, 2, 1 / 5))


@settings(max_examples=30, deadline=None)
@given(graphs(), DAYS, st.lists(st.tuples(st.integers(0, 7), DAYS), max_size=8))
def test_what_a_lead_did_itself_is_in_nothing_that_is_said_about_it(
    data: GraphData, as_of: datetime, bought: list[tuple[int, datetime]]
) -> None:
    outcomes = policies(*((f"n{lead}", bound) for lead, bound in bought))
    found = metrics_as_of(data, as_of, outcomes=outcomes)
    for lead in found.loc[found["entity_type"] == "lead", "entity_id"]:
        others = outcomes[outcomes["lead_id"] != lead]
        without = one(metrics_as_of(data, as_of, outcomes=others), lead)
        pd.testing.assert_series_equal(one(found, lead), without, check_exact=True)
        too = pd.concat([others, policies((lead, at(-1)))], ignore_index=True)
        with_ = one(metrics_as_of(data, as_of, outcomes=too), lead)
        pd.testing.assert_series_equal(one(found, lead), with_, check_exact=True)


def test_a_lead_that_has_nobody_has_the_rate_of_all_others() -> None:
    found = metrics_as_of(graph(LEADS), at(2), outcomes=policies(("a", at(1)), ("b", at(1))))
    assert one(found, "a")["community_conversion_rate"] == pytest.approx(1 / 5)
    assert one(found, "c")["community_conversion_rate"] == pytest.approx(2 / 5)


def test_the_only_lead_there_is_has_a_rate_of_nought() -> None:
    found = metrics_as_of(graph(LEADS[:1]), at(2), outcomes=policies(("a", at(1))))
    assert one(found, "a")["community_conversion_rate"] == 0


def test_only_leads_count_in_the_rate_of_a_community() -> None:
    data = graph(
        [*LEADS[:2], ("agent", "x", at(0))],
        [("a", "x", "ASSIGNED_TO", at(0), None), ("b", "x", "ASSIGNED_TO", at(0), None)],
    )
    found = metrics_as_of(data, at(2), outcomes=policies(("a", at(1))))
    assert one(found, "b")["community_conversion_rate"] == pytest.approx(rate(1, 1, 1))
    assert one(found, "x", "agent")["community_conversion_rate"] == pytest.approx(rate(1, 2, 0.5))


def test_an_outcome_counts_from_the_microsecond_of_the_binding_on() -> None:
    data = graph(LEADS, [(x, "h", "MEMBER_OF", at(0), None) for x in "ab"])
    data = GraphData(pd.concat([data.nodes, graph([("household", "h", None)]).nodes]), data.edges)
    outcomes = policies(("b", at(1)))
    before, after = (
        metrics_as_of(data, moment, outcomes=outcomes) for moment in (at(1) - MICRO, at(1))
    )
    assert one(before, "a")["household_conversions"] == 0
    assert one(before, "a")["community_conversion_rate"] == 0
    assert one(after, "a")["household_conversions"] == 1
    assert one(after, "b")["household_conversions"] == 0
    assert one(after, "a")["community_conversion_rate"] > 0


def test_a_lead_with_two_policies_is_one_that_has_bought() -> None:
    once, twice = policies(("b", at(1))), policies(("b", at(1)), ("b", at(1.5)))
    pd.testing.assert_frame_equal(
        metrics_as_of(graph(LEADS, TRIPLES), at(2), outcomes=once),
        metrics_as_of(graph(LEADS, TRIPLES), at(2), outcomes=twice),
    )


def agents(*assignments: tuple[str, str, float, float | None]) -> GraphData:
    return graph(
        [*LEADS, ("agent", "x", at(0)), ("agent", "y", at(0))],
        [
            (lead, agent, "ASSIGNED_TO", at(since), None if until is None else at(until))
            for lead, agent, since, until in assignments
        ],
    )


def test_an_agent_s_rate_is_over_all_leads_ever_assigned_and_the_load_over_those_of_now() -> None:
    data = agents(("a", "x", 0, 2), ("b", "x", 0, None), ("c", "x", 0, None), ("d", "y", 0, None))
    found = metrics_as_of(data, at(4), outcomes=policies(("a", at(1))))
    assert one(found, "x", "agent")["agent_load"] == 2
    assert one(found, "x", "agent")["agent_conversion_rate"] == pytest.approx(rate(1, 3, 1 / 4))
    assert one(found, "y", "agent")["agent_conversion_rate"] == pytest.approx(rate(0, 1, 1 / 4))


@pytest.mark.parametrize(
    ("bound", "counts"), [(0.9, False), (1, True), (2.9, True), (3, False), (3.5, False)]
)
def test_a_sale_is_the_agent_s_whose_lead_it_was_then(bound: float, counts: bool) -> None:
    data = agents(("a", "x", 1, 3), ("b", "y", 0, None))
    found = metrics_as_of(data, at(4), outcomes=policies(("a", at(bound))))
    expected = rate(1, 1, 1 / 2) if counts else 0
    assert one(found, "x", "agent")["agent_conversion_rate"] == pytest.approx(expected)


def test_a_lead_that_came_back_is_one_lead_of_the_agent() -> None:
    data = agents(("a", "x", 0, 1), ("a", "x", 2, None), ("a", "x", 3, None))
    found = metrics_as_of(data, at(4), outcomes=policies(("a", at(2.5))))
    assert one(found, "x", "agent")["agent_load"] == 1
    assert one(found, "x", "agent")["agent_conversion_rate"] == pytest.approx(rate(1, 1, 1))


def test_a_policy_before_the_assignment_does_not_hide_one_during_it() -> None:
    data = agents(("a", "x", 1, 3))
    found = metrics_as_of(data, at(4), outcomes=policies(("a", at(0.5)), ("a", at(2))))
    assert one(found, "x", "agent")["agent_conversion_rate"] == pytest.approx(1)


def test_a_lead_has_no_rate_of_an_agent() -> None:
    found = metrics_as_of(agents(("a", "x", 0, None)), at(1))
    assert found.loc[found["entity_type"] == "lead", "agent_conversion_rate"].isna().all()
    assert found.loc[found["entity_type"] == "agent", "agent_conversion_rate"].notna().all()


def test_policies_of_leads_that_are_not_in_the_graph_are_left_out() -> None:
    pd.testing.assert_frame_equal(
        metrics_as_of(graph(LEADS), at(2), outcomes=policies(("nobody", at(1)), ("x", None))),
        metrics_as_of(graph(LEADS), at(2)),
    )


def test_a_binding_without_time_zone_is_refused() -> None:
    naive = pd.DataFrame({"lead_id": ["a"], "bound_at": [pd.Timestamp("2026-01-06")]})
    with pytest.raises(NaiveTimeError, match="bound_at"):
        metrics_as_of(graph(LEADS), at(2), outcomes=naive)
