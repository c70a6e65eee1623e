"""The alert rules, as data. What they judge by is in `alerts.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Rule:
    """An alert rule.

    Attributes:
        name: Its name, also that of its asset check.
        meaning: What it watches, in words.
        severity: How bad it is when it fires.
        what_to_do: What to do then; `<model>` stands for the subject.
    """

    name: str
    meaning: str
    severity: Severity
    what_to_do: str


_LIVE = (
    "the predictions are as old as the horizon, and the champion of today is perhaps none of the "
    "versions named: look at <model>_live_performance and at drift since then, compare with "
    "`leadml models show`, mend what broke and train again; `leadml models rollback` helps only "
    "where the version before the last promotion was better"
)

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "drift",
            "a feature or the score of a model is far from what the model learned from",
            "warning",
            "open the report of the asset <model>_drift; if a source or a feature broke, "
            "mend it, else let the retraining that was requested run (docs/monitoring.md)",
        ),
        Rule(
            "accuracy",
            "accuracy of the champions on served predictions is lower than in their tests",
            "critical",
            _LIVE,
        ),
        Rule(
            "ranking",
            "ROC AUC (Spearman for values) of the champions on served predictions is lower than in "
            "their tests",
            "critical",
            _LIVE,
        ),
        Rule(
            "fallback",
            "another version than the champion answers, which could not be loaded",
            "critical",
            "`GET /api/v1/ml/health` says why; mend the champion's files, or make the version that "
            "answers champion with `leadml models rollback <model>`",
        ),
        Rule(
            "stale_share",
            "too many predictions are from features older than they should be",
            "warning",
            "look at PostgreSQL's health and at leadml_online_computed_entities_total: "
            "stale values are served while it can't compute new ones",
        ),
        Rule(
            "cache_hit_rate",
            "too few predictions find their features in Redis",
            "warning",
            "look whether feature snapshots are published (asset online_features), whether Redis "
            "evicts keys, and whether LEADML_ONLINE_TTL_SECONDS is too short",
        ),
        Rule(
            "latency",
            "predictions take longer than the target",
            "warning",
            "look at the hit rate first, then at leadml_http_request_seconds by route and at the "
            "load of Redis and of the machine",
        ),
        Rule(
            "training_success",
            "too many trainings fail",
            "critical",
            "open the failed runs in Dagster, and repeat by hand what failed as "
            "`leadml models train`; the champions go on answering",
        ),
    )
}
"""Every rule by name."""
