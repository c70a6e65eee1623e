"""All rules, judged by what is recorded and logged now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.monitoring.alerts import Judgement, Limits, TrainingCounts, judge
from leadml_pipelines.monitoring.answering import Answering, read_answering
from leadml_pipelines.monitoring.drift import DriftLimits
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.monitoring.live import LivePerformance
from leadml_pipelines.monitoring.populations import POPULATIONS
from leadml_pipelines.monitoring.records import DriftRecord, newest_drift, newest_live
from leadml_pipelines.monitoring.serving_figures import read_serving_figures
from leadml_pipelines.settings import Settings

FRESH = timedelta(days=3)
"""A daily record that is older says nothing of today."""


def watch(
    url: str,
    models: Registry,
    specs: Mapping[str, ModelSpec],
    settings: Settings,
    training: TrainingCounts,
    now: datetime,
) -> list[Judgement]:
    """Judge every rule.

    Args:
        url: PostgreSQL, migrated.
        models: The registry.
        specs: The models by name.
        settings: Has the limits.
        training: How training went.
        now: The moment; timezone-aware.
    """
    drift: dict[str, Sequence[DriftRecord] | NotEnough] = {}
    live: dict[str, LivePerformance | NotEnough] = {}
    answering: dict[str, Answering | NotEnough] = {}
    for name in specs:
        champion = models.champion(name)
        if champion is None:
            drift[name] = live[name] = answering[name] = NotEnough(f"{name} has no champion")
            continue
        since = now - FRESH
        days = f"in the last {FRESH.days} days"
        compared = [
            newest_drift(url, name, champion.model_id, population, since)
            for population in POPULATIONS
        ]
        drift[name] = [one for one in compared if one is not None] or NotEnough(
            f"what {champion.model_id} learned from was compared with nothing {days}; "
            f"materialize {name}_drift, which says why"
        )
        live[name] = newest_live(url, name, "champion", since) or NotEnough(
            f"the champions of {name} were not judged by outcomes {days}; "
            f"materialize {name}_live_performance, which says why"
        )
        answering[name] = read_answering(url, name, now)
    return judge(
        drift,
        live,
        read_serving_figures(url, now, settings.monitoring_min_rows),
        training,
        alert_limits(settings),
        expected_drift=expected_drift(settings),
        answering=answering,
    )


def alert_limits(settings: Settings) -> Limits:
    """The limits of the alert rules."""
    return Limits(
        performance_drop=settings.alert_performance_drop,
        stale_share=settings.alert_stale_share,
        cache_hit_rate=settings.alert_cache_hit_rate,
        latency_ms=settings.alert_latency_ms,
        training_success=settings.alert_training_success,
    )


def drift_limits(settings: Settings) -> DriftLimits:
    """The limits of drift."""
    return DriftLimits(settings.drift_psi_limit, settings.drift_ks_limit)


def relative_features() -> frozenset[str]:
    """The features that are compared relative to the mean of their moment, by the catalogue."""
    known = catalogue()
    return frozenset(
        feature.name
        for entity in known.entities
        for feature in known.features(entity)
        if feature.relative
    )


def expected_drift(settings: Settings) -> tuple[str, ...]:
    """The columns whose drift is known."""
    return tuple(part.strip() for part in settings.drift_expected.split(",") if part.strip())
