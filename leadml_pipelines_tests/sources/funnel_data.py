"""One synthetic funnel for all tests that only look at it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

import pandas as pd

from leadml_pipelines.sources.synthetic import Batch, generate, truth

LEADS = 6_000
SEED = 11
END = datetime(2026, 11, 1, tzinfo=UTC)


@lru_cache(maxsize=1)
def batches() -> tuple[Batch, ...]:
    """The funnel as it is generated, dirt and all."""
    return tuple(generate(LEADS, seed=SEED, end=END))


@lru_cache(maxsize=1)
def tables() -> dict[str, pd.DataFrame]:
    """Its clean tables; `leads` holds the later versions too."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for batch in generate(LEADS, seed=SEED, end=END, dirt=False):
        parts.setdefault(batch.table, []).append(batch.frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


@lru_cache(maxsize=1)
def first_leads() -> pd.DataFrame:
    """The leads as they came in, with what is hidden about them, indexed by id."""
    leads = tables()["leads"].drop_duplicates("lead_id", keep="first")
    hidden = pd.concat(truth(LEADS, seed=SEED, end=END), ignore_index=True)
    return leads.merge(hidden, on="lead_id", validate="one_to_one").set_index("lead_id")


def converted() -> pd.Series:
    """For leads that had at least 150 days: whether a policy was ever bound, by id."""
    leads = first_leads()
    old = leads[leads["created_at"] < END - pd.Timedelta(days=150)]
    return pd.Series(old.index.isin(tables()["policies"]["lead_id"]), index=old.index)


def digest() -> str:
    """SHA-256 over all rows of a small funnel."""
    found = hashlib.sha256()
    for batch in generate(300, seed=3, end=END, days=120):
        found.update(batch.table.encode() + batch.frame.to_csv().encode())
    return found.hexdigest()
