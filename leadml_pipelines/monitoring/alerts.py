"""What each alert rule says of the figures of the day.

Nothing here reads or writes: figures in, judgements out. A rule that has too little to go by says
so and does not fire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leadml_pipelines.monitoring.answering import Answering
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.live import LivePerformance
from leadml_pipelines.monitoring.populations import SCORE, population_words
from leadml_pipelines.monitoring.records import DriftRecord
from leadml_pipelines.monitoring.rules import RULES, Severity
from leadml_pipelines.monitoring.serving_figures import LEAST_TIMED, ServingFigures

SERVING, TRAINING = "serving", "training"
"""The subjects of the rules that are not about one model."""
NAMED = 5
"""Drifted columns named in a sentence; the details have all of them."""


_RANKING = {"roc_auc": "ROC AUC", "spearman": "Spearman correlation"}


@dataclass(frozen=True)
class Limits:
    """From where on the rules fire; the settings `LEADML_ALERT_...`.

    Attributes:
        performance_drop: Share of the test's figure that a metric may fall below it.
        stale_share: Most predictions from stale features, as a share.
        cache_hit_rate: Fewest predictions whose features were in Redis, as a share.
        latency_ms: The 95th percentile of the latency, in milliseconds.
        training_success: Fewest trainings that end with a model, as a share.
    """

    performance_drop: float = 0.05
    stale_share: float = 0.05
    cache_hit_rate: float = 0.80
    latency_ms: float = 50.0
    training_success: float = 0.95


@dataclass(frozen=True)
class TrainingCounts:
    """How trainings ended, whoever began them.

    Attributes:
        succeeded: Those that ended with a model, whatever its gate said.
        rejected: How many of these models were rejected by their gate.
        failed: Those that failed, or died without a word.
        cancelled: Those that somebody cancelled; they count as neither.
        days: In how many days.
        failing: Names of the models whose trainings failed.
    """

    succeeded: int
    rejected: int
    failed: int
    cancelled: int
    days: int
    failing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What a rule says of a subject.

    Attributes:
        rule: Name of the rule.
        subject: A model, `serving` or `training`.
        firing: Whether it is an alert.
        sentence: In words.
        value: The number that was judged; None when there was not enough to judge.
        limit: The number that it was held against; None likewise.
        severity: How bad it is.
        details: What makes it another alert though rule and subject are the same.
    """

    rule: str
    subject: str
    firing: bool
    sentence: str
    value: float | None = None
    limit: float | None = None
    severity: Severity = "warning"
    details: tuple[str, ...] = field(default=())


def judge(
    drift: Mapping[str, Sequence[DriftRecord] | NotEnough],
    live: Mapping[str, LivePerformance | NotEnough],
    serving: ServingFigures | NotEnough,
    training: TrainingCounts | NotEnough,
    limits: Limits,
    *,
    expected_drift: Iterable[str] = (),
    answering: Mapping[str, Answering | NotEnough] | None = None,
) -> list[Judgement]:
    """Let every rule judge what it watches.

    Args:
        drift: The newest comparison of each model with each population of today; at least one.
        live: The newest judgement of each model's champions.
        serving: Figures of the last day.
        training: How training went.
        limits: From where on rules fire.
        expected_drift: Columns whose drift is known and no alert.
        answering: Who answered in the last day, of each model.

    Returns:
        For `drift`, `accuracy`, `ranking` and `fallback` one for each model (a regression has no
        accuracy), for the others one each, in the order of `RULES`.
    """
    known = frozenset(expected_drift)
    return [
        *(_drift(name, found, known) for name, found in drift.items()),
        *(
            one
            for name, found in live.items()
            for one in _metric("accuracy", name, found, limits, {"accuracy": "accuracy"})
        ),
        *(
            one
            for name, found in live.items()
            for one in _metric("ranking", name, found, limits, _RANKING)
        ),
        *(_fallback(name, found) for name, found in (answering or {}).items()),
        *_serving(serving, limits),
        _training(training, limits),
    ]


def drift_sentence(found: DriftRecord, drifted: Sequence[str]) -> str:
    """A comparison in words."""
    several = found.population == "answers"
    learners = f"the champions up to {found.model_id}" if several else found.model_id
    against = (
        f"between the {found.reference_rows:,} rows that {learners} learned from and the "
        f"{found.current_rows:,} {population_words(found.population, found.as_of)}"
    )
    if not drifted:
        return f"{found.model_name}: none of {len(found.columns)} columns has drifted {against}"
    figures = {one.name: one for one in found.columns}
    parts = []
    for name in drifted[:NAMED]:
        one = figures[name]
        ks = "" if one.ks is None else f", KS {one.ks:.2f}"
        parts.append(f"{'its score' if name == SCORE else name} (PSI {one.psi:.2f}{ks})")
    more = f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else ""
    return (
        f"{found.model_name}: {len(drifted)} of {len(found.columns)} columns have drifted "
        f"{against}: {', '.join(parts)}{more}"
    )


def unexpected(found: DriftRecord, expected: Iterable[str]) -> tuple[str, ...]:
    """The drifted columns that nobody declared as known."""
    known = frozenset(expected)
    return tuple(name for name in found.drifted if name not in known)


def _drift(name: str, found: Sequence[DriftRecord] | NotEnough, known: frozenset[str]) -> Judgement:
    if isinstance(found, NotEnough):
        return Judgement("drift", name, False, f"{name}: {found}")
    moved = {one.population: unexpected(one, known) for one in found}
    drifted = sorted({column for columns in moved.values() for column in columns})
    return Judgement(
        "drift",
        name,
        bool(drifted),
        "; ".join(drift_sentence(one, moved[one.population]) for one in found),
        float(len(drifted)),
        0.0,
        # A feature that moves may be one that the model hardly uses; its score is what it says.
        "critical" if SCORE in drifted else RULES["drift"].severity,
        tuple(drifted),
    )


def _metric(
    rule: str,
    name: str,
    found: LivePerformance | NotEnough,
    limits: Limits,
    metrics: Mapping[str, str],
) -> list[Judgement]:
    if isinstance(found, NotEnough):
        return [Judgement(rule, name, False, f"{name}: {found}")]
    judged = []
    for metric, title in metrics.items():
        one = found.metrics.get(metric)
        if one is None:
            continue
        where = (
            f"on {found.predictions:,} predictions of {found.entities:,} entities from "
            f"{found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}"
        )
        if one.test is None or one.drop is None or one.noise is None:
            reason = NotEnough(f"{found.who}: there is no test figure to hold {title} against")
            judged.append(Judgement(rule, name, False, f"{name}: {reason}"))
            continue
        firing = one.worse(limits.performance_drop)
        direction = "lower" if one.drop >= 0 else "higher"
        judged.append(
            Judgement(
                rule,
                name,
                firing,
                f"{name}: {title} of the {found.role} ({found.who}) is {one.live:.3f} {where}, "
                f"{abs(one.drop):.1%} {direction} than in the test ({one.test:.3f}); "
                f"{one.noise:.1%} may be chance{found.remark}",
                one.drop,
                limits.performance_drop,
                RULES[rule].severity,
            )
        )
    if not judged and rule == "ranking":
        # Every model ranks: without a figure its outcomes are all alike, which is no judgement.
        reason = NotEnough(f"what came true of {name} is all alike and can't be ranked")
        judged.append(Judgement(rule, name, False, f"{name}: {reason}"))
    return judged


def _fallback(name: str, found: Answering | NotEnough) -> Judgement:
    if isinstance(found, NotEnough):
        return Judgement("fallback", name, False, f"{name}: {found}")
    count = sum(found.others.values())
    share = count / found.predictions
    if found.last is None:
        sentence = f"all {found.predictions:,} predictions of the last day are the champion's"
    else:
        sentence = (
            f"{count:,} of {found.predictions:,} predictions of the last day are not the "
            f"champion's of their time but those of {', '.join(sorted(found.others))}, "
            f"the last one of {found.last:%Y-%m-%d %H:%M} UTC"
        )
    return Judgement(
        "fallback",
        name,
        count > 0,
        f"{name}: {sentence}",
        share,
        0.0,
        RULES["fallback"].severity,
        tuple(sorted(found.others)),
    )


def _serving(found: ServingFigures | NotEnough, limits: Limits) -> list[Judgement]:
    if isinstance(found, NotEnough):
        return [
            Judgement(rule, SERVING, False, f"{SERVING}: {found}")
            for rule in ("stale_share", "cache_hit_rate", "latency")
        ]
    day = f"of {found.predictions:,} predictions of the last day"
    judged = [
        _number(
            "stale_share",
            found.stale_share > limits.stale_share,
            f"{found.stale_share:.1%} {day} are from stale features; "
            f"up to {limits.stale_share:.1%} may be",
            found.stale_share,
            limits.stale_share,
        ),
        _number(
            "cache_hit_rate",
            found.cache_hit_rate < limits.cache_hit_rate,
            f"{found.cache_hit_rate:.1%} {day} found their features in Redis; "
            f"at least {limits.cache_hit_rate:.1%} should",
            found.cache_hit_rate,
            limits.cache_hit_rate,
        ),
    ]
    if found.latency_p95_ms is None:
        reason = NotEnough(
            f"{found.timed:,} requests of the last day were timed, and {LEAST_TIMED} are needed"
        )
        judged.append(Judgement("latency", SERVING, False, f"{SERVING}: {reason}"))
    else:
        judged.append(
            _number(
                "latency",
                found.latency_p95_ms > limits.latency_ms,
                f"95 in 100 of {found.timed:,} requests of the last day took up to "
                f"{found.latency_p95_ms:.1f} ms; "
                f"the target is {limits.latency_ms:g} ms",
                found.latency_p95_ms,
                limits.latency_ms,
            )
        )
    return judged


def _training(found: TrainingCounts | NotEnough, limits: Limits) -> Judgement:
    if isinstance(found, NotEnough):
        return Judgement("training_success", TRAINING, False, f"{TRAINING}: {found}")
    total = found.succeeded + found.failed
    if not total:
        reason = NotEnough(f"no training ended in the last {found.days} days")
        return Judgement("training_success", TRAINING, False, f"{TRAINING}: {reason}")
    share = found.succeeded / total
    remarks = []
    if found.rejected:
        remarks.append(f"{found.rejected} of the models were rejected by their gate")
    if found.failed:
        remarks.append(f"{found.failed} failed ({', '.join(found.failing)})")
    if found.cancelled:
        remarks.append(f"{found.cancelled} more were cancelled and do not count")
    return Judgement(
        "training_success",
        TRAINING,
        share < limits.training_success,
        f"{TRAINING}: {found.succeeded} of {total} trainings in the last {found.days} days ended "
        f"with a model ({share:.1%}); at least {limits.training_success:.1%} should"
        + "".join(f"; {remark}" for remark in remarks),
        share,
        limits.training_success,
        RULES["training_success"].severity,
    )


def _number(rule: str, firing: bool, sentence: str, value: float, limit: float) -> Judgement:
    text = f"{SERVING}: {sentence}"
    return Judgement(rule, SERVING, firing, text, value, limit, RULES[rule].severity)
