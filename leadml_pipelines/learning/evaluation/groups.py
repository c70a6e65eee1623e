"""What a model is worth in each of its groups, where one figure over all of them would flatter it.

Where two populations differ in how often the label comes true, a model ranks well over both by
knowing who belongs to which. Whom to act on inside a group it may not know at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leadml_pipelines.learning.evaluation.intervals import Resamples, measure
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text
from leadml_pipelines.learning.evaluation.weighted import Scored
from leadml_pipelines.learning.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

RISKS = ("low", "medium", "high", "critical")
"""Names of the risk levels, the least first."""
COIN = {"roc_auc": 0.5, "gini": 0.0, "spearman": 0.0}
"""What a metric of ranking is where nothing is known."""


def measure_groups(
    spec: ModelSpec,
    frame: pd.DataFrame,
    labels: Values,
    values: Values,
    thresholds: Values,
    resamples: Resamples,
) -> dict[str, dict[str, Any]] | None:
    """The figures of each group of the test rows, JSON-ready; None for a spec without groups.

    Args:
        spec: Declares the groups.
        frame: The test rows.
        labels: float64[n], what happened.
        values: float64[n], the chances.
        thresholds: float64[n], from which chance the answer to each row is yes.
        resamples: Draws of the leads of these rows.

    Returns:
        By word: `rows`, `leads`, `positives`; `came` and `said`, the share that came true and the
        mean chance; the spec's metric (`value`, `low`, `high`; None where it is undefined);
        `threshold` and `share_of_yes`; per row `cost`, `cost_of_always` and `cost_of_never`; and
        `risk`, the share of each level.
    """
    if not spec.groups:
        return None
    words = frame[spec.group_by].astype(object)
    found = {}
    for word in sorted({str(word) for word in words.dropna()}):
        its = (words == word).to_numpy(bool)
        group = spec.group_of(word)
        happened, chances, yes = labels[its] > 0, values[its], values[its] >= thresholds[its]
        cost = group.cost or spec.cost
        figures = measure(
            Scored(spec.objective, labels[its], chances, thresholds[its]),
            resamples.within(its),
            (spec.metric,),
        ).intervals()
        found[word] = {
            "rows": int(its.sum()),
            "leads": len(np.unique(resamples.codes[its])),
            "positives": int(happened.sum()),
            "came": float(happened.mean()),
            "said": float(chances.mean()),
            "metric": figures.get(spec.metric),
            "threshold": float(thresholds[its][0]),
            "share_of_yes": float(yes.mean()),
            "cost": float(
                cost.miss * (happened & ~yes).mean() + cost.false_alarm * (yes & ~happened).mean()
            ),
            "cost_of_always": float(cost.false_alarm * (~happened).mean()),
            "cost_of_never": float(cost.miss * happened.mean()),
            "risk": _risk(chances, group.risk_levels) if group.risk_levels else None,
        }
    return found


def _risk(chances: Values, levels: tuple[float, float, float]) -> dict[str, float]:
    places = np.searchsorted(levels, chances, side="right")
    return {risk: float((places == at).mean()) for at, risk in enumerate(RISKS)}


def groups_text(spec: ModelSpec, evaluation: Mapping[str, Any]) -> str:
    """What a model card says of the groups, in Markdown; empty for a spec without groups.

    Args:
        spec: Declares the groups.
        evaluation: The document of `examination.examine`.
    """
    groups: Mapping[str, Mapping[str, Any]] = evaluation.get("groups") or {}
    if not groups:
        return ""
    name = METRIC_NAMES[spec.metric]
    header = (
        spec.group_by.replace("_", " "), name, "rows", "came true", "said", "yes from",
        "get a yes", "cost (always yes, always no)", "risk " + ", ".join(RISKS),
    )  # fmt: skip
    lines = [header, ("---",) * len(header), *(_cells(spec, w, g) for w, g in groups.items())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    said = " ".join(_sentences(spec, evaluation["model"].get(spec.metric), groups))
    return f"{table}\n\n{said}".strip()


def _cells(spec: ModelSpec, word: str, group: Mapping[str, Any]) -> tuple[str, ...]:
    risk = group["risk"]
    return (
        word,
        _figure(spec, group["metric"]),
        f"{group['rows']:,}",
        f"{group['came']:.1%}",
        f"{group['said']:.1%}",
        f"{group['threshold']:.3f}",
        f"{group['share_of_yes']:.1%}",
        f"{group['cost']:.3f} ({group['cost_of_always']:.3f}, {group['cost_of_never']:.3f})",
        ", ".join(f"{risk[level]:.0%}" for level in RISKS) if risk else "",
    )


def _figure(spec: ModelSpec, found: Mapping[str, float] | None) -> str:
    if found is None:
        return "undefined"
    ends = range_text(spec.metric, found["low"], found["high"])
    return f"{metric_text(spec.metric, found['value'])} ({ends})"


def _sentences(
    spec: ModelSpec, whole: Mapping[str, float] | None, groups: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    known = {word: group["metric"] for word, group in groups.items() if group["metric"]}
    name, sign = METRIC_NAMES[spec.metric], 1 if spec.higher_is_better else -1
    if whole and len(known) > 1 and spec.metric in COIN:
        best = max(sign * found["value"] for found in known.values())
        if sign * whole["value"] > best:
            yield (
                f"The {name} of all rows, {metric_text(spec.metric, whole['value'])}, is better "
                "than that of any group: part of it only tells the groups from each other."
            )
    for word, found in known.items():
        where = f"Where {spec.group_by.replace('_', ' ')} is {word}"
        if spec.metric in COIN and found["low"] <= COIN[spec.metric] <= found["high"]:
            yield f"{where} it tells nobody from anybody beyond noise."
    for word, group in groups.items():
        if group["cost"] > min(group["cost_of_always"], group["cost_of_never"]):
            other = (
                "always yes" if group["cost_of_always"] < group["cost_of_never"] else "always no"
            )
            yield (
                f"Where {spec.group_by.replace('_', ' ')} is {word}, {other} would have cost less "
                "than its answers."
            )
