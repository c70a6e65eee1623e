"""One value per feature, whatever computes it: DuckDB over Parquet or PostgreSQL over tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.duckdb_engine import DEEP
from leadml_pipelines.features.engines import DuckDBEngine, PostgresEngine
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import features_of
from leadml_pipelines_tests.features.world import MICROSECOND, NOW, World, random_world, spine

ENTITIES = catalogue().entities


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


MOMENTS = (NOW, NOW + MICROSECOND, NOW - timedelta(days=14, microseconds=3), NOW + timedelta(9))


def ids_of(world: World, entity: str) -> list[str]:
    kind = entity_type(entity)
    return [*(row[kind.key] for row in world.tables[kind.table]), "nobody", "unknown"]


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
    world.load(postgres_url)
    paths = world.normalized(postgres_url).parquet(tmp_path_factory.mktemp("w"), shuffle=1)
    with DuckDBEngine(paths, threads=2) as bulk, PostgresEngine(postgres_url) as single:
        for entity in ENTITIES:
            views, ids = catalogue().views(entity), ids_of(world, entity)
            assert_same_bits(
                bulk.compute(views, spine(*((i, moment) for i in ids))),
                single.compute(views, ids, moment),
            )


def test_a_spine_with_many_rows_per_entity_gets_the_same_values_as_row_by_row(
    tmp_path: Path,
) -> None:
    world = random_world(5, leads=3)
    moments = [NOW - timedelta(days=3 * k, microseconds=k) for k in range(DEEP * 3)]
    with DuckDBEngine(world.parquet(tmp_path), threads=2) as engine:
        for entity in ENTITIES:
            views = catalogue().views(entity)
            rows = spine(*((i, m) for m in moments for i in ids_of(world, entity)))
            together = engine.compute(views, rows)
            apart = pd.concat(
                [engine.compute(views, part) for _, part in rows.groupby("as_of", sort=False)],
                ignore_index=True,
            )
            assert_same_bits(together, apart)


def test_the_random_worlds_fill_every_feature_so_that_parity_means_something(
    tmp_path: Path, stack: ExitStack
) -> None:
    worlds = [random_world(seed) for seed in range(6)]
    engines = [
        stack.enter_context(DuckDBEngine(world.parquet(tmp_path / str(n)), threads=2))
        for n, world in enumerate(worlds)
    ]
    for entity in ENTITIES:
        views = catalogue().views(entity)
        values = pd.concat(
            [
                engine.compute(views, spine(*((i, NOW) for i in ids_of(world, entity))))
                for world, engine in zip(worlds, engines, strict=True)
            ],
            ignore_index=True,
        )
        features = features_of(views)
        assert [f.name for f in features if values[f.name].nunique() < 2] == []
        strange = [f.name for f in features if not all(f.holds(v) for v in values[f.name].dropna())]
        assert strange == []
