"""A little dirt: rows of every kind that the door refuses, one by one, harming no other row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.sources import faults

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.0004
"""Dirty rows per event (but at least one of each kind in a chunk)."""


def dirty_events(clean: pd.DataFrame, chunk: int, rng: np.random.Generator) -> pd.DataFrame:
    """Spoiled copies of some event rows, for a batch of their own after the clean ones.

    The columns hold Python objects, as rows read from JSON do.
    """
    import pandas as pd

    if not len(clean):
        return clean
    kinds = (
        faults.UNKNOWN_LEAD,
        faults.NAIVE_TIME,
        faults.WRONG_TYPE,
        faults.UNKNOWN_DIRECTION,
        faults.MISSING_KEY,
        faults.DUPLICATE_KEY,
    )
    rounds = max(1, round(len(clean) * SHARE / len(kinds)))
    chosen = clean.iloc[np.sort(rng.integers(0, len(clean), rounds * len(kinds)))]
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(chosen.to_dict("records")):
        kind = kinds[number % len(kinds)]
        spoiled: dict[str, Any] = {str(k): None if pd.isna(v) else v for k, v in row.items()}
        spoiled["event_id"] = f"dirt_{chunk}_{number}"
        if kind == faults.UNKNOWN_LEAD:
            spoiled["lead_id"] = f"lead_unknown_{chunk}_{number}"
        elif kind == faults.NAIVE_TIME:
            spoiled["occurred_at"] = spoiled["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S")
        elif kind == faults.WRONG_TYPE:
            spoiled["value"] = "about a hundred"
        elif kind == faults.UNKNOWN_DIRECTION:
            spoiled["direction"] = "sideways"
        elif kind == faults.MISSING_KEY:
            spoiled["event_id"] = None
        else:
            spoiled["event_id"] = row["event_id"]
            spoiled["event_type"] = "fax"
        for name in ("occurred_at", "ingested_at"):
            if isinstance(spoiled[name], pd.Timestamp):
                spoiled[name] = spoiled[name].to_pydatetime()
        rows.append(spoiled)
    return pd.DataFrame(rows, columns=list(clean.columns), dtype=object)


def dirty_assignments(clean: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Assignments that end before they begin."""
    import pandas as pd

    if not len(clean):
        return clean
    rounds = max(1, round(len(clean) * SHARE))
    spoiled = clean.iloc[np.sort(rng.integers(0, len(clean), rounds))].reset_index(drop=True)
    # Another beginning, so that the key is new and only the order of the times is wrong.
    spoiled["assigned_at"] = spoiled["assigned_at"] + pd.Timedelta(microseconds=1)
    spoiled["ended_at"] = spoiled["assigned_at"] - pd.Timedelta(days=2)
    return spoiled
