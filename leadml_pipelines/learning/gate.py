"""Whether a candidate may become champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def decide(
    spec: ModelSpec,
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    champion: Mapping[str, Any] | None = None,
) -> Decision:
    """Compare a candidate with its floor, the rule it replaces, and the champion.

    Args:
        spec: Names the metric, the floor and the slack towards the champion.
        metrics: The candidate's, on the test rows.
        baseline: The heuristic's, on the same rows.
        champion: The champion's, on the same rows; None when there is none to compare with.
    """
    if spec.metric not in metrics:
        return Decision(False, (f"{spec.metric} is undefined on the test rows",))
    value = float(metrics[spec.metric])
    wanted = [("the floor", spec.floor, True)]
    if spec.metric in baseline:
        wanted.append((f"the heuristic {spec.heuristic}", float(baseline[spec.metric]), True))
    if champion is not None and spec.metric in champion:
        slack = spec.champion_slack if spec.higher_is_better else -spec.champion_slack
        limit = float(champion[spec.metric]) - slack
        wanted.append(("the champion less its slack", limit, False))
    good: list[str] = []
    bad: list[str] = []
    for name, limit, strictly in wanted:
        ahead = value - limit if spec.higher_is_better else limit - value
        passed = ahead > 0 or (ahead == 0 and not strictly)
        verdict = "is better than" if ahead > 0 else "equals" if ahead == 0 else "is worse than"
        (good if passed else bad).append(f"{spec.metric} {value:.4f} {verdict} {name}, {limit:.4f}")
    return Decision(not bad, (*bad, *good))
