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

    It is rejected when it does not beat the floor and the heuristic; when it is worse than the
    champion beyond noise, that is when the whole interval of the difference on the same rows is on
    the worse side, or by more than the spec's margin, so that many small steps can't lead down;
    when its chances are off by more than is allowed and by more than chance would make sound ones
    look (for values: when their sum is off by more than is allowed and by more than noise);
    or when in a slice (of young leads, say) the heuristic is better beyond noise, or the metric
    below the spec's floor for slices.

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
        *_champion(spec, evaluation),
        *_calibration(spec, evaluation),
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
    }
    for who, name in names.items():
        figures = evaluation.get(who)
        if figures is not None and spec.metric not in figures:
            yield (
                f"not compared with {name}: its {METRIC_NAMES[spec.metric]} is undefined on the "
                "test rows"
            )


def _floor(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    yield _against(spec, _value(spec, evaluation, "model"), "the floor", spec.floor)


def _heuristic(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    if spec.metric not in evaluation["heuristic"]:
        return
    other = _value(spec, evaluation, "heuristic")
    name = f"the heuristic {spec.heuristic}"
    yield _against(spec, _value(spec, evaluation, "model"), name, other)


def _champion(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    found = evaluation["differences"].get("champion", {}).get(spec.metric)
    if found is None:
        return
    low, high = found["low"], found["high"]
    loss = -found["value"] if spec.higher_is_better else found["value"]
    too_far = loss > spec.champion_margin
    worse = high < 0 if spec.higher_is_better else low > 0
    better = low > 0 if spec.higher_is_better else high < 0
    verdict = (
        "is worse than, beyond noise,"
        if worse
        else "is better than, beyond noise,"
        if better
        else "equals, within noise,"
    )
    name = evaluation.get("compared_with")
    mine, other = (_value(spec, evaluation, who) for who in ("model", "champion"))
    if too_far and not worse:
        verdict = f"is more than {_text(spec, spec.champion_margin)} worse than, within noise,"
    yield _Judged(
        not worse and not too_far,
        f"{METRIC_NAMES[spec.metric]} {_text(spec, mine)} {verdict} the champion"
        f"{f' {name}' if name else ''}, {_text(spec, other)}: the difference on the same rows is "
        f"{_text(spec, found['value'])} ({range_text(spec.metric, low, high)})",
    )


def _calibration(spec: ModelSpec, evaluation: Mapping[str, Any]) -> Iterator[_Judged]:
    if spec.objective == "classification":
        found = evaluation["calibration"]
        error, chance, allowed = (found[key] for key in ("error", "by_chance", "allowed"))
        said = f"the chances are off by {error:.3f} on average"
        if error <= allowed:
            yield _Judged(True, f"{said}, within the {allowed:.3f} that are allowed")
        elif error <= chance:
            yield _Judged(
                True,
                f"{said}, more than the {allowed:.3f} that are allowed, but on so few leads "
                f"sound chances would be off by up to {chance:.3f}",
            )
        else:
            yield _Judged(
                False,
                f"{said}, more than the {allowed:.3f} that are allowed and more than the "
                f"{chance:.3f} that chance explains",
            )
        return
    found = evaluation["model"].get("total_ratio")
    if found is None:
        return
    off = abs(found["value"] - 1) > spec.max_total_error
    beyond = not found["low"] <= 1 <= found["high"]
    passed = not (off and beyond)
    verdict = (
        f"off by no more than {spec.max_total_error:.0%}"
        if not off
        else "off by more than noise explains"
        if beyond
        else "within noise of what came"
    )
    yield _Judged(
        passed,
        f"the predicted values sum to {found['value']:.3f} of those that came "
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


def _against(spec: ModelSpec, value: float, name: str, limit: float) -> _Judged:
    ahead = value - limit if spec.higher_is_better else limit - value
    verdict = "is better than" if ahead > 0 else "equals" if ahead == 0 else "is worse than"
    return _Judged(
        ahead > 0,
        f"{METRIC_NAMES[spec.metric]} {_text(spec, value)} {verdict} {name}, {_text(spec, limit)}",
    )


def _value(spec: ModelSpec, evaluation: Mapping[str, Any], who: str) -> float:
    return float(evaluation[who][spec.metric]["value"])


def _text(spec: ModelSpec, value: float) -> str:
    return metric_text(spec.metric, value)
