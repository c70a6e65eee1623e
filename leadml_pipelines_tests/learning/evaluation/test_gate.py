from __future__ import annotations

from typing import Any

import pytest

from leadml_pipelines.learning.evaluation.gate import Decision, decide
from leadml_pipelines.learning.spec import Group
from leadml_pipelines_tests.learning.frames import spec_for


def _figure(value: float, reach: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def _evaluation(
    metric: str = "roc_auc", value: float = 0.7, heuristic: float = 0.6, **changes: Any
) -> dict[str, Any]:
    """What an examination says of a candidate that passes; a test changes a part."""
    differences = {"heuristic": {metric: _figure(value - heuristic)}}
    return {
        "model": {metric: _figure(value)},
        "heuristic": {metric: _figure(heuristic)},
        "champion": None,
        "anchor": None,
        "compared_with": None,
        "held_to": None,
        "calibration": _calibrated(),
        "threshold": None,
        "slices": {},
        **changes,
        "differences": differences | changes.get("differences", {}),
    }


def _calibrated(**changes: Any) -> dict[str, Any]:
    """Chances that are sound."""
    return {"error": 0.01, "low": 0.0, "high": 0.02, "allowed": 0.05, "total": None, **changes}


def _with_champion(
    value: float, low: float, high: float, metric: str = "roc_auc"
) -> dict[str, Any]:
    gap = {"value": (low + high) / 2, "low": low, "high": high}
    return _evaluation(
        metric,
        champion={metric: _figure(value)},
        compared_with="toy_1",
        differences={"champion": {metric: gap}},
    )


def _sentence(decision: Decision, word: str) -> str:
    (found,) = [reason for reason in decision.reasons if word in reason]
    return found


def test_a_candidate_better_than_floor_and_heuristic_passes_and_says_so() -> None:
    decision = decide(spec_for(floor=0.65), _evaluation())
    assert decision.passed
    assert decision.reasons == (
        "ROC AUC 0.700 is better than the floor, 0.650",
        "ROC AUC 0.700 is better than, beyond noise, the heuristic quality_threshold, 0.600: "
        "the difference on the same rows is 0.100 (0.090 to 0.110)",
        "the chances are off by 0.010 on average (0.000 to 0.020), "
        "within the 0.050 that are allowed",
    )


@pytest.mark.parametrize(
    ("value", "rule", "said"),
    [
        (0.6, 0.5, "equals the floor"),
        (0.7, 0.7, "equals, within noise, the heuristic"),
        (0.7, 0.695, "equals, within noise, the heuristic"),
        (0.7, 0.8, "is worse than, beyond noise, the heuristic"),
    ],
)
def test_a_candidate_that_only_equals_a_limit_is_rejected_and_told_why(
    value: float, rule: float, said: str
) -> None:
    decision = decide(spec_for(floor=0.6), _evaluation(value=value, heuristic=rule))
    assert not decision.passed
    assert said in decision.reasons[0]


def test_lower_is_better_for_a_loss() -> None:
    spec = spec_for(metric="log_loss", floor=0.7)
    assert decide(spec, _evaluation("log_loss", 0.5, 0.6)).passed
    assert not decide(spec, _evaluation("log_loss", 0.65, 0.6)).passed


def test_a_candidate_below_the_champion_within_noise_passes() -> None:
    decision = decide(spec_for(), _with_champion(0.71, -0.03, 0.01))
    assert decision.passed
    assert _sentence(decision, "champion") == (
        "ROC AUC 0.700 equals, within noise, the champion toy_1, 0.710: "
        "the difference on the same rows is -0.010 (-0.030 to 0.010)"
    )


def test_a_candidate_far_below_the_champion_is_rejected_however_great_the_noise() -> None:
    decision = decide(spec_for(champion_margin=0.02), _with_champion(0.73, -0.08, 0.02))
    assert not decision.passed
    assert "is more than 0.020 worse than, within noise, the champion" in decision.reasons[0]


def test_a_candidate_below_the_champion_beyond_noise_is_rejected_first_of_all() -> None:
    decision = decide(spec_for(), _with_champion(0.72, -0.05, -0.001))
    assert not decision.passed
    assert "is worse than, beyond noise, the champion toy_1" in decision.reasons[0]


def test_worse_than_the_champion_is_the_other_side_for_a_loss() -> None:
    spec = spec_for(metric="log_loss", floor=0.9)
    evaluation = _with_champion(0.4, 0.01, 0.05, "log_loss")
    without = {"champion": evaluation["differences"]["champion"]}
    assert not decide(spec, {**evaluation, "differences": without}).passed
    evaluation = _with_champion(0.4, -0.05, -0.01, "log_loss")
    without = {"champion": evaluation["differences"]["champion"]}
    assert decide(spec, {**evaluation, "differences": without}).passed


@pytest.mark.parametrize(
    ("low", "passed", "word"), [(0.055, False, "beyond"), (0.045, True, "within")]
)
def test_chances_off_by_more_than_allowed_are_rejected_beyond_noise(
    low: float, passed: bool, word: str
) -> None:
    calibration = _calibrated(error=0.08, low=low, high=0.1)
    decision = decide(spec_for(), _evaluation(calibration=calibration))
    assert decision.passed == passed
    assert _sentence(decision, "the chances are") == (
        f"the chances are off by 0.080 on average ({low:.3f} to 0.100), {word} noise more than the "
        "0.050 that are allowed"
    )


@pytest.mark.parametrize(
    ("ratio", "reach", "positive", "passed"),
    [
        (1.5, 0.2, True, False),
        (1.5, 0.3, True, True),
        (1.2, 0.05, True, True),
        (0.6, 0.1, False, False),
    ],
)
def test_as_many_must_come_as_the_chances_say_within_noise_or_a_quarter(
    ratio: float, reach: float, positive: bool, passed: bool
) -> None:
    total = {"positive": positive, "said": 30.0, "came": 20.0, **_figure(ratio, reach)}
    decision = decide(spec_for(), _evaluation(calibration=_calibrated(total=total)))
    assert decision.passed == passed
    what = "the chances" if positive else "the chances of a no"
    assert f"{what} sum to {ratio:.3f} of those that came" in _sentence(decision, "sum to")


@pytest.mark.parametrize(("loss", "reach", "passed"), [(0.02, 0.01, False), (0.02, 0.03, True)])
def test_chances_worth_less_than_one_number_for_all_are_rejected_beyond_noise(
    loss: float, reach: float, passed: bool
) -> None:
    evaluation = _evaluation(
        base_rate={"log_loss": _figure(0.25)},
        differences={"base_rate": {"log_loss": _figure(loss, reach)}},
    )
    evaluation["model"]["log_loss"] = _figure(0.27)
    decision = decide(spec_for(), evaluation)
    assert decision.passed == passed
    assert "the base rate for everybody, 0.250" in _sentence(decision, "log loss 0.270")


@pytest.mark.parametrize(("over", "reach", "passed"), [(0.08, 0.05, False), (0.08, 0.1, True)])
def test_answers_that_cost_more_than_one_answer_for_all_are_rejected_beyond_noise(
    over: float, reach: float, passed: bool
) -> None:
    threshold = {
        "cost": 0.75,
        "cost_of_always": 0.67,
        "cost_of_never": 0.93,
        "over_cheaper": _figure(over, reach),
    }
    decision = decide(spec_for(), _evaluation(threshold=threshold))
    assert decision.passed == passed
    assert "always yes, 0.6700: the difference" in _sentence(decision, "the answers cost 0.7500")


@pytest.mark.parametrize(("value", "passed"), [(0.715, True), (0.725, False)])
def test_a_candidate_may_lose_one_margin_to_the_anchor_however_sure_the_loss(
    value: float, passed: bool
) -> None:
    evaluation = _evaluation(
        anchor={"roc_auc": _figure(value)},
        held_to={"model_id": "toy_0"},
        differences={"anchor": {"roc_auc": _figure(0.7 - value, 0.001)}},
    )
    decision = decide(spec_for(champion_margin=0.02), evaluation)
    assert decision.passed == passed
    said = "is no more than" if passed else "is more than"
    assert f"{said} 0.020 worse than the best champion since a person promoted last, toy_0" in (
        _sentence(decision, "toy_0")
    )


@pytest.mark.parametrize(
    ("ratio", "reach", "passed"),
    [(1.3, 0.04, False), (1.3, 0.1, True), (1.05, 0.01, True), (0.7, 0.04, False)],
)
def test_values_must_sum_to_what_came_within_noise_or_a_quarter(
    ratio: float, reach: float, passed: bool
) -> None:
    evaluation = _evaluation("spearman", 0.3, 0.1, calibration=None)
    evaluation["model"]["total_ratio"] = _figure(ratio, reach)
    decision = decide(spec_for("regression", floor=0.05), evaluation)
    assert decision.passed == passed
    assert f"sum to {ratio:.3f} of those that came" in _sentence(decision, "sum to")


def _slice(value: float, reach: float) -> dict[str, Any]:
    return {"rows": 100, "positives": 40, **_figure(value, reach)}


def test_a_slice_below_its_floor_beyond_noise_is_named_and_rejects() -> None:
    slices = {"state": {"TX": _slice(0.5, 0.02), "NY": _slice(0.7, 0.02)}}
    decision = decide(spec_for(slice_floor=0.55), _evaluation(slices=slices))
    assert not decision.passed
    assert decision.reasons[0] == (
        "ROC AUC 0.500 (0.480 to 0.520) where state is TX is worse than the floor of slices, "
        "0.550, beyond noise"
    )


def test_a_slice_below_its_floor_within_noise_passes() -> None:
    slices = {"state": {"TX": _slice(0.5, 0.06)}}
    decision = decide(spec_for(slice_floor=0.55), _evaluation(slices=slices))
    assert decision.passed
    assert "none of 1 slices" in _sentence(decision, "slices")


def test_the_more_slices_are_looked_at_the_further_off_one_must_be() -> None:
    one = {"state": {"TX": _slice(0.5, 0.045)}}
    many = {"state": {"TX": _slice(0.5, 0.045), **{f"S{n}": _slice(0.7, 0.02) for n in range(60)}}}
    assert not decide(spec_for(slice_floor=0.55), _evaluation(slices=one)).passed
    assert decide(spec_for(slice_floor=0.55), _evaluation(slices=many)).passed


def test_without_a_floor_for_slices_none_is_judged_by_its_metric_alone() -> None:
    slices = {"state": {"TX": _slice(0.1, 0.001)}}
    assert decide(spec_for(slice_floor=None), _evaluation(slices=slices)).passed


@pytest.mark.parametrize("floor", [None, 0.1])
def test_a_candidate_worse_than_the_heuristic_for_young_leads_is_rejected(
    floor: float | None,
) -> None:
    ahead = {"value": -0.08, "low": -0.11, "high": -0.05}
    slices = {"lead_age": {"up to 6 hours": {**_slice(0.6, 0.02), "ahead": ahead}}}
    decision = decide(spec_for(slice_floor=floor), _evaluation(slices=slices))
    assert not decision.passed
    assert decision.reasons[0] == (
        "ROC AUC 0.600 where lead_age is up to 6 hours is worse than the heuristic "
        "quality_threshold, beyond noise: the difference on the same rows is -0.080 "
        "(-0.110 to -0.050)"
    )


def test_a_candidate_behind_the_heuristic_within_noise_in_a_slice_passes_and_says_so() -> None:
    ahead = {"value": -0.01, "low": -0.04, "high": 0.02}
    slices = {"lead_age": {"up to 6 hours": {**_slice(0.6, 0.02), "ahead": ahead}}}
    decision = decide(spec_for(), _evaluation(slices=slices))
    assert decision.passed
    assert "in none of 1 slices the heuristic quality_threshold" in _sentence(decision, "slices")


def test_no_slice_large_enough_is_said_and_passes() -> None:
    decision = decide(spec_for(slice_floor=0.55), _evaluation())
    assert decision.passed
    assert "none was compared" in _sentence(decision, "slice")


def test_what_could_not_be_compared_is_told_last() -> None:
    decision = decide(spec_for(), _evaluation(), ["not compared with the champion toy_1: gone"])
    assert decision.passed
    assert decision.reasons[-1] == "not compared with the champion toy_1: gone"


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ("heuristic", "the heuristic quality_rescaled"),
        ("logistic", "a linear model"),
        ("champion", "the champion"),
        ("anchor", "the best champion since a person promoted last"),
    ],
)
def test_who_has_no_such_metric_on_these_rows_is_named(who: str, name: str) -> None:
    evaluation = _evaluation("spearman", 0.3, 0.1, calibration=None)
    evaluation |= {"logistic": {"spearman": _figure(0.2)}, who: {"mae": _figure(4.0)}}
    evaluation["differences"].pop(who, None)
    decision = decide(spec_for("regression", floor=0.05), evaluation)
    assert decision.reasons[-1] == (
        f"not compared with {name}: its Spearman correlation is undefined on the test rows"
    )


def test_an_undefined_metric_does_not_pass() -> None:
    decision = decide(spec_for(), _evaluation(model={}))
    assert not decision.passed
    assert "roc_auc is undefined" in decision.reasons[0]


@pytest.mark.parametrize(("value", "passed"), [(0.59, True), (0.57, False)])
def test_a_group_is_held_to_its_own_floor(value: float, passed: bool) -> None:
    spec = spec_for(
        groups=(Group(word="customer", slice_floor=0.6),),
        group_by="stage",
        slices=("stage",),
        slice_floor=0.7,
    )
    facts = {"rows": 900, "positives": 90}
    slices = {
        "stage": {
            "customer": {**facts, **_figure(value, 0.02)},
            "open": {**facts, **_figure(0.8)},
        }
    }
    decision = decide(spec, _evaluation(slices=slices))
    assert decision.passed == passed
    verdict = "is not worse" if passed else "is worse"
    assert verdict in _sentence(decision, "where stage is customer")
    assert "none of 1 slices is worse than the floor of slices, 0.700" in " ".join(decision.reasons)
