from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.graph.timeline import Timeline
from leadml_pipelines_tests.graph.builders import at, graph, policies, shuffled

LEADS = [("lead", name, at(0)) for name in "abc"]


def print_of(edges: list[tuple[object, ...]], day: float = 2) -> str:
    return Timeline.of(graph(LEADS, edges)).fingerprint(at(day), "v")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=6, unique=True))
def test_a_fingerprint_does_not_depend_on_the_order_of_rows(pairs: list[tuple[str, str]]) -> None:
    data = graph(LEADS, [(a, b, "REFERRED", at(1), None) for a, b in pairs])
    first = Timeline.of(data).fingerprint(at(2), "v")
    assert Timeline.of(shuffled(data, 1)).fingerprint(at(2), "v") == first


def test_a_fingerprint_tells_the_direction_of_a_referral() -> None:
    there = print_of([("a", "b", "REFERRED", at(1), None)])
    assert there != print_of([("b", "a", "REFERRED", at(1), None)])


def test_a_fingerprint_tells_which_nodes_are_joined() -> None:
    crossed = [("a", "b", "REFERRED", at(1), None), ("b", "c", "REFERRED", at(1), None)]
    straight = [("a", "c", "REFERRED", at(1), None), ("b", "b", "REFERRED", at(1), None)]
    assert print_of(crossed) != print_of(straight)


def test_a_fingerprint_changes_only_at_moments_that_an_edit_touches() -> None:
    short = [("a", "b", "ASSIGNED_TO", at(1), at(3))]
    data = [*LEADS, ("agent", "b", at(0))]
    longer = [("a", "b", "ASSIGNED_TO", at(1), at(5))]
    before, after = Timeline.of(graph(data, short)), Timeline.of(graph(data, longer))
    changed = [
        day for day in range(7) if before.fingerprint(at(day), "") != after.fingerprint(at(day), "")
    ]
    assert changed == [3, 4]


def test_a_fingerprint_tells_who_referred_a_lead_first() -> None:
    def referred(first: str, then: str) -> list[tuple[object, ...]]:
        return [
            (first, "c", "REFERRED", at(1), None),
            (then, "c", "REFERRED", at(1.5), None),
        ]

    assert print_of(referred("a", "b")) != print_of(referred("b", "a"))


def test_a_fingerprint_tells_which_assignments_have_ended_from_those_that_never_were() -> None:
    data = [*LEADS, ("agent", "x", at(0))]
    ended = Timeline.of(graph(data, [("a", "x", "ASSIGNED_TO", at(1), at(2))]))
    assert ended.fingerprint(at(3), "") != Timeline.of(graph(data)).fingerprint(at(3), "")


def test_a_fingerprint_tells_what_is_known_of_outcomes_and_no_more() -> None:
    data = graph([*LEADS, ("agent", "x", at(0))], [("a", "x", "ASSIGNED_TO", at(1), at(3))])
    without = Timeline.of(data)
    for bound, touched in ((0, [0, 1, 2, 3, 4]), (2, [2, 3, 4]), (4, [4])):
        timeline = Timeline.of(data, policies(("a", at(bound))))
        changed = [
            day
            for day in range(5)
            if timeline.fingerprint(at(day), "") != without.fingerprint(at(day), "")
        ]
        assert changed == touched


def test_a_fingerprint_tells_whether_a_sale_fell_into_an_assignment() -> None:
    data = [*LEADS, ("agent", "x", at(0))]
    early, late = (
        Timeline.of(
            graph(data, [("a", "x", "ASSIGNED_TO", at(since), at(3))]), policies(("a", at(1)))
        )
        for since in (0.5, 1.5)
    )
    assert early.fingerprint(at(4), "") != late.fingerprint(at(4), "")


def test_edges_without_both_ends_or_of_another_relation_are_left_out() -> None:
    timeline = Timeline.of(
        graph(
            LEADS,
            [
                ("a", "nobody", "REFERRED", at(1), None),
                ("a", "a", "REFERRED", at(1), None),
                ("a", "b", "KNOWS", at(1), None),
                ("a", "b", "REFERRED", at(1), None),
            ],
        )
    )
    assert len(timeline.src) == 1


def test_a_node_that_is_listed_twice_is_one_node_since_the_earlier_time() -> None:
    timeline = Timeline.of(graph([("lead", "a", at(3)), ("lead", "a", at(1))]))
    assert len(timeline.node_id) == 1
    assert timeline.alive(at(1))[0].tolist() == [True]


def test_an_edge_of_unknown_start_holds_as_long_as_both_its_nodes_exist() -> None:
    timeline = Timeline.of(
        graph([("lead", "a", at(1)), ("lead", "b", at(2))], [("a", "b", "REFERRED", None, None)])
    )
    assert [bool(timeline.alive(at(day))[1].any()) for day in (1, 2, 9)] == [False, True, True]
