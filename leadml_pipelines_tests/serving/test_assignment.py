"""Who of two models answers for whom."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.serving.assignment import challenged, place

names = st.sampled_from(["churn", "conversion", "lead_score"])
experiments = st.text("abcdef_0123456789", min_size=1, max_size=20)
ids = st.text(min_size=1, max_size=40)
shares = st.floats(0, 1)


@given(names, experiments, ids)
def test_a_place_lies_in_zero_to_one_without_one(name: str, experiment: str, one: str) -> None:
    assert 0 <= place(name, experiment, one) < 1


@given(names, experiments, st.lists(ids, max_size=20), shares, shares)
def test_a_greater_share_moves_nobody_back(
    name: str, experiment: str, some: list[str], one: float, other: float
) -> None:
    less, more = sorted((one, other))
    small = challenged(name, experiment, some, less)
    great = challenged(name, experiment, some, more)
    assert all(after for before, after in zip(small, great, strict=True) if before)


@given(names, experiments, st.lists(ids, max_size=20))
def test_no_share_is_nobody_and_all_of_it_is_everybody(
    name: str, experiment: str, some: list[str]
) -> None:
    assert not any(challenged(name, experiment, some, 0.0))
    assert all(challenged(name, experiment, some, 1.0))


@given(names, experiments, st.lists(ids, min_size=1, max_size=20), shares)
def test_an_entity_has_its_model_whoever_is_asked_for_with_it(
    name: str, experiment: str, some: list[str], share: float
) -> None:
    alone = [challenged(name, experiment, [one], share)[0] for one in some]
    assert challenged(name, experiment, some, share) == alone


@given(names, experiments, st.floats(0.01, 0.99))
def test_the_share_is_met_within_noise(name: str, experiment: str, share: float) -> None:
    count = 2000
    drawn = sum(challenged(name, experiment, [f"lead_{i}" for i in range(count)], share))
    # Six standard deviations of a fair lot.
    assert abs(drawn - count * share) <= 6 * (count * share * (1 - share)) ** 0.5 + 1


def test_experiments_draw_independently_of_each_other() -> None:
    some = [f"lead_{i}" for i in range(4000)]
    first = challenged("churn", "churn_2", some, 0.5)
    second = challenged("churn", "churn_3", some, 0.5)
    other = challenged("conversion", "churn_2", some, 0.5)
    for drawn in (second, other):
        both = sum(a and b for a, b in zip(first, drawn, strict=True))
        assert abs(both - 1000) < 6 * 27.4


_PRINT = (
    "from leadml_pipelines.serving.assignment import place;"
    "print([place('churn', 'churn_2', f'lead_{i}') for i in range(50)])"
)


def test_every_process_draws_alike_whatever_its_hash_seed() -> None:
    here = str([place("churn", "churn_2", f"lead_{i}") for i in range(50)])
    for seed in ("0", "4242"):
        told = subprocess.run(
            [sys.executable, "-c", _PRINT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == here


def test_places_never_change_from_version_to_version() -> None:
    # A new version that drew otherwise would mix up every running experiment.
    assert place("churn", "churn_20260101_000000", "lead_1") == 0.6243140086795741
    assert place("conversion", "c", "lead:ü 1") == 0.8210773656374676
