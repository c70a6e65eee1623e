"""Proposals: the grid, the ranking, and a planted cause found from a saved training set."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.duckdb_engine import DuckDBEngine
from leadml_pipelines.features.functions import Count, FeatureFunction, Recency
from leadml_pipelines.learning.proposals import (
    NoBasisError,
    Seen,
    binned,
    candidates,
    propose,
    ranked,
    seen_events,
)
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.learning.split import train_test
from leadml_pipelines.postgres import connect
from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.extract import extract_sources
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, World
from leadml_pipelines_tests.learning.planted import save_planted

SEEN = Seen(
    {"email_sent": 900, "email_open": 400, "page_view": 300, "Ärger!": 5, "note": 3},
    {
        "email_sent": "outbound",
        "email_open": "inbound",
        "page_view": "inbound",
        "Ärger!": "inbound",
        "note": "internal",
    },
    ("email", "web"),
)


def names(functions: list[FeatureFunction]) -> list[str]:
    return [function.feature.name for function in functions]


def test_the_grid_has_every_kind_of_function_and_each_name_once() -> None:
    found = candidates(SEEN, ())
    assert {f.function for f in found} == {
        "count", "recency", "trend", "ratio", "response_time", "total", "diversity",
    }  # fmt: skip
    assert len(set(names(found))) == len(found)
    assert "email_open_per_email_sent_ratio_30d" in names(found)
    assert "email_open_count_14d" in names(found)


def test_what_the_catalogue_has_is_no_candidate() -> None:
    known = {feature.name for feature in catalogue().features("lead")}
    assert not known & set(names(candidates(SEEN, known)))


def test_bins_hold_about_as_many_values_each_and_missing_ones_are_apart() -> None:
    values = np.array([*range(100), *[np.nan] * 7], np.float64)
    codes = binned(values)
    counts = np.bincount(codes)
    assert counts.tolist() == [10] * 10 + [7]
    assert (np.diff(codes[:100]) >= 0).all()
    assert len(set(binned(np.full(5, np.nan)))) == 1


def _frames(n: int = 2_000) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    r = np.random.default_rng(3)
    cause = r.poisson(2, n)
    labels = (r.random(n) < cause / 8).astype(float)
    values = pd.DataFrame(
        {
            "x_count_7d": pd.array(cause, "Int64"),
            "x_count_14d": pd.array(cause + r.poisson(2, n), "Int64"),
            "y_count_7d": pd.array(r.poisson(2, n), "Int64"),
            "x_recency": np.where(labels > 0, np.nan, r.random(n)),
            "z_count_7d": pd.array([0] * n, "Int64"),
        }
    )
    return values, labels, pd.DataFrame({"other": cause + r.random(n) * 9, "noise": r.random(n)})


FUNCTIONS = [
    Count(event_type="x", window="7d"),
    Count(event_type="x", window="14d"),
    Count(event_type="y", window="7d"),
    Recency(event_type="x"),
    Count(event_type="z", window="7d"),
]


@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_the_cause_comes_before_noise_and_one_window_stands_for_all(objective: str) -> None:
    values, labels, existing = _frames()
    label = labels if objective == "classification" else labels * 100 + np.arange(len(labels)) / 1e3
    found = ranked(FUNCTIONS, values, label, existing, objective, seed=7, limit=10)  # type: ignore[arg-type]
    order = [one.function.feature.name for one in found]
    assert order[:2] == ["x_recency", "x_count_7d"]
    assert "x_count_14d" not in order
    assert "z_count_7d" not in order
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_that_a_value_is_missing_counts_as_knowledge() -> None:
    values, labels, existing = _frames()
    found = ranked(FUNCTIONS, values, labels, existing, "classification", seed=7, limit=1)
    assert found[0].function.feature.name == "x_recency"
    assert found[0].known_share == pytest.approx(1 - labels.mean())


def test_the_feature_that_is_most_alike_is_told_and_a_copy_is_not_proposed() -> None:
    values, labels, existing = _frames()
    found = ranked(FUNCTIONS[:1], values, labels, existing, "classification", seed=7, limit=5)
    assert (found[0].most_like, found[0].likeness > 0.3) == ("other", True)
    existing["copy"] = values["x_count_7d"] * 3
    assert ranked(FUNCTIONS[:1], values, labels, existing, "classification", seed=7, limit=5) == []


def test_the_same_seed_ranks_the_same() -> None:
    values, labels, existing = _frames()
    one, other = (
        ranked(FUNCTIONS, values, labels * 9.5, existing, "regression", seed=5, limit=9)
        for _ in range(2)
    )
    assert one == other


def test_a_planted_cause_is_proposed_from_the_training_part_of_a_saved_set(
    postgres_url: str, home: Path
) -> None:
    settings = Settings(home=home, postgres_url=postgres_url)
    frame, span = save_planted(settings)
    found = propose(settings, "conversion", limit=3)
    best = found.found[0]
    # The catalogue has the windows of 7, 30 and 90 days, so that 14 days are free to be found.
    assert best.function.spec() in (
        {"function": "count", "event_type": "email_open", "window": "14d"},
        {"function": "recency", "event_type": "email_open", "window": "90d"},
        {"function": "count", "channel": "email", "direction": "inbound", "window": "14d"},
    )
    assert best.score > 0.5
    assert found.rows == len(train_test(SPECS["conversion"], frame, **span).train) < len(frame)
    assert len(found.found) == 3
    assert found.candidates > 50


def test_what_happened_after_the_training_part_makes_no_proposal(
    postgres_url: str, home: Path
) -> None:
    settings = Settings(home=home, postgres_url=postgres_url)
    save_planted(settings)
    before = propose(settings, "conversion", limit=3)
    with connect(postgres_url) as connection:
        for number in range(500):
            connection.execute(
                "INSERT INTO crm.lead_events (event_id, lead_id, event_type, channel, direction, "
                "occurred_at, ingested_at) VALUES (%s, 'lead_0', 'callback', 'phone', 'inbound', "
                "%s, %s)",
                # Half of them are told to have happened long before they were known.
                (f"late{number}", NOW - timedelta(days=number % 2 * 590), NOW),
            )
    extract_sources(postgres_url, settings.extracts, clock="data")
    assert propose(settings, "conversion", limit=3) == before


def test_only_events_that_were_known_by_the_moment_are_seen(tmp_path: Path) -> None:
    world = World().lead("a", NOW - timedelta(days=9)).event("a", NOW, event_type="note")
    world.event("a", NOW - timedelta(days=1), event_type="page_view", ingested_at=NOW)
    with DuckDBEngine(world.parquet(tmp_path), threads=1) as engine:
        assert seen_events(engine, NOW - MICROSECOND) == Seen({}, {}, ())
        assert seen_events(engine, NOW).types == {"note": 1, "page_view": 1}


def test_a_host_without_training_set_says_what_to_do(home: Path) -> None:
    with pytest.raises(NoBasisError, match="materialize conversion_training_set here"):
        propose(Settings(home=home), "conversion")
