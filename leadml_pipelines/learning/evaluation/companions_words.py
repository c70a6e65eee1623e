"""What a model card says of the companions: a table of their chances, and what to mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leadml_pipelines.learning.evaluation.companions_check import ALLOWED, OCCURS
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text


def companion_rows(checked: Sequence[Mapping[str, Any]], horizon: str) -> list[list[str]]:
    """A table: the heading, and a row for each chance.

    Args:
        checked: Of `companions_check.check_companions`.
        horizon: How far the model looks ahead, as in `90 days`.
    """
    heading = ["chance", "said", "came", "said / came", "log loss", "of the shares"]
    body = [
        [
            _name(one) if one["what"] != OCCURS else f"anything within {horizon}",
            f"{one['said']:.4f}",
            f"{one['came']:.4f}",
            _figure("total_ratio", one["ratio"]),
            f"{one['log_loss']:.4f}",
            f"{one['log_loss_of_shares']:.4f}",
            _figure("roc_auc", one["roc_auc"]),
        ]
        for one in checked
    ]
    return [[*heading, METRIC_NAMES["roc_auc"]], *body]


def companion_words(
    checked: Sequence[Mapping[str, Any]], validation: Mapping[str, Any]
) -> list[str]:
    """Sentences: by what each companion answers and why, and whose chances are off.

    Args:
        checked: Of `companions_check.check_companions`.
        validation: What was seen in training: `companions`, `companions_absent`.
    """
    return [*_by_what(validation), *_off(checked)]


def _by_what(validation: Mapping[str, Any]) -> Iterator[str]:
    for name, record in validation.get("companions", {}).items():
        if "gain" not in record:
            yield f"{name} is the words' shares, the same for everybody: {record['reason']}"
            continue
        loss, gain = record["log_loss"], record["gain"]
        seen = (
            f"on {record['rows']:,} newer rows the log loss of a model is {loss['model']:.4f}, of "
            f"the words' shares {loss['shares']:.4f}; {gain['low']:.4f} to {gain['high']:.4f} less"
        )
        if record["by"] == "model":
            yield f"{name}, if anything comes true, is told by a model: {seen}"
        else:
            yield (
                f"{name}, if anything comes true, is told by the words' shares, the same for "
                f"everybody, because a model knows no more beyond noise: {seen}"
            )
    for name, why in validation.get("companions_absent", {}).items():
        yield f"{name} is not answered: {why}"


def _off(checked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in checked:
        if one["off"]:
            much = "more" if one["ratio"]["value"] > 1 else "less"
            yield (
                f"**The chance of {_name(one)} is off by more than {ALLOWED:.0%}**, beyond noise: "
                f"said {one['said']:.4f}, came {one['came']:.4f}, so {much} is said than comes"
            )


def _name(one: Mapping[str, Any]) -> str:
    """As in `timing, near (within a week)`."""
    if one["what"] == OCCURS:
        return "anything at all"
    if one["what"] in one["words"]:
        return f"{one['companion']}: {one['what']}"
    return f"{one['companion']}, {one['what']} ({' or '.join(one['words'])})"


def _figure(metric: str, found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    ends = range_text(metric, found["low"], found["high"])
    return f"{metric_text(metric, found['value'])} ({ends})"
