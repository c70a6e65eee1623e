"""Whether a candidate may become champion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text
from leadml_pipelines.learning.evaluation.slices import LEAST_LEADS, Slice
from leadml_pipelines.learning.spec import ModelSpec


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        passed: Whether the candidate may be promoted.
        reasons: A sentence for each comparison that was made, failed ones first.
    """

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Judged:
    passed: bool
    sentence: str


def decide(spec: ModelSpec, evaluation: Mapping[str, Any], remarks: Sequence[str] = ()) -> Decision:
    """Compare a candidate with its floor, the rule it replaces, the champion, and the truth.

    Beyond noise means that the whole 95 % interval of a difference on the same rows is on one side.
    A candidate is rejected when it does not beat the floor, or not the heuristic beyond noise; when
    its log loss is worse than that of the base rate beyond noise, or its answers cost more than the
    cheaper of always yes and always no; when it is worse than the champion beyond noise, or by more
    than the spec's margin; when it is worse than the anchor, the best champion since a person
    promoted last, by more than that margin, so that many small steps can't lead down; when its
    chances are off by more than is allowed, beyond noise; when chances or values sum to more or
    less than came by more than is allowed and than noise; or when in a slice (of young leads, say)
    the heuristic is better beyond noise, or the metric below the spec's floor for slices.

    Args:
        spec: Names the metric and the limits.
        evaluation: The document of `examination.examine`.
        remarks: What could not be compared, and why; added to the reasons, behind those whose
            metric is undefined on the test rows.
    """
    if spec.metric not in evaluation["model"]:
        return Decision(False, (f"{spec.metric} is undefined on the test rows", *remarks))
    judged = [
        *_floor(spec, evaluation),
        *_heuristic(spec, evaluation),
        *_base_rate(spec, evaluation),
        *_champion(spec, evaluation),
        *_anchor(spec, evaluation),
        *_calibration(spec, evaluation),
        *_total(spec, evaluation),
        *_threshold(spec, evaluation),
        *_slices(spec, evaluation),
    ]
    return Decision(
        all(one.passed for one in judged),
        (
            *(one.sentence for one in judged if not one.passed),
            *(one.sentence for one in judged if one.passed),
            *_undefined(spec, evaluation),
            *remarks,
        ),
    )


def _undefined(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Those beside whom the candidate was measured, but who have no such metric on these rows."""
    names = {
        "heuristic": f"the heuristic {spec.heuristic}",
        "logistic": "a linear model",
        "champion": "the champion",
        "anchor": "the best champion since a person promoted last",
    }
    for who, name in names.items():
        figures = evaluation.get(who)
        if figures is not None and spec.metric not in figures:
            yield (
                f"not compared with {name}: its {METRIC_NAMES[spec.metric]} is undefined on the "
                "test rows"
            )


def _floor(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    mine = _value(spec, evaluation, "model")
    ahead = mine - spec.floor if spec.higher_is_better else spec.floor - mine
    verdict = "is better than" if ahead > 0 else "equals" if ahead == 0 else "is worse than"
    yield _Judged(
        ahead > 0,
        f"{METRIC_NAMES[spec.metric]} {_text(spec, mine)} {verdict} the floor, "
        f"{_text(spec, spec.floor)}",
    )


def _heuristic(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    found = evaluation["differences"].get("heuristic", {}).get(spec.metric)
    if found is None:
        return
    better, verdict = _side(found, spec.higher_is_better)
    yield _Judged(better > 0, _beside(spec, evaluation, "heuristic", verdict, found))


def _base_rate(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    """A model that ranks a little and whose chances say less than one number for all is none."""
    found = evaluation["differences"].get("base_rate", {}).get("log_loss")
    if found is None:
        return
    better, verdict = _side(found, higher_is_better=False)
    mine, other = (evaluation[who]["log_loss"]["value"] for who in ("model", "base_rate"))
    yield _Judged(
        better >= 0,
        f"log loss {metric_text('log_loss', mine)} {verdict} the base rate for everybody, "
        f"{metric_text('log_loss', other)}: {_difference('log_loss', found)}",
    )


def _champion(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    found = evaluation["differences"].get("champion", {}).get(spec.metric)
    if found is None:
        return
    better, verdict = _side(found, spec.higher_is_better)
    too_far = _loss(spec, found) > spec.champion_margin
    if too_far and better >= 0:
        verdict = f"is more than {_text(spec, spec.champion_margin)} worse than, within noise,"
    yield _Judged(
        better >= 0 and not too_far, _beside(spec, evaluation, "champion", verdict, found)
    )


def _anchor(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    """Many steps of less than a margin, each within noise of the one before, must not lead down.

    Only the margin counts: the anchor is the best of several on much the same rows, so that a part
    of what it is ahead by is luck.
    """
    found = evaluation["differences"].get("anchor", {}).get(spec.metric)
    if found is None:
        return
    too_far = _loss(spec, found) > spec.champion_margin
    verdict = "is more than" if too_far else "is no more than"
    margin = _text(spec, spec.champion_margin)
    yield _Judged(
        not too_far,
        _beside(spec, evaluation, "anchor", f"{verdict} {margin} worse than", found),
    )


def _threshold(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    found = evaluation["threshold"]
    if found is None or found["over_cheaper"] is None:
        return
    always, never = found["cost_of_always"], found["cost_of_never"]
    name = "always yes" if always < never else "always no"
    over = found["over_cheaper"]
    verdict = (
        "more than, beyond noise,"
        if over["low"] > 0
        else "less than, beyond noise,"
        if over["high"] < 0
        else "as much as, within noise,"
    )
    yield _Judged(
        over["low"] <= 0,
        f"the answers cost {found['cost']:.4f} a row, {verdict} {name}, {min(always, never):.4f}: "
        f"the difference on the same rows is {over['value']:.4f} "
        f"({over['low']:.4f} to {over['high']:.4f})",
    )


def _calibration(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    if spec.objective != "classification":
        return
    found = evaluation["calibration"]
    error, low, high, allowed = (found[key] for key in ("error", "low", "high", "allowed"))
    said = f"the chances are off by {error:.3f} on average ({low:.3f} to {high:.3f})"
    if error <= allowed:
        yield _Judged(True, f"{said}, within the {allowed:.3f} that are allowed")
        return
    beyond = low > allowed
    yield _Judged(
        not beyond,
        f"{said}, {'beyond' if beyond else 'within'} noise more than the {allowed:.3f} that are "
        "allowed",
    )


def _total(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    """Whether as much came as was said: ten bins of chances hide it where the event is rare."""
    if spec.objective == "classification":
        found = evaluation["calibration"]["total"]
        what = "the chances"
        if found is not None and not found["positive"]:
            what = "the chances of a no"
    else:
        found = evaluation["model"].get("total_ratio")
        what = "the predicted values"
    if found is None:
        return
    # Not by the figure alone: a season unlike the training months moves it for every model, and a
    # first model that nothing is better than would be kept out by it.
    allowed = spec.max_total_error
    off = abs(found["value"] - 1) > allowed
    beyond = found["low"] > 1 + allowed or found["high"] < 1 - allowed
    verdict = (
        f"off by no more than {allowed:.0%}"
        if not off
        else f"off by more than {allowed:.0%}, {'beyond' if beyond else 'within'} noise"
    )
    yield _Judged(
        not beyond,
        f"{what} sum to {found['value']:.3f} of those that came "
        f"({found['low']:.3f} to {found['high']:.3f}), {verdict}",
    )


def _slices(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    slices = [
        Slice(column, word, **facts)
        for column, words in evaluation["slices"].items()
        for word, facts in words.items()
    ]
    if not slices:
        if spec.slice_floor is not None:
            said = f"no slice has {LEAST_LEADS} leads of each class, so none was compared"
            yield _Judged(True, said)
        return
    yield from _slices_and_heuristic(spec, slices)
    own = {group.word: group.slice_floor for group in spec.groups if group.slice_floor is not None}
    others = [one for one in slices if one.column != spec.group_by or one.word not in own]
    if spec.slice_floor is not None and others:
        yield from _slices_and_floor(spec, others, spec.slice_floor)
    for one in slices:
        if one.column == spec.group_by and one.word in own:
            yield _group_and_floor(spec, one, own[one.word])


def _slices_and_heuristic(spec: ModelSpec, slices: Sequence[Slice]) -> Iterator[_Judged]:
    compared = [(one, one.ahead) for one in slices if one.ahead is not None]
    behind = [
        (one, ahead)
        for one, ahead in compared
        if one.surely_behind(spec.higher_is_better, len(compared))
    ]
    for one, ahead in behind:
        ends = range_text(spec.metric, ahead["low"], ahead["high"])
        yield _Judged(
            False,
            f"{METRIC_NAMES[spec.metric]} {_text(spec, one.value)} where {one.column} is "
            f"{one.word} is worse than the heuristic {spec.heuristic}, beyond noise: the "
            f"difference on the same rows is {_text(spec, ahead['value'])} ({ends})",
        )
    if compared and not behind:
        yield _Judged(
            True,
            f"in none of {len(compared)} slices the heuristic {spec.heuristic} is better beyond "
            "noise",
        )


def _slices_and_floor(spec: ModelSpec, slices: Sequence[Slice], floor: float) -> Iterator[_Judged]:
    sign = 1 if spec.higher_is_better else -1
    below = [
        one
        for one in slices
        if sign * one.kindest(spec.higher_is_better, len(slices)) < sign * floor
    ]
    for one in below:
        yield _Judged(
            False,
            f"{METRIC_NAMES[spec.metric]} {_text(spec, one.value)} "
            f"({range_text(spec.metric, one.low, one.high)}) where {one.column} is {one.word} is "
            f"worse than the floor of slices, {_text(spec, floor)}, beyond noise",
        )
    if not below:
        yield _Judged(
            True,
            f"none of {len(slices)} slices is worse than the floor of slices, "
            f"{_text(spec, floor)}, beyond noise",
        )


def _group_and_floor(spec: ModelSpec, one: Slice, floor: float) -> _Judged:
    """A group with a floor of its own is no one of many: its own interval counts."""
    sign = 1 if spec.higher_is_better else -1
    passed = sign * one.better_end(spec.higher_is_better) >= sign * floor
    verdict = "is not worse" if passed else "is worse"
    return _Judged(
        passed,
        f"{METRIC_NAMES[spec.metric]} {_text(spec, one.value)} "
        f"({range_text(spec.metric, one.low, one.high)}) where {one.column} is {one.word} "
        f"{verdict} than the floor of this group, {_text(spec, floor)}, beyond noise",
    )


def _side(found: Mapping[str, float], higher_is_better: bool) -> tuple[int, str]:
    """Where a difference is for sure: 1 better, -1 worse, 0 neither; and how one says it.

    For sure means that the whole 95 % interval, which the sentence shows, is on that side: a model
    that is no better than a rule passes for better in 1 of 40 trainings.
    """
    low, high = found["low"], found["high"]
    sign = 1 if higher_is_better else -1
    if low > 0:
        side = sign
    elif high < 0:
        side = -sign
    else:
        return 0, "equals, within noise,"
    return side, f"is {'better' if side > 0 else 'worse'} than, beyond noise,"


def _loss(spec: ModelSpec, found: Mapping[str, float]) -> float:
    return -found["value"] if spec.higher_is_better else found["value"]


def _beside(
    spec: ModelSpec,
    evaluation: Mapping[str, Any],
    who: str,
    verdict: str,
    found: Mapping[str, float],
) -> str:
    """The model, how it stands, beside whom."""
    champion, anchor = evaluation["compared_with"], evaluation["held_to"]
    name = {
        "heuristic": f"the heuristic {spec.heuristic}",
        "champion": f"the champion{f' {champion}' if champion else ''}",
        "anchor": "the best champion since a person promoted last"
        + (f", {anchor['model_id']}" if anchor else ""),
    }[who]
    mine, other = (_text(spec, _value(spec, evaluation, one)) for one in ("model", who))
    return (
        f"{METRIC_NAMES[spec.metric]} {mine} {verdict} {name}, {other}: "
        f"{_difference(spec.metric, found)}"
    )


def _difference(metric: str, found: Mapping[str, float]) -> str:
    return (
        f"the difference on the same rows is {metric_text(metric, found['value'])} "
        f"({range_text(metric, found['low'], found['high'])})"
    )


def _value(spec: ModelSpec, evaluation: Mapping[str, Any], who: str) -> float:
    return float(evaluation[who][spec.metric]["value"])


def _text(spec: ModelSpec, value: float) -> str:
    return metric_text(spec.metric, value)
