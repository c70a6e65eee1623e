"""One value per feature, whatever computes it: DuckDB over Parquet or PostgreSQL over tables."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, World, random_world, spine

VIEWS = catalogue().views("lead")
MOMENTS = (NOW, NOW + MICROSECOND, NOW - timedelta(days=14, microseconds=3), NOW + timedelta(9))


def both(
    world: World, url: str, folder: Path, ids: list[str], as_of: datetime
) -> tuple[pd.DataFrame, pd.DataFrame]:
    world.load(url)
    paths = world.normalized(url).parquet(folder, shuffle=1)
    with DuckDBEngine(paths, threads=2) as bulk, PostgresEngine(url) as single:
        return (
            bulk.compute(VIEWS, spine(*((i, as_of) for i in ids))),
            single.compute(VIEWS, ids, as_of),
        )


def assert_same_bits(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    for name in one.select_dtypes("float64"):
        # To pandas 0.0 and -0.0 are equal; to a reader of bytes they are not.
        signs = np.signbit(one[name]) == np.signbit(other[name])
        assert (signs | one[name].isna()).all(), name


@settings(
    max_examples=20,
    deadline=None,
    # A smaller seed is not a smaller world: there is nothing to shrink.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10_000), moment=st.sampled_from(MOMENTS))
def test_both_engines_give_every_feature_the_same_value_to_the_last_bit(
    seed: int, moment: datetime, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = random_world(seed)
    ids = [*(row["lead_id"] for row in world.tables["leads"]), "nobody", "unknown"]
    in_bulk, alone = both(world, postgres_url, tmp_path_factory.mktemp("w"), ids, moment)
    assert_same_bits(in_bulk, alone)


def test_the_random_worlds_fill_every_feature_so_that_parity_means_something(
    tmp_path: Path,
) -> None:
    frames = []
    for seed in range(4):
        world = random_world(seed)
        with DuckDBEngine(world.parquet(tmp_path / str(seed)), threads=2) as engine:
            ids = [row["lead_id"] for row in world.tables["leads"]]
            frames.append(engine.compute(VIEWS, spine(*((i, NOW) for i in ids))))
    values = pd.concat(frames, ignore_index=True)
    constant = [f.name for v in VIEWS for f in v.features if values[f.name].nunique() < 2]
    assert constant == []
    strange = [
        f.name
        for v in VIEWS
        for f in v.features
        if not all(f.holds(value) for value in values[f.name].dropna())
    ]
    assert strange == []
