"""The alert rules: each at its limit, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from leadml_pipelines.learning.served_versions import ServedVersion
from leadml_pipelines.monitoring.alerts import Judgement, Limits, TrainingCounts, judge
from leadml_pipelines.monitoring.answering import Answering
from leadml_pipelines.monitoring.drift import ColumnDrift
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.live import LiveMetric, LivePerformance
from leadml_pipelines.monitoring.populations import SCORE
from leadml_pipelines.monitoring.records import DriftRecord
from leadml_pipelines.monitoring.rules import RULES
from leadml_pipelines.monitoring.serving_figures import ServingFigures

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
NOTHING = NotEnough("nothing was served")
FIGURES = ServingFigures(NOW, NOW, 1_000, 0.05, 0.80, 50.0, 60)
TRAININGS = TrainingCounts(19, 0, 1, 0, 30, ("churn",))


def column(name: str, *, drifted: bool) -> ColumnDrift:
    return ColumnDrift(name, "double", 0.5 if drifted else 0.1, 0.05, 0.4, 0.1, 0.0, 0.0, drifted)


def drift(*names: str) -> DriftRecord:
    columns = (
        *(column(name, drifted=True) for name in names),
        column("steady", drifted=False),
    )
    return DriftRecord("churn", "churn_1", "snapshot", NOW, NOW, 20_000, 500, names, columns)


def live(**metrics: LiveMetric) -> LivePerformance:
    versions = (ServedVersion("churn_1", NOW, NOW, 400),)
    return LivePerformance("churn", "champion", NOW, NOW, 400, 300, metrics, versions)


def judged(
    rule: str,
    *,
    moved: DriftRecord | Sequence[DriftRecord] | NotEnough = NOTHING,
    performed: LivePerformance | NotEnough = NOTHING,
    serving: ServingFigures | NotEnough = NOTHING,
    training: TrainingCounts | NotEnough = NOTHING,
    expected_drift: tuple[str, ...] = (),
    answering: Answering | NotEnough = NOTHING,
) -> Judgement:
    every = judge(
        {"churn": [moved] if isinstance(moved, DriftRecord) else moved},
        {"churn": performed},
        serving,
        training,
        Limits(),
        expected_drift=expected_drift,
        answering={"churn": answering},
    )
    (found,) = [one for one in every if one.rule == rule]
    return found


@pytest.mark.parametrize("rule", list(RULES))
def test_with_nothing_to_go_by_no_rule_fires_and_each_says_so(rule: str) -> None:
    found = judged(rule)
    assert not found.firing
    assert found.value is None
    assert "not enough yet: nothing was served" in found.sentence


@pytest.mark.parametrize("rule", ["stale_share", "cache_hit_rate", "latency"])
def test_a_figure_at_its_limit_is_no_alert(rule: str) -> None:
    assert not judged(rule, serving=FIGURES).firing


@pytest.mark.parametrize(
    ("rule", "figures", "sentence"),
    [
        ("stale_share", replace(FIGURES, stale_share=0.051), "5.1% of 1,000 predictions"),
        ("cache_hit_rate", replace(FIGURES, cache_hit_rate=0.79), "79.0% of 1,000 predictions"),
        (
            "latency",
            replace(FIGURES, latency_p95_ms=50.1),
            "of 60 requests of the last day took up to 50.1 ms; the target is 50 ms",
        ),
    ],
)
def test_a_figure_past_its_limit_fires(rule: str, figures: ServingFigures, sentence: str) -> None:
    found = judged(rule, serving=figures)
    assert found.firing
    assert sentence in found.sentence
    assert found.value != found.limit


def test_a_latency_that_nobody_measured_is_not_judged() -> None:
    found = judged("latency", serving=replace(FIGURES, latency_p95_ms=None))
    assert (found.firing, found.value) == (False, None)


def test_training_that_fails_too_often_fires() -> None:
    assert not judged("training_success", training=TRAININGS).firing
    failing = TrainingCounts(18, 0, 1, 0, 30, ("churn",))
    found = judged("training_success", training=failing)
    assert found.firing
    assert "18 of 19 trainings in the last 30 days ended with a model" in found.sentence
    assert found.sentence.endswith("1 failed (churn)")
    assert not judged("training_success", training=TrainingCounts(0, 0, 0, 3, 30)).firing


def test_models_that_their_gate_rejected_and_trainings_that_were_cancelled_are_no_failures() -> (
    None
):
    found = judged("training_success", training=TrainingCounts(20, 20, 0, 9, 30))
    assert (found.firing, found.value) == (False, 1.0)
    assert "20 of the models were rejected by their gate" in found.sentence
    assert "9 more were cancelled and do not count" in found.sentence


def test_drift_of_any_population_fires_and_each_is_named() -> None:
    served = replace(drift("age"), population="served", current_rows=300)
    answers = replace(drift(SCORE), population="answers")
    found = judged("drift", moved=[drift(), served, answers])
    assert (found.firing, found.severity, found.details) == (True, "critical", ("age", SCORE))
    for words in (
        "none of 1 columns has drifted between the 20,000 rows that churn_1 learned from and the "
        "500 of the snapshot of 2026-04-12 05:30 UTC",
        "the 300 whose features were served in the day before 2026-04-12 05:30 UTC",
        "the champions up to churn_1 learned from and the 500 who were answered about in the day",
    ):
        assert words in found.sentence


def test_drift_names_what_moved_and_is_critical_when_the_score_did() -> None:
    assert not judged("drift", moved=drift()).firing
    found = judged("drift", moved=drift("age", "income"))
    assert (found.firing, found.severity, found.details) == (True, "warning", ("age", "income"))
    assert "2 of 3 columns have drifted" in found.sentence
    assert "age (PSI 0.50, KS 0.40)" in found.sentence
    assert "steady" not in found.sentence
    assert judged("drift", moved=drift(SCORE)).severity == "critical"


def test_drift_that_is_expected_is_no_alert() -> None:
    found = judged("drift", moved=drift("age", "income"), expected_drift=("age",))
    assert found.details == ("income",)
    assert not judged("drift", moved=drift("age"), expected_drift=("age",)).firing


def test_a_model_worse_than_its_test_beyond_noise_fires() -> None:
    worse = live(
        accuracy=LiveMetric(0.70, 0.85, 0.176, 0.04), roc_auc=LiveMetric(0.80, 0.9, 0.111, 0.2)
    )
    found = judged("accuracy", performed=worse)
    assert (found.firing, found.severity, found.details) == (True, "critical", ())
    assert "accuracy of the champion (churn_1) is 0.700 on 400 predictions" in found.sentence
    assert "17.6% lower than in the test (0.850)" in found.sentence
    # Lower by more than 5 %, but that may be chance.
    assert not judged("ranking", performed=worse).firing


def test_outcomes_that_are_all_alike_leave_the_ranking_unjudged() -> None:
    found = judged("ranking", performed=live(accuracy=LiveMetric(1.0, 0.85, -0.18, 0.04)))
    assert (found.firing, found.value) == (False, None)
    assert "all alike" in found.sentence


def test_a_regression_is_judged_by_its_ranking_alone() -> None:
    every = judge(
        {}, {"lead_score": live(spearman=LiveMetric(0.1, 0.4, 0.75, 0.2))}, NOTHING, NOTHING,
        Limits(),
    )  # fmt: skip
    mine = [one for one in every if one.subject == "lead_score"]
    assert [(one.rule, one.firing) for one in mine] == [("ranking", True)]


def test_a_version_that_was_not_champion_and_answered_is_an_alert_by_name() -> None:
    sound = judged("fallback", answering=Answering("churn", 9, {}, None))
    assert (sound.firing, sound.value) == (False, 0.0)
    found = judged("fallback", answering=Answering("churn", 1_000, {"churn_0": 250}, NOW))
    assert (found.firing, found.severity, found.value) == (True, "critical", 0.25)
    assert found.details == ("churn_0",)
    assert found.sentence == (
        "churn: 250 of 1,000 predictions of the last day are not the champion's of their time but "
        "those of churn_0, the last one of 2026-04-12 05:30 UTC"
    )


def test_every_rule_says_what_to_do() -> None:
    for rule in RULES.values():
        assert rule.meaning
        assert rule.what_to_do
