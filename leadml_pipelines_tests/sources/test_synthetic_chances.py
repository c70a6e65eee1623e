from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from leadml_pipelines.sources.synthetic import hidden_chance
from leadml_pipelines_tests.sources.funnel_data import END, LEADS, SEED, first_leads, tables

ROWS = 5_000
"""Moments that are looked at; more would be slow."""


def _chance(spine: pd.DataFrame, model: str, **more: int) -> pd.Series:
    return hidden_chance(spine, model, leads=LEADS, seed=SEED, end=END, **more)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _moments() -> pd.DataFrame:
    """Random moments of leads that are open or customers then, and what happened after."""
    rng = np.random.default_rng(5)
    leads = first_leads()
    # As weekly cut-offs would: a lead is looked at as often as it has been there for long.
    span = (END - timedelta(days=60) - leads["created_at"]).dt.total_seconds().clip(lower=0)
    pick = rng.choice(len(leads), 4 * ROWS, p=(span / span.sum()).to_numpy())
    wait = pd.to_timedelta(rng.random(len(pick)) * span.to_numpy()[pick], unit="s")
    born = leads["created_at"].iloc[pick].reset_index(drop=True)
    moments = pd.DataFrame({"entity_id": leads.index[pick], "as_of": born + wait})
    moments["as_of"] = moments["as_of"].dt.as_unit("us")
    lead, at = moments["entity_id"], moments["as_of"]
    closed = lead.map(tables()["closures"].set_index("lead_id")["closed_at"])
    reason = lead.map(tables()["closures"].set_index("lead_id")["reason"])
    policies = tables()["policies"].drop_duplicates("lead_id").set_index("lead_id")
    bound = lead.map(policies["bound_at"])
    moments["customer"] = (bound <= at) & ~(closed <= at)
    moments["bound_30"] = (bound > at) & (bound <= at + timedelta(days=30))
    inbound = tables()["lead_events"].query("direction == 'inbound'")
    both = moments.reset_index()[["index", "entity_id", "as_of"]].merge(
        inbound[["lead_id", "occurred_at"]], left_on="entity_id", right_on="lead_id"
    )
    gap = both["occurred_at"] - both["as_of"]
    after = (gap > timedelta(0)) & (gap <= timedelta(days=60))
    before = (gap <= timedelta(0)) & (gap > timedelta(days=-30))
    moments["heard"] = moments.index.isin(both.loc[after, "index"])
    moments["active"] = moments.index.isin(both.loc[before, "index"])
    soon = (closed > at) & (closed <= at + timedelta(days=60))
    bound_60 = (bound > at) & (bound <= at + timedelta(days=60))
    gone = ~bound_60 & ~(soon & (reason != "lost")) & (soon | ~moments["heard"])
    moments["churned"] = np.where(moments["customer"], soon, gone)
    return moments[~(closed <= at)].head(ROWS).reset_index(drop=True)


def _assert_calibrated(chance: pd.Series, outcome: pd.Series, edges: list[float]) -> None:
    bins = pd.cut(chance, edges, include_lowest=True)
    table = pd.DataFrame({"p": chance, "y": outcome.astype(float)}).groupby(bins, observed=True)
    for _, part in table:
        error = np.sqrt(max(part["p"].mean() * (1 - part["p"].mean()), 1e-3) / len(part))
        assert abs(part["p"].mean() - part["y"].mean()) < 4 * error + 0.01, part.mean()


@lru_cache(maxsize=1)
def _conversion() -> tuple[pd.Series, pd.Series]:
    rows = _moments()[~_moments()["customer"]]
    return _chance(rows, "conversion", futures=32), rows["bound_30"]


@lru_cache(maxsize=1)
def _churn() -> tuple[pd.Series, pd.Series]:
    rows = _moments()[_moments()["customer"] | _moments()["active"]]
    return _chance(rows, "churn", futures=128), rows["churned"]


def test_the_chance_of_conversion_is_calibrated() -> None:
    _assert_calibrated(*_conversion(), [0, 0.01, 0.05, 0.12, 0.25, 1])


def test_the_chance_of_churn_is_calibrated() -> None:
    _assert_calibrated(*_churn(), [0, 0.05, 0.15, 0.4, 0.6, 0.8, 0.92, 1])


def test_the_chance_of_conversion_ranks_as_intended() -> None:
    chance, bound = _conversion()
    assert 0.85 < roc_auc_score(bound, chance) < 0.95


def test_the_chance_of_churn_ranks_and_decides_as_intended() -> None:
    chance, churned = _churn()
    assert roc_auc_score(churned, chance) > 0.92
    assert ((chance > 0.5) == churned).mean() > 0.87


def test_a_few_percent_of_the_open_leads_convert_within_a_month() -> None:
    _, bound = _conversion()
    assert 0.02 < bound.mean() < 0.10


def test_a_few_percent_of_the_customers_cancel_within_two_months() -> None:
    rows = _moments()[_moments()["customer"]]
    assert 0.01 < rows["churned"].mean() < 0.10


def test_an_hour_old_lead_has_a_calibrated_chance() -> None:
    leads = first_leads()[lambda f: f["created_at"] < END - timedelta(days=60)].iloc[:2500]
    spine = pd.DataFrame(
        {"lead_id": leads.index, "as_of": leads["created_at"] + timedelta(hours=1)}
    )
    chance = _chance(spine, "conversion", futures=16).to_numpy()
    bound = spine["lead_id"].map(
        tables()["policies"].drop_duplicates("lead_id").set_index("lead_id")["bound_at"]
    )
    outcome = (bound <= spine["as_of"] + timedelta(days=30)).to_numpy()
    known = ~np.isnan(chance)
    assert known.mean() > 0.98
    assert abs(chance[known].mean() - outcome[known].mean()) < 0.02


def test_the_expected_premium_is_that_of_the_outcomes() -> None:
    rows = _moments()[~_moments()["customer"]].iloc[:1500]
    rows = rows[rows["as_of"] < END - timedelta(days=90)]
    expected = _chance(rows, "lead_score", futures=16)
    policies = tables()["policies"].drop_duplicates("lead_id").set_index("lead_id")
    bound = rows["entity_id"].map(policies["bound_at"])
    inside = (bound > rows["as_of"]) & (bound <= rows["as_of"] + timedelta(days=90))
    real = rows["entity_id"].map(policies["annual_premium"]).where(inside, 0.0)
    error = real.std() / np.sqrt(len(real))
    assert abs(expected.mean() - real.mean()) < 4 * error


def test_rows_that_have_no_chance_are_empty() -> None:
    lost = tables()["closures"].query("reason == 'lost'").iloc[0]
    customer = tables()["policies"].query("cancelled_at.isna()").iloc[0]
    lead = first_leads().iloc[100]
    spine = pd.DataFrame(
        {
            "entity_id": [lost["lead_id"], customer["lead_id"], lead.name],
            "as_of": [
                lost["closed_at"] + timedelta(hours=1),
                customer["bound_at"] + timedelta(hours=1),
                lead["created_at"] - timedelta(hours=1),
            ],
        },
        index=[7, 8, 9],
    )
    assert _chance(spine, "conversion", futures=2).isna().tolist() == [True, True, True]
    churn = _chance(spine, "churn", futures=2)
    assert churn.index.tolist() == [7, 8, 9]
    assert churn.isna().tolist() == [True, False, True]


def test_the_same_question_has_the_same_answer() -> None:
    spine = _moments().iloc[:50]
    pd.testing.assert_series_equal(
        _chance(spine, "churn", futures=4), _chance(spine, "churn", futures=4)
    )


def test_an_unknown_lead_is_named() -> None:
    spine = pd.DataFrame({"entity_id": ["lead_99999999"], "as_of": [pd.Timestamp(END)]})
    with pytest.raises(ValueError, match="lead_99999999 is not a lead of this funnel"):
        _chance(spine, "churn")


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="renewal has no hidden chance"):
        _chance(_moments().iloc[:1], "renewal")
