"""Experiments whose truth is known: logged predictions and what came true of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leadml_pipelines_tests.learning.frames import START


def experiment_rows(
    entities: int,
    *,
    seed: int,
    champion_noise: float = 1.0,
    challenger_noise: float = 1.0,
    share: float = 0.5,
    rows_each: int = 1,
    regression: bool = False,
    known: float = 1.0,
) -> pd.DataFrame:
    """Predictions of two models with outcomes; the noisier model knows less of the truth.

    Args:
        entities: How many.
        seed: Same seed, same rows.
        champion_noise: Standard deviation of the champion's error in log-odds.
        challenger_noise: The challenger's.
        share: The challenger's share of the entities.
        rows_each: Predictions of each entity, on as many days, with the same outcome.
        regression: Amounts instead of yes and no.
        known: Share of the rows whose outcome is known.
    """
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.5, 1.5, entities)
    drawn = rng.random(entities) < share
    noise = np.where(drawn, challenger_noise, champion_noise) * rng.normal(size=entities)
    if regression:
        label, value = np.exp(truth), np.exp(truth + noise)
    else:
        label = (rng.random(entities) < 1 / (1 + np.exp(-truth))).astype(float)
        value = 1 / (1 + np.exp(-truth - noise))
    label[rng.random(entities) >= known] = np.nan
    one = pd.DataFrame(
        {
            "entity_id": [f"lead_{at}" for at in range(entities)],
            "model_id": np.where(drawn, "churn_2", "churn_1"),
            "role": np.where(drawn, "challenger", "champion"),
            "value": value,
            "prediction": (value >= 0.5).astype(float),
            "label": label,
            "traffic_share": share,
        }
    )
    frames = [
        one.assign(predicted_at=pd.Timestamp(START) + pd.Timedelta(days=day))
        for day in range(rows_each)
    ]
    return pd.concat(frames, ignore_index=True)
